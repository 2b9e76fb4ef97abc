"""CGD trained on groceries of some classes, searched among photos of others.

Trained on the photos of ``train.txt`` of the fine classes 0 to 40, or a part of them (``--per-class``), from ImageNet
weights of ``--backbone``; the photos of ``test.txt`` of the classes 41 to 80 are searched among each other: R@1 and
MAP@R. Rows:

frozen    GeM, SPoC and MAC of the network as it is, plain and whitened by PCA of the training photos to ``--dims``;
cgd       CGD of ``--branches``, each a row;
single    each of its descriptors trained alone at the same dimension, and the concatenation of these;
ablation  CGD of the first branches without the ranking loss, without the classification, temperature, smoothing;
tuned     GeM and NetVLAD, photos reduced to ``--size`` pixels, frozen and fine-tuned with the same batches;
overhead  what a training step of CGD takes beside forward and backward of the bare network.

Every image is squashed to ``--size`` pixels (in training to 9/8 of it, then cropped). With ``--checkpoints`` a run
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import data_folder
from numpy.typing import NDArray
from torch import nn

from cvretrieval import PCAWhitening
from cvretrieval.deep import CGD, MAC, FineTuned, GeM, NetVLAD, SPoC
from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from cvretrieval.images import ImageReader

ABLATIONS: dict[str, dict[str, Any]] = {
    "ranking only": {"classification_weight": 0.0},
    "a tenth of the classification": {"classification_weight": 0.1},
    "classification only": {"ranking_weight": 0.0},
    "no temperature": {"temperature": 1.0},
    "no smoothing": {"label_smoothing": 0.0},
    "sum before one layer": {"combine": "sum_before_fc"},
    "concatenation before one layer": {"combine": "concatenate_before_fc"},
}


def network(data: Path, name: str) -> nn.Module:
    """Return a module with ImageNet weights that gives feature maps."""
    spec = importlib.util.spec_from_file_location("backbones", data / "cnn_weights" / "backbones.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = {"mobilenet": module.mobilenet_v2, "squeezenet": module.squeezenet1_1}[name]()
    return made


def photos(data: Path, split: str, low: int, high: int, per_class: int | None) -> tuple[list[Any], NDArray[np.int64]]:
    rows = [line.split(",") for line in (data / "grocery_store" / f"{split}.txt").read_text().splitlines()]
    chosen: list[tuple[Path, int]] = []
    counts: dict[int, int] = {}
    for name, label, _ in rows:
        counts[int(label)] = counts.get(int(label), 0) + 1
        if low <= int(label) <= high and (per_class is None or counts[int(label)] <= per_class):
            chosen.append((data / "grocery_store" / name.strip(), int(label)))
    return [path for path, _ in chosen], np.array([label for _, label in chosen])


def figures(vectors: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return R@1 and MAP@R of vectors of unit length, each searched among the others, in percent."""
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    hits = labels[np.argsort(-products, axis=1, kind="stable")[:, :-1]] == labels[:, None]
    precision = []
    for row in hits:
        n_relevant = int(row.sum())
        first = row[:n_relevant]
        precision.append(
            float((np.cumsum(first) / np.arange(1, n_relevant + 1) * first).sum()) / n_relevant if n_relevant else 0
        )
    return 100 * float(hits[:, 0].mean()), 100 * float(np.mean(precision))


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


