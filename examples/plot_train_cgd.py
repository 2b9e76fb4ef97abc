"""
Training CGD on a small set
===========================

A combination of global descriptors, trained on some objects and judged on others.
"""

# %%
# Photos of made-up objects: sixteen to train on, eight others to validate with. The network is a small one with random
# weights, so that nothing is downloaded and the training takes seconds; with ImageNet's weights and a folder of photos
# per class it is ``deep.CGD("resnet50")``, or ``cvretrieval train cgd DIR`` in the shell.

from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch import nn

from cvretrieval import deep
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_training

torch.manual_seed(0)
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise([3, 24, 48, 96])
    )
)
scenes = make_scenes(n_scenes=24, n_views=4, image_size=(96, 72), difficulty=0.1, random_state=0)
train = [i for i, label in enumerate(scenes.labels) if label < 16]
other = [i for i, label in enumerate(scenes.labels) if label >= 16]

# %%
# Two branches pool the same map, S (mean) and G (generalised mean). Each is a linear layer without bias, then L2; they
# are concatenated, then L2 again. Trained are both losses together: a triplet loss of that vector, and a classification
# by the first branch before its linear layer, softened by a temperature.

cgd = deep.CGD(
    network,
    branches="SG",
    n_components=64,
    classes_per_batch=8,
    images_per_class=4,
    n_epochs=24,
    learning_rate=2e-3,
    decay_at=(0.6, 0.9),
    resize_to=80,
    input_size=72,
    random_state=0,
)
held_out = ([scenes.images[i] for i in other], scenes.labels[other])
cgd.fit([scenes.images[i] for i in train], scenes.labels[train], validation=held_out)
print(f"{len(train)} photos to train on, {len(other)} to validate with")

# %%
# R@1 is the share of photos whose nearest other photo shows the same object, among objects that were not trained on.
# The epoch with the best one is kept.

recall = cgd.history_["recall_at_1"]
print(f"R@1 after the first epoch {recall[0]:.2f}, after epoch {cgd.best_epoch_}, which is kept, {recall.max():.2f}")
plot_training(cgd.history_)
plt.show()
