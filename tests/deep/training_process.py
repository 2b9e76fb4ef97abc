"""One of several processes that train, for `test_training_processes`: ``python -m tests.deep.training_process OUT``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

from cvretrieval.deep import CGD, FineTuned, GeM, NetVLAD


class Plain(torch.nn.Module):
    """A network without draws, its batch normalisation with statistics of its own."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.steps = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 3)
            )

    def forward(self, x):
        return self.steps(x)


def stripes():
    """Four classes of four images: stripes of some widths, in noise."""
    rng = np.random.default_rng(0)
    images = []
    for width in (2, 3, 5, 8):
        lines = (np.arange(40) // width % 2 * 60)[:, None, None]
        images += [(lines + rng.integers(0, 150, (40, 40, 3))).astype(np.uint8) for _ in range(4)]
    return images, np.repeat(np.arange(4), 4)


class Proxies(torch.nn.Module):
    """Cross entropy of cosines to a proxy of each class, which is trained: of the form of pytorch-metric-learning."""

    def __init__(self, n_classes, n_dims):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.linspace(-1, 1, n_classes * n_dims).sin().reshape(n_classes, n_dims))

    def forward(self, embeddings, labels, indices_tuple=None):
        return torch.nn.functional.cross_entropy(5 * embeddings @ self.proxies.T, labels)


# Batches of nine images, and of fifteen in three tuples, are not shared evenly.
OPTIONS = {"n_epochs": 3, "resize_to": 36, "input_size": 32, "random_state": 0, "learning_rate": 1e-3}
MODELS = {
    "CGD": CGD(Plain(), n_components=8, classes_per_batch=3, images_per_class=3, accumulate=2, freeze_batch_norm=True,
               device="cpu", **OPTIONS),
    "CGD-classification": CGD(Plain(), n_components=8, classes_per_batch=3, ranking_weight=0, freeze_batch_norm=True,
                              device="cpu", **OPTIONS),
    "CGD-proxies": CGD(Plain(), n_components=8, ranking_loss=Proxies(4, 8), classification_weight=0, device="cpu",
                       freeze_batch_norm=True, classes_per_batch=3, **OPTIONS),
    "GeM": FineTuned(GeM(Plain(), image_size=40, device="cpu"), classes_per_batch=2, n_negatives=2,
                     ranking_loss="multi_similarity", **OPTIONS),
    "NetVLAD": FineTuned(NetVLAD(Plain(), n_clusters=3, image_size=40, random_state=0, device="cpu"), n_negatives=3,
                         classes_per_batch=3, ranking_loss="weakly_supervised", margin=0.5, **OPTIONS),
}  # fmt: skip


def fit(name, folder=None):
    """Train a model as it is trained in one process and in several; its vectors are those of all images."""
    images, labels = stripes()
    model = MODELS[name].fit(images, labels, validation=(images[::2], labels[::2]), checkpoint_to=folder)
    return model, model.transform(images)


def main(out):
    """Train all of them and write what was found."""
    rank = int(os.environ["RANK"])
    found = {}
    for name in MODELS:
        model, found[name] = fit(name, out / f"{name}-{rank}")
        found |= {f"{name} {key}": values for key, values in model.history_.items()}
    images, labels = stripes()
    # All go on from what the first one wrote, here from a training that is done.
    fitted, again = MODELS["CGD"], clone(MODELS["CGD"])
    again.fit(images, labels, validation=(images[::2], labels[::2]), resume_from=out / "CGD-0")
    found["resumed"] = np.array_equal(again.weights_, fitted.weights_)
    # A seed by chance is the first one's; batch normalisation of each share.
    chance = CGD(Plain(), n_components=8, classes_per_batch=4, device="cpu", **{**OPTIONS, "random_state": None})
    found["chance"] = chance.fit(images, labels).transform(images)
    try:
        CGD(Plain(), n_components=8, classes_per_batch=4, device="cpu", **OPTIONS).fit(images, labels + rank)
    except ValueError as error:
        found["error"] = str(error)
    np.savez(out / f"{rank}.npz", **found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # threads of gloo abort, now and then, a process whose interpreter ends before them (pytorch 109478)
