"""Does rotation cost anything? Photos turned by right angles and by any angle, and walls with several framed pictures.

Stanford Mobile Visual Search DVD covers, 100 references, longest side 640; at most 1,200 RootSIFT features. Queries are
the phone photos of a camera, reduced to 640, upright and turned (around the middle, on grey, nothing cut off, not
reduced again); and made-up walls: four references in frames on plaster, each seen at a slant of its own, upright and
turned. A wall has four right answers: R@1 asks for any, and the share of the four among the first four is printed, too.

With VLAD alone, and with its best 50 verified. The turned photo is a new image of other pixels, so ranks of VLAD alone
may change either way; what must not happen is a loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import data_folder

from cvretrieval import SIFT, VLAD, ImageReader, ImageRetriever, SpatialVerifier
from cvretrieval.datasets import query_reference

ANGLES = (0, 90, 180, 270, 17, 45, 142)
MAX_SIZE = 640


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn an image on grey, large enough to hold it all."""
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(image, int(degrees) // 90))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = int(height * sine + width * cosine), int(height * cosine + width * sine)
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA, borderValue=(128, 128, 128))


def wall(pictures: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Hang four pictures in frames on a wall of plaster, in two rows."""
    size, cell = 1280, 640
    plaster = cv2.resize(rng.normal(0, 12, (160, 160)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(190 + plaster[..., None] + rng.normal(0, 3, (size, size, 1)), 0, 255)
    image = np.broadcast_to(image, (size, size, 3)).astype(np.uint8).copy()
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        framed = cv2.copyMakeBorder(picture, *[max(height, width) // 20] * 4, cv2.BORDER_CONSTANT, value=(60, 40, 30))
        height, width = framed.shape[:2]
        scale = 0.8 * cell / max(height, width)
        middle = np.array([cell * (i % 2 + 0.5), cell * (i // 2 + 0.5)]) + rng.uniform(-20, 20, 2)
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
        seen = (corners - [width / 2, height / 2]) * scale * rng.uniform(0.9, 1.05, (4, 2)) + middle
        matrix = cv2.getPerspectiveTransform(corners, seen.astype(np.float32))
        hung = cv2.warpPerspective(framed, matrix, (size, size), flags=cv2.INTER_AREA)
        covered = cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, (size, size)) > 127
        image[covered] = hung[covered]
    return image


def figures(retriever: ImageRetriever, images: list[np.ndarray], relevant: list[set[str]]) -> tuple[float, float]:
    """Return R@1 and the share of the relevant images among as many first places."""
    found = retriever.search(images, k=10).ids
    first = np.mean([ids[0] in own for ids, own in zip(found, relevant, strict=True)])
    share = np.mean([len(own & set(ids[: len(own)])) / len(own) for ids, own in zip(found, relevant, strict=True)])
    return float(first), float(share)


def read(path: Path) -> np.ndarray:
    image: np.ndarray = ImageReader(max_size=MAX_SIZE).read(path, color="rgb").pixels
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--camera", default="E63")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--walls", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    root = data_folder(arguments.data) / "smvs_dvd"
    data = query_reference(root / arguments.camera, root / "Reference")
    queries = data.queries[: arguments.queries]
    rng = np.random.default_rng(arguments.seed)
    names = rng.permutation(data.database_ids)[: 4 * arguments.walls].reshape(-1, 4)
    walls = [wall([read(data.database[name]) for name in row], rng) for row in names]
    sets: dict[str, tuple[list[np.ndarray], list[set[str]]]] = {
        f"{arguments.camera} photos": ([read(query.path) for query in queries], [set(q.relevant) for q in queries]),
        "walls of four": (walls, [set(row.tolist()) for row in names]),
    }
    # Turned by 17 degrees an image needs more room: it must not be reduced for that.
    reader = ImageReader(max_size=None)
    options: dict[str, Any] = {"n_jobs": -1, "n_verify": 50}
    with ImageRetriever(
        extractor=SIFT(root=True, max_features=1200, reader=reader),
        encoder=VLAD(64, residual_norm=True, local_coordinates=True, power=0.2, random_state=arguments.seed),
        verifier=SpatialVerifier(),
        **options,
    ).fit([read(path) for path in data.database_paths], ids=data.database_ids) as retriever:
        for verifier in (None, SpatialVerifier()):
            retriever.set_params(verifier=verifier)
            for name, (images, relevant) in sets.items():
                print(f"{name}, {'VLAD alone' if verifier is None else 'verified'}")
                upright = 0.0
                for angle in ANGLES:
                    first, share = figures(retriever, [turned(image, angle) for image in images], relevant)
                    upright = first if angle == 0 else upright
                    verdict = "" if angle == 0 else "no loss" if first >= upright else "LOSS"
                    print(f"  {angle:3d}°  R@1 {first:.2f}  all relevant {share:.2f}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