class Bench:
    """The photos and how everything is trained on them."""

    def __init__(self, data: Path, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.train, self.labels = photos(data, "train", 0, 40, arguments.per_class)
        self.test, self.test_labels = photos(data, "test", 41, 80, None)
        self.network = network(data, arguments.backbone)
        self.seeds = range(arguments.seeds) if arguments.only_seed is None else [arguments.only_seed]
        print(
            f"{arguments.backbone}, {arguments.size} px, {len(self.train)} photos trained on, {len(self.test)} "
            f"searched, {arguments.epochs} epochs of batches of {arguments.batch[0]} x {arguments.batch[1]}, "
            f"{torch.get_num_threads()} threads",
            flush=True,
        )

    def options(self, seed: int) -> dict[str, Any]:
        chosen = self.arguments
        return {
            "n_epochs": chosen.epochs, "classes_per_batch": chosen.batch[0], "images_per_class": chosen.batch[1],
            "learning_rate": chosen.learning_rate, "resize_to": chosen.size * 9 // 8, "input_size": chosen.size,
            "random_state": seed, "verbose": True,
        }  # fmt: skip

    def cgd(self, branches: str, seed: int, **changed: Any) -> CGD:
        return CGD(self.network, branches=branches, n_components=self.arguments.dims, n_workers=2,
                   **{**self.options(seed), **changed})  # fmt: skip

    def fit(self, name: str, estimator: Any, seed: int) -> Any:
        folder = self.arguments.checkpoints and Path(self.arguments.checkpoints) / f"{name} {seed}".replace(" ", "-")
        resume = {"resume_from": folder} if folder and (folder / "last.pt").exists() else {"checkpoint_to": folder}
        return estimator.fit(self.train, self.labels, **resume)

    def trained(self, name: str, make: Any) -> list[NDArray[Any]]:
        """Print the row of an estimator trained with every seed; return the vectors of the test photos for each."""
        found = [self.vectors_of(name, make, seed) for seed in self.seeds]
        speed = np.mean([images_per_second for _, images_per_second in found])
        vectors = [of_seed for of_seed, _ in found]
        rows = [figures(of_seed, self.test_labels) for of_seed in vectors]
        self.row(name, rows, f"{speed:.1f} images/s")
        return vectors

    def vectors_of(self, name: str, make: Any, seed: int) -> tuple[NDArray[Any], float]:
        """Train with one seed, or take what an earlier call has left in ``--results``; vectors, and images a second."""
        kept = self.arguments.results and Path(self.arguments.results) / f"{name} {seed}.npz".replace(" ", "-")
        if kept and kept.exists():
            with np.load(kept) as arrays:
                return arrays["vectors"], float(arrays["images_per_second"])
        estimator = self.fit(name, make(seed), seed)
        vectors, speed = estimator.transform(self.test), float(np.mean(estimator.history_["images_per_second"]))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, vectors=vectors, images_per_second=speed)
        return vectors, speed

    def row(self, name: str, rows: list[tuple[float, float]], note: str = "") -> None:
        spread = np.std(rows, axis=0)
        cells = "".join(f"{mean:8.2f} ± {std:4.2f}" for mean, std in zip(np.mean(rows, axis=0), spread, strict=True))
        print(f"{name:34}{cells}   {note}", flush=True)

    def frozen(self) -> None:
        options: dict[str, Any] = {"n_workers": 2, "batch_size": 64}
        descriptors = {
            "GeM": _GeM(self.network, **options),
            "SPoC, no prior": _SPoC(self.network, center_prior=False, **options),
            "MAC": _MAC(self.network, **options),
        }
        for name, descriptor in descriptors.items():
            descriptor.size = self.arguments.size
            train, test = descriptor.transform(self.train), descriptor.transform(self.test)
            self.row(f"{name}, frozen", [figures(test, self.test_labels)])
            whitening = PCAWhitening(min(self.arguments.dims, len(self.train) - 1, train.shape[1])).fit(train)
            self.row(f"{name}, frozen, PCA-whitened", [figures(unit(whitening.transform(test)), self.test_labels)])

    def single(self, branches: str) -> None:
        vectors = [self.trained(f"{one} alone", lambda seed, one=one: self.cgd(one, seed)) for one in branches]
        together = [unit(np.concatenate(of_seed, axis=1)) for of_seed in zip(*vectors, strict=True)]
        self.row(f"{' and '.join(branches)} trained apart", [figures(rows, self.test_labels) for rows in together])

    def tuned(self) -> None:
        common = {"image_size": self.arguments.size, "n_workers": 2}
        options = {"ranking_loss": "batch_hard", "margin": 0.1}
        descriptors = {
            "GeM": GeM(self.network, **common),
            "NetVLAD 16": NetVLAD(self.network, n_clusters=16, random_state=0, **common),
        }
        for name, descriptor in descriptors.items():
            frozen = descriptor.fit(self.train, self.labels).transform(self.test)
            self.row(f"{name}, frozen, longest side", [figures(frozen, self.test_labels)])
            self.trained(
                f"{name}, fine-tuned",
                lambda seed, one=descriptor: FineTuned(one, **{**self.options(seed), **options}),
            )

    def overhead(self, repeats: int = 5) -> None:
        n_images = self.arguments.batch[0] * self.arguments.batch[1]
        images = torch.rand(n_images, self.arguments.size, self.arguments.size, 3).permute(0, 3, 1, 2)
        targets = torch.arange(self.arguments.batch[0]).repeat_interleave(self.arguments.batch[1])
        cgd = self.cgd(self.arguments.branches[0], 0)
        _, _, parts = cgd._make_parts(torch.device("cpu"), [], None, self.arguments.batch[0])
        parts.train()
        terms = cgd._loss_terms()
        optimizer = torch.optim.Adam(parts.parameters(), lr=1e-6)

        def bare() -> None:
            optimizer.zero_grad(set_to_none=True)
            parts.network(images).mean().backward()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            sum(terms(parts, images, targets).values()).backward()  # type: ignore[union-attr]
            optimizer.step()

        times: dict[Any, list[float]] = {bare: [], step: []}
        for _ in range(repeats + 1):
            for run, seconds in times.items():
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
        alone, whole = (min(seconds[1:]) for seconds in times.values())
        print(f"a training step of {n_images} images: {whole:.2f} s; forward and backward of the bare network: "
              f"{alone:.2f} s; {100 * (whole / alone - 1):.1f} % more  (target ≤ 5)")  # fmt: skip


