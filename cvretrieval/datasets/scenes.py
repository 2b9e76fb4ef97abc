"""A rendered data set: painted objects, photographed, with the homography of every photograph."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvretrieval._parallel import map_blocks
from cvretrieval._validation import check_number

#: Quality of the files that `Scenes.write` writes; the pictures were compressed harder already.
_JPEG_QUALITY = 92


@dataclass(frozen=True, eq=False)
class Scenes:
    """Objects, photographs of them, and what is where.

    Attributes
    ----------
    references : list of n_scenes ndarrays of shape (height, width, 3)
        uint8 RGB: the front of each object, as it was painted.
    images : list of n_images ndarrays of shape (height, width, 3)
        uint8 RGB photographs; the views of one scene follow each other.
    labels : ndarray of shape (n_images,)
        int64: the scene each photograph shows, the index into `references`.
    views : ndarray of shape (n_images,)
        int64: number of the view within its scene, from 0.
    homographies : ndarray of shape (n_images, 3, 3)
        float64: maps homogeneous pixels x, y of the reference to those of the photograph,
        ``x_image ~ H @ x_reference``; the centre of the top-left pixel is (0, 0), the last element is 1.
    kinds : list of n_scenes str
        ``"poster"``, ``"package"``, …
    """

    references: list[NDArray[np.uint8]]
    images: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    views: NDArray[np.int64]
    homographies: NDArray[np.float64]
    kinds: list[str]

    @property
    def names(self) -> list[str]:
        """Name of each photograph, e.g. ``"scene_003_view_1"``."""
        return [f"scene_{label:03d}_view_{view}" for label, view in zip(self.labels, self.views, strict=True)]

    def write(self, folder: str | os.PathLike[str], *, n_queries: int = 1) -> Path:
        """Write the pictures and their ground truth in the form that `load_dataset` reads.

        Parameters
        ----------
        folder : path
            Made if it does not exist. Files of the same names are replaced.
        n_queries : int, default=1
            Views of each scene that become queries: the last ones. The others and the reference are the database.

        Returns
        -------
        Path
            The folder, with ``database/scene_000_reference.jpg``, ``database/scene_000_view_0.jpg``, …,
            ``queries/scene_000_view_4.jpg``, …, ``ground_truth.csv`` and ``homographies.json`` (file → its reference
            and the homography from there).
        """
        from PIL import Image

        n_views = int(self.views.max()) + 1
        check_number("Scenes.write", "n_queries", n_queries, low=1, high=n_views, integer=True)
        root = Path(folder)
        members: dict[int, list[str]] = {}
        queries: list[tuple[str, int]] = []
        truth: dict[str, Any] = {}
        for name in ("database", "queries"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for label, reference in enumerate(self.references):
            file = f"database/scene_{label:03d}_reference.jpg"
            Image.fromarray(reference).save(root / file, quality=_JPEG_QUALITY)
            members[label] = [file]
        for index, name in enumerate(self.names):
            label = int(self.labels[index])
            is_query = self.views[index] >= n_views - n_queries
            file = f"{'queries' if is_query else 'database'}/{name}.jpg"
            Image.fromarray(self.images[index]).save(root / file, quality=_JPEG_QUALITY)
            truth[file] = {"reference": members[label][0], "homography": self.homographies[index].tolist()}
            if is_query:
                queries.append((file, label))
            else:
                members[label].append(file)
        with open(root / "ground_truth.csv", "w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["query", "relevant"])
            writer.writerows([file, ";".join(members[label])] for file, label in queries)
        (root / "homographies.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
        return root


def make_scenes(
    n_scenes: int = 12,
    n_views: int = 5,
    *,
    image_size: tuple[int, int] = (640, 480),
    difficulty: float = 0.5,
    random_state: Any = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> Scenes:
    """Paint objects and photograph each of them several times.

    Posters, packages, framed photographs, signs, books and maps take turns. Each view has its own camera, wall or
    table, clutter, shadow, things in the way, light, blur, noise and compression.

    Parameters
    ----------
    n_scenes : int, default=12
        Number of objects.
    n_views : int, default=5
        Photographs of each.
    image_size : tuple of 2 int, default=(640, 480)
        Width and height of the photographs in pixels, at least 64. References keep their own sizes.
    difficulty : float, default=0.5
        From 0 (nearly frontal, sharp, nothing in the way) to 1 (slanted, turned, small, dark, blurred, cluttered).
    random_state : int, RandomState instance or None, default=None
        A fixed seed gives the same pixels on the same machine with the same library versions, with any number of
        threads. More scenes or more views keep those of a smaller set.
    n_jobs : int or None, default=None
        Threads; -1 for all processors.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    Scenes

    Notes
    -----
    Nothing is downloaded: the photographs in frames are crops of the two that scikit-learn ships.

    Examples
    --------
    >>> from cvretrieval.datasets import make_scenes
    >>> scenes = make_scenes(n_scenes=2, n_views=1, image_size=(160, 120), random_state=0)
    >>> scenes.kinds, scenes.images[0].shape, scenes.homographies.shape
    (['poster', 'package'], (120, 160, 3), (2, 3, 3))
    """
    from sklearn.utils import check_random_state

    from cvretrieval.datasets._drawing import Supplies
    from cvretrieval.datasets._objects import paint_object
    from cvretrieval.datasets._solids import PaintedObject, reference_image
    from cvretrieval.datasets._views import photograph

    check_number("make_scenes", "n_scenes", n_scenes, low=1, integer=True)
    check_number("make_scenes", "n_views", n_views, low=1, integer=True)
    check_number("make_scenes", "difficulty", difficulty, low=0.0, high=1.0)
    if len(image_size) != 2:
        raise ValueError(f"The 'image_size' parameter of make_scenes must be width and height. Got {image_size!r}.")
    for side in image_size:
        check_number("make_scenes", "image_size", side, low=64, integer=True)
    size = (int(image_size[0]), int(image_size[1]))
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))

    def paint() -> Iterator[tuple[int, PaintedObject]]:
        # Painted one after the other, because supplies are shared, and just before use, because art is large.
        rng = np.random.default_rng([seed, 0])
        supplies = Supplies(rng)
        for scene in range(n_scenes):
            yield scene, paint_object(scene, rng, supplies)

    def photograph_all(block: tuple[int, PaintedObject]) -> tuple[str, NDArray[np.uint8], list[Any]]:
        scene, painted = block
        rngs = [np.random.default_rng([seed, 1, scene, view]) for view in range(n_views)]
        return (
            painted.kind,
            reference_image(painted),
            [photograph(painted, size, float(difficulty), rng) for rng in rngs],
        )

    done = map_blocks(
        photograph_all,
        paint(),
        n_jobs=n_jobs,
        weights=[n_views] * n_scenes,
        description="scenes",
        unit="view",
        verbose=verbose,
    )
    kinds, references, photographs = zip(*done, strict=True)
    views = [view for group in photographs for view in group]
    return Scenes(
        references=list(references),
        images=[image for image, _ in views],
        labels=np.repeat(np.arange(n_scenes), n_views),
        views=np.tile(np.arange(n_views), n_scenes),
        homographies=np.array([homography for _, homography in views]),
        kinds=list(kinds),
    )
