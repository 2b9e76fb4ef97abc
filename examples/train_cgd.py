"""Train CGD on a few made-up scenes, validate it on others, and draw how it went; about a minute on two cores.

The network is a small one with random weights, so that nothing is downloaded. With ImageNet's weights and a folder of
photos per class it is ``cvretrieval train cgd DIR --backbone resnet50 --out cgd.cvm --report curves.html``.

python examples/train_cgd.py training.html
"""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from torch import nn

from cvretrieval.datasets import make_scenes
from cvretrieval.deep import CGD
from cvretrieval.plotting import write_training_report

torch.manual_seed(0)
sizes = [3, 24, 48, 96, 96]
network = nn.Sequential(
    *(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise(sizes)
    )
)
scenes = make_scenes(n_scenes=24, n_views=4, image_size=(120, 90), random_state=0)
train = [i for i, label in enumerate(scenes.labels) if label < 16]
other = [i for i, label in enumerate(scenes.labels) if label >= 16]

cgd = CGD(
    network,
    branches="SG",
    n_components=64,
    classes_per_batch=16,
    images_per_class=4,
    n_epochs=40,
    learning_rate=3e-3,
    resize_to=108,
    input_size=96,
    random_state=0,
    verbose=True,
)
cgd.fit(
    [scenes.images[i] for i in train],
    [scenes.labels[i] for i in train],
    validation=([scenes.images[i] for i in other], [scenes.labels[i] for i in other]),
)
recall = cgd.history_["recall_at_1"]
print(
    f"R@1 among scenes that were not trained on: {recall[0]:.2f} after the first epoch, {recall.max():.2f} after epoch "
    f"{cgd.best_epoch_}, which is kept"
)
path = sys.argv[1] if len(sys.argv) > 1 else "training.html"
print(f"curves: {write_training_report(cgd.history_, path, title='CGD of made-up scenes', best_epoch=cgd.best_epoch_)}")
