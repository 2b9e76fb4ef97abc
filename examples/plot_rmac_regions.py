"""
R-MAC's regions
===============

The grid of regions whose maxima are added up, and what each of them contributes to the similarity of two photos.
"""

# %%
# A small network with random weights stands in for a trained one, so that nothing is downloaded; the regions depend on
# the size of its map alone. In place of it goes a name, ``deep.RMAC("resnet50")``.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from cvretrieval import deep
from cvretrieval.datasets import make_scenes
from cvretrieval.deep.layers.region_grid import rmac_regions
from cvretrieval.plotting import plot_regions

torch.manual_seed(0)
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise([3, 32, 64, 128])
    )
)
scenes = make_scenes(n_scenes=1, n_views=2, image_size=(320, 240), random_state=0)
photo, other = scenes.images

# %%
# Squares of three sizes: as large as the shorter side, two thirds and half of it. Along the longer side there are as
# many as bring the overlap at level 1 closest to 40 percent. The whole map is no region in the authors' program;
# cirtorch adds it (``include_global=True``).

explained = deep.explain_regions(deep.RMAC(network), other, photo)
grid = rmac_regions(30, 40)  # the map of 320 × 240 pixels at a stride of 8
levels = np.array([level for level, *_ in grid])
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for level, ax in enumerate(axes, start=1):
    boxes = explained.boxes[levels == level]
    plot_regions(photo, boxes, max_boxes=len(boxes), ax=ax)
    ax.set_title(f"level {level}: {len(boxes)} regions")

# %%
# Of each region: maxima, L2, (whitening, L2). Then the sum of all, and L2 again: leaving out the last step is the slip
# that is made most. The descriptor being a sum, the cosine of two photos is a sum over regions, too.

print(f"{len(levels)} regions; cosine {explained.similarity:.4f}, sum of their shares {explained.shares.sum():.4f}")
order = np.argsort(-explained.shares)
print("largest and smallest share:", np.round(explained.shares[order[[0, -1]]], 4))

# %%
# Added up over the places that regions cover: what lies in the middle is in more regions than what lies in a corner, so
# R-MAC prefers the middle, without a prior.

coverage = np.zeros((30, 40), dtype=int)
for _, y, x, side in grid:
    coverage[y : y + side, x : x + side] += 1
figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
figure.colorbar(ax.imshow(coverage), label="regions that a place of the map is in")
print(f"regions of the middle: {coverage[15, 20]}, of a corner: {coverage[0, 0]}")
plt.show()
