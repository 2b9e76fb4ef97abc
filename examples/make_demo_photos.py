"""Photograph a small set of made-up scenes: the pictures of ``make demo``.

Writes FOLDER/photos/scene_XX/view_Y.jpg and FOLDER/query.jpg, one more view of a scene that is among the photos.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from PIL import Image

from cvretrieval.datasets import make_scenes


def main(folder: str = "demo", n_scenes: int = 12, n_views: int = 5) -> None:
    start = time.perf_counter()
    root = Path(folder)
    scenes = make_scenes(n_scenes=n_scenes, n_views=n_views, random_state=0)
    asked = n_scenes - 1
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        if label == asked and view == n_views - 1:
            target = root / "query.jpg"
        else:
            target = root / "photos" / f"scene_{label:02d}" / f"view_{view}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target, quality=92)
    n_photos = len(scenes.images) - 1
    print(f"{n_photos} photos of {n_scenes} scenes in {root / 'photos'} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
