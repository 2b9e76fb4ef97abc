"""
CNN and SIFT together
=====================

Two descriptors that see different things, in one vector: what each finds alone, and what both find.
"""

# %%
# SIFT sees shapes and no colours. A network sees colours, too, even this small one with random weights, which stands in
# for a trained one so that nothing is downloaded. Twenty features a photo keep SIFT from finding everything.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from cvretrieval import SIFT, VLAD, deep
from cvretrieval.datasets import make_scenes
from cvretrieval.metrics import mean_average_precision

torch.manual_seed(0)
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise([3, 32, 64])
    )
)
scenes = make_scenes(n_scenes=20, n_views=3, image_size=(160, 120), difficulty=0.4, random_state=0)
is_asked = scenes.labels >= 8
learning = [image for image, asked in zip(scenes.images, is_asked, strict=True) if not asked]
asking = [image for image, asked in zip(scenes.images, is_asked, strict=True) if asked]
labels = scenes.labels[is_asked]


def score(vectors):
    """Return the mean average precision of asking with each photo for the others of its object."""
    ranking = [[j for j in np.argsort(-row, kind="stable") if j != i] for i, row in enumerate(vectors @ vectors.T)]
    relevant = [np.setdiff1d(np.flatnonzero(labels == label), i) for i, label in enumerate(labels)]
    return mean_average_precision(ranking, relevant)


# %%
# :class:`~cvretrieval.deep.Ensemble` normalises the vector of each member, multiplies it by a weight and concatenates:
# cosines of the result are the means of the members' cosines, weighted by the squares of the weights. Everything is
# learned on photos of eight objects; those of twelve others ask for each other.

members = [
    ("cnn", deep.NetVLAD(network, n_clusters=8, random_state=0)),
    ("sift", make_pipeline(SIFT(root=True, max_features=20), VLAD(4, random_state=0))),
]
both = deep.Ensemble(members, whitening=None).fit(learning)
parts = [member.transform(asking) for member in both.members_]

# %%
# Alone the network finds little; beside SIFT it decides between photos that SIFT finds equally like the query. The best
# share of SIFT is a matter of the photos: search for it on some that you do not judge by.

shares = np.linspace(0, 1, 11)
scores = [score(np.hstack([np.sqrt(1 - share) * parts[0], np.sqrt(share) * parts[1]])) for share in shares]
best = float(shares[np.argmax(scores)])
print(f"CNN alone {scores[0]:.3f}, SIFT alone {scores[-1]:.3f}, {best:.0%} SIFT {max(scores):.3f}")

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(shares, scores, marker="o")
ax.set(xlabel="share of SIFT in the cosine", ylabel="mean average precision", title="36 photos of 12 objects")
ax.grid(alpha=0.3)

# %%
# As one estimator, with the weights it was found with:

both.set_params(weights=[np.sqrt(1 - best), np.sqrt(best)])
print(f"{both.transform(asking).shape[1]} numbers a photo, {score(both.transform(asking)):.3f}")
plt.show()
