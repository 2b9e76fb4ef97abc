"""
GeM's p, between mean and maximum
=================================

What the exponent of generalised-mean pooling does to one map, and where in the photo the similarity comes from.
"""

# %%
# A small network with random weights stands in for a trained one, so that nothing is downloaded: what p does is the
# same for both. In place of it goes a name, ``deep.GeM("resnet50")``.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from cvretrieval import deep
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_heat_map

torch.manual_seed(0)
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise([3, 32, 64, 128])
    )
)
a, b = make_scenes(n_scenes=1, n_views=2, image_size=(320, 240), random_state=0).images

# %%
# Of each channel GeM takes the mean of p-th powers and of that the p-th root. p = 1 is the mean (SPoC without its
# prior). As p grows it approaches the maximum (MAC), which it never exceeds.

with torch.inference_mode():
    maps = network.eval()(torch.from_numpy(a / 255).permute(2, 0, 1)[None].float())
exponents = np.geomspace(1, 100, 30)
pooled = np.stack([deep.layers.GeM(p)(maps)[0].detach().numpy() for p in exponents])
largest = deep.layers.MAC()(maps)[0].detach().numpy()
active = np.flatnonzero(largest)[:40]
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogx(exponents, pooled[:, active] / largest[active], color="C0", alpha=0.3)
ax.axvline(3, color="black", linewidth=0.8, linestyle=":")
ax.set(xlabel="p", ylabel="pooled value / maximum, 40 channels", ylim=(0, 1))
ax.grid(alpha=0.3)

# %%
# The contributions of the places of a photo to its similarity with another one add up to that similarity. With p = 1
# every place of a large area counts; with a large p the similarity is decided by a few places.

figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
axes[0].imshow(a)
axes[0].set_axis_off()
for ax, p in zip(axes[1:], (1, 3, 20), strict=True):
    similarity = deep.explain_similarity(deep.GeM(network, p=p), a, b)
    shares = np.sort(similarity.b.ravel())[::-1]
    half = np.searchsorted(shares.cumsum(), shares.sum() / 2) + 1
    plot_heat_map(b, similarity.b, frame=similarity.frame_b, ax=ax)
    ax.set_title(f"p = {p}: half of it from {half / shares.size:.1%}", fontsize=10)
    print(f"p = {p:2d}: cosine {similarity.similarity:.3f}, half of it from {half} of {shares.size} places")
plt.show()
