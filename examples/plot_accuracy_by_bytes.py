"""
VLAD, Fisher vectors and bags of words by bytes
===============================================

How well each way to one vector per image finds the other photos of the same object, by the bytes it takes.
"""

# %%
# Codebooks, local coordinates and whitening are learned on the photos of one half of the objects. In the other half
# every photo asks for the others of its object.

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import issparse
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import SIFT, VLAD, BagOfWords, FisherVector, PCAWhitening, PerDescriptor, TfIdf
from cvretrieval.datasets import make_scenes
from cvretrieval.metrics import mean_average_precision

scenes = make_scenes(n_scenes=30, n_views=3, image_size=(160, 120), difficulty=0.4, random_state=0)
features = SIFT(root=True, max_features=100).fit_transform(scenes.images)
is_asked = scenes.labels >= 15
learning, asking, labels = features[~is_asked], features[is_asked], scenes.labels[is_asked]


# %%
# Vectors are counted as float32; a sparse histogram as four bytes for each number that is not zero, and four for its
# place. Fisher vectors are taken of SIFT reduced to 64 dimensions, as their paper does.

RN_LCS = {"residual_norm": True, "local_coordinates": True, "power": 0.2, "random_state": 0}
reduced = PerDescriptor(PCA(64, random_state=0), random_state=0)
curves = {
    "bag of words, tf-idf": [
        make_pipeline(BagOfWords(n, norm=None, sparse=True, random_state=0), TfIdf()) for n in (25, 100, 400)
    ],
    "VLAD": [VLAD(n, random_state=0) for n in (2, 8, 32)],
    "VLAD, RN + LCS": [VLAD(n, **RN_LCS) for n in (2, 8, 32)],
    "Fisher": [make_pipeline(reduced, FisherVector(n, random_state=0)) for n in (2, 8, 32)],
}


def measure(vectors):
    """Return bytes per photo and mean average precision."""
    similarities = (vectors @ vectors.T).toarray() if issparse(vectors) else vectors @ vectors.T
    ranking = [[j for j in np.argsort(-row, kind="stable") if j != i] for i, row in enumerate(similarities)]
    relevant = [np.setdiff1d(np.flatnonzero(labels == label), i) for i, label in enumerate(labels)]
    size = 8 * vectors.nnz / len(labels) if issparse(vectors) else 4 * vectors.shape[1]
    return size, mean_average_precision(ranking, relevant)


# %%
# Residuals of unit length in local coordinates (RN + LCS) lift VLAD at every size. Whitening (dashed) makes vectors
# that are a hundred times shorter, but 45 photos are few to learn it from, and much is lost: learn it from thousands.

figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for (name, models), color in zip(curves.items(), ("C0", "C1", "C2", "C4"), strict=True):
    lines = {name: [measure(model.fit(learning).transform(asking)) for model in models]}
    if name in ("VLAD, RN + LCS", "Fisher"):
        long = [models[-1].transform(learning), models[-1].transform(asking)]
        whitenings = [PCAWhitening(n).fit(long[0]) for n in (8, 16, 32)]
        lines[f"{name}, 32, whitened"] = [measure(whitening.transform(long[1])) for whitening in whitenings]
    for style, (label, points) in zip(("-", "--"), lines.items(), strict=False):
        print(f"{label:28}", "  ".join(f"{size:.0f} bytes: {score:.3f}" for size, score in points))
        ax.semilogx(*zip(*points, strict=True), style, color=color, marker="o", label=label)
ax.set(xlabel="bytes per photo", ylabel="mean average precision", title=f"{is_asked.sum()} photos of 15 objects")
ax.legend()
plt.show()
