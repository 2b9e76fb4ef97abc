"""
NetVLAD's clusters
==================

Which centre each place of a photo belongs to, how sharply, and what the sharpness α does.
"""

# %%
# A small network with random weights stands in for a trained one, so that nothing is downloaded: it sees colours and
# edges. Centres are k-means of its map's pixels, as those that NetVLAD's training starts from.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from cvretrieval import deep
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_cluster_map

torch.manual_seed(0)
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise([3, 32, 64])
    )
)
scenes = make_scenes(n_scenes=6, n_views=2, image_size=(320, 240), random_state=0)
netvlad = deep.NetVLAD(network, n_clusters=8, random_state=0).fit(scenes.images)
print(f"{netvlad.transform(scenes.images[:1]).shape[1]} numbers: 8 centres × 64 channels, α = {netvlad.alpha_:.1f}")

# %%
# A centre has one colour in all photos: it takes the same kind of surface in each of them.

shown = [0, 1, 2, 3]
figure, axes = plt.subplots(2, len(shown), figsize=(12, 4.8), layout="constrained")
for column, image in zip(axes.T, shown, strict=True):
    column[0].imshow(scenes.images[image])
    column[0].set_axis_off()
    clusters = deep.cluster_map(netvlad, scenes.images[image])
    plot_cluster_map(scenes.images[image], clusters.clusters, frame=clusters.frame, alpha=0.8, ax=column[1])

# %%
# Each place is shared among the centres by a softmax of :math:`2\alpha c_k \cdot x - \alpha \|c_k\|^2`, which is the
# softmax of :math:`-\alpha\|x - c_k\|^2`. (With a plus before the last term, as it is often written, it is neither, and
# long centres win everywhere.) α is set so that with the mean gap of distances the nearest centre weighs 100 times what
# the second does. The larger α, the harder the assignment; NetVLAD's residuals then are those of VLAD.

layer = deep.layers.NetVLAD(8, 64)
with torch.inference_mode():
    pixels = torch.from_numpy(scenes.images[0] / 255).permute(2, 0, 1)[None].float()
    maps = network.eval()(pixels)
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for factor in (0.1, 1, 10):
        layer.set_centers(netvlad.centers_, factor * netvlad.alpha_)
        largest = layer.assign(maps).amax(1).flatten().numpy()
        ax.hist(largest, bins=40, range=(0, 1), histtype="step", label=f"{factor:g} times that α")
        print(f"{factor:4} α: share of the nearest centre {np.mean(largest):.2f} on average")
ax.set(xlabel="share of the nearest centre", ylabel="places of the first photo")
ax.legend(loc="upper left")
plt.show()