class _Squashed:
    """A descriptor of images as CGD sees them."""

    size = 224

    def _image_reader(self) -> Any:
        return FixedSizeReader(ImageReader(), self.size, "squash")


class _GeM(_Squashed, GeM):
    pass


class _SPoC(_Squashed, SPoC):
    pass


class _MAC(_Squashed, MAC):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--backbone", choices=["mobilenet", "squeezenet"], default="mobilenet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs=2, default=(16, 4), help="classes, images of each")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--per-class", type=int, help="photos of each class to train on (default: all)")
    parser.add_argument("--branches", nargs="+", default=["MG", "SG", "SM"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-seed", type=int, help="one of them, so that several processes share the work")
    parser.add_argument("--results", help="folder of what is trained already; not trained again")
    parser.add_argument("--checkpoints", help="folder to go on from if the run is interrupted")
    parser.add_argument("--ablations", nargs="+", choices=ABLATIONS, default=list(ABLATIONS), help="default: all")
    parser.add_argument("--rows", nargs="+", default=["frozen", "cgd", "single"],
                        choices=["frozen", "cgd", "single", "ablation", "tuned", "overhead"])  # fmt: skip
    arguments = parser.parse_args()
    bench = Bench(data_folder(arguments.data), arguments)
    if "overhead" in arguments.rows:
        bench.overhead()
    print(f"{'':34}{'R@1':>9}{'MAP@R':>15}")
    if "frozen" in arguments.rows:
        bench.frozen()
    if "cgd" in arguments.rows:
        for branches in arguments.branches:
            bench.trained(f"CGD {branches}", lambda seed, branches=branches: bench.cgd(branches, seed))
    if "single" in arguments.rows:
        bench.single(arguments.branches[0])
    if "ablation" in arguments.rows:
        for name in arguments.ablations:
            bench.trained(
                f"{arguments.branches[0]}, {name}",
                lambda seed, name=name: bench.cgd(arguments.branches[0], seed, **ABLATIONS[name]),
            )
    if "tuned" in arguments.rows:
        bench.tuned()


if __name__ == "__main__":
    main()
