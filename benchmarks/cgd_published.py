"""CGD on the sets of metric learning that its paper reports: train, save, and print Recall@K beside the published one.

The sets are read as their authors publish them; ``cub200-cropped`` and ``cars196-cropped`` have every
image cut to its box. Commands and published numbers stand in ``benchmarks/cgd.md``. A run that was interrupted goes on
where it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval.datasets import RetrievalDataset, load_cars196, load_cub200, load_inshop, load_sop
from cvretrieval.deep import CGD, Backbone
from cvretrieval.metrics import evaluate_rankings

#: Set → its loader and what it is told.
SETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cub200": (load_cub200, {}),
    "cub200-cropped": (load_cub200, {"cropped": True}),
    "cars196": (load_cars196, {}),
    "cars196-cropped": (load_cars196, {"cropped": True}),
    "sop": (load_sop, {}),
    "inshop": (load_inshop, {}),
}

# Rows of products at once, and how deep a ranking is kept: R@1000 and MAP@R of the largest class.
_ROWS, _DEPTH = 512, 1001


def labels_of(dataset: RetrievalDataset) -> NDArray[np.int64]:
    """Return the class of every image of the database: images are of one class that are relevant to each other."""
    classes: dict[str, int] = {}
    n_classes = 0
    for query in dataset.queries:
        if query.own_id is None or query.own_id not in classes:
            classes.update(dict.fromkeys(query.relevant | {query.own_id or query.id}, n_classes))
            n_classes += 1
    return np.array([classes[name] for name in dataset.database_ids])


def rankings_of(
    dataset: RetrievalDataset, vectors: NDArray[np.float32], asked: NDArray[np.float32]
) -> dict[str, list[str]]:
    """Return the ranked ids of every query, from the vectors of the database and those of the queries."""
    ids = np.array(dataset.database_ids)
    found: dict[str, list[str]] = {}
    for start in range(0, len(asked), _ROWS):
        products = asked[start : start + _ROWS] @ vectors.T
        depth = min(_DEPTH, products.shape[1])
        best = np.argpartition(-products, depth - 1, axis=1)[:, :depth]
        order = np.take_along_axis(best, np.argsort(-np.take_along_axis(products, best, 1), axis=1, kind="stable"), 1)
        for query, ranked in zip(dataset.queries[start : start + _ROWS], order, strict=True):
            found[query.id] = ids[ranked].tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("path", type=Path, help="folder of the set, as it is unpacked")
    parser.add_argument("--branches", default="MG")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default="IMAGENET1K_V1", help="default, a name of torchvision's, or a file")
    parser.add_argument("--dims", type=int, default=1536)
    parser.add_argument("--epochs", type=int, default=33)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs=2, default=(32, 4), help="classes, images of each")
    parser.add_argument("--dtype", default="float32", help="bfloat16: mixed precision")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--partial", action="store_true", help="take what there is of the set, to try this out")
    parser.add_argument("--out", type=Path, default=Path("cgd-runs"), help="folder of checkpoints and model")
    arguments = parser.parse_args()
    load, options = SETS[arguments.set]
    train, test = (
        load(arguments.path, split=split, complete=not arguments.partial, **options) for split in ("train", "test")
    )
    folder = arguments.out / f"{arguments.set}-{arguments.branches}-{arguments.seed}"
    random = arguments.weights.lower() == "none"
    cgd = CGD(
        Backbone(arguments.backbone, weights=None if random else arguments.weights),
        branches=arguments.branches,
        n_components=arguments.dims,
        n_epochs=arguments.epochs,
        resize_to=arguments.size * 9 // 8,
        input_size=arguments.size,
        classes_per_batch=arguments.batch[0],
        images_per_class=arguments.batch[1],
        dtype=arguments.dtype,
        batch_size=64,
        n_workers=-1,
        random_state=arguments.seed,
        verbose=True,
    )
    resumes = (folder / "last.pt").is_file()
    cgd.fit(train.database_images, labels_of(train), **{"resume_from" if resumes else "checkpoint_to": folder})
    if int(os.environ.get("RANK") or 0):  # of torchrun
        return
    path = cgd.save(folder / "cgd.cvm")
    vectors = cgd.transform(test.database_images)
    row_of = {name: i for i, name in enumerate(test.database_ids)}
    if all(query.own_id is not None for query in test.queries):
        asked = vectors[[row_of[str(query.own_id)] for query in test.queries]]
    else:
        asked = cgd.transform(test.query_paths)
    result = evaluate_rankings(test.ground_truth, rankings_of(test, vectors, asked), [*test.protocols, "map@r"])
    print(f"{arguments.set}, CGD {arguments.branches} of {arguments.backbone}, {arguments.dims} dimensions ({path}), "
          f"{cgd.history_['images_per_second'].mean():.0f} images/s in training")  # fmt: skip
    print(result)


if __name__ == "__main__":
    main()
