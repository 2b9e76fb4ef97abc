"""The whole retrieval task beside pycolmap's vocabulary tree with spatial verification, on the same features.

Stanford Mobile Visual Search DVD covers: 100 references, 100 phone photos per camera, one relevant reference each;
alone, and with ImageNet photos of other things as distractors. Both sides get the same RootSIFT features (longest side
640) and index references and distractors. mAP is 1 / rank of the reference, by finite sum.

Ours is ASMK* or VLAD to find candidates and `SpatialVerifier` to rank the best of them. COLMAP's ranks are the order of
the pairs of its generator, its best 50 verified; it indexes all images of its database, so each query has a database of
its own beside the finished index, and is struck from its list. Seconds per query are of encoding, search and
verification, after features, in one thread on both sides; reading the index is not counted. Its vocabulary
(``--colmap-words``) is learned on at most a million descriptors of references and distractors, ours on those; learning
is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder

from cvretrieval import (
    ASMK,
    SIFT,
    VLAD,
    DenseIndex,
    ImageReader,
    InvertedIndex,
    KMeansCodebook,
    LocalFeatures,
    SpatialVerifier,
)
from cvretrieval._parallel import single_threaded
from cvretrieval.datasets import RetrievalDataset, query_reference
from cvretrieval.images import find_images

#: Images that COLMAP verifies for a query.
N_VERIFIED = 50


def describe(data: RetrievalDataset, others: list[Path], n_features: int) -> tuple[LocalFeatures, int]:
    """Return the features of references, distractors and queries, as stored, and the number of the first two."""
    extractor = SIFT(root=True, max_features=n_features, reader=ImageReader(max_size=640), n_jobs=-1)
    database = [*data.database_paths, *others]
    found = extractor.transform([*database, *data.query_paths])
    scale = extractor.descriptor_codec["scale"]
    bytes_ = np.clip(np.rint(found.descriptors * np.float32(scale)), 0, 255).astype(np.uint8)
    return found.with_descriptors(bytes_), len(database)


def decoded(X: LocalFeatures) -> LocalFeatures:
    return X.with_descriptors(X.descriptors.astype(np.float32) / 512)


def vlad(plain: LocalFeatures, n_database: int) -> tuple[Any, Callable[[Any], Any], int]:
    """Return an index of VLAD vectors, how a query is encoded, and how many candidates are verified."""
    encoder = VLAD(64, residual_norm=True, local_coordinates=True, power=0.2, random_state=0, n_jobs=-1)
    encoder.fit(plain[:n_database])
    index = DenseIndex().add(np.arange(n_database), encoder.transform(plain[:n_database]))
    return index, encoder.set_params(n_jobs=1).transform, 20


def asmk(plain: LocalFeatures, n_database: int) -> tuple[Any, Callable[[Any], Any], int]:
    """Return the same of ASMK*, whose first candidates are better, so that fewer are verified."""
    words = KMeansCodebook(4096, assignment="approximate", recall=0.9, random_state=0, n_jobs=-1)
    encoder = ASMK(codebook=words.fit(plain[:n_database]), binary=True, n_query_words=5, n_jobs=-1)
    encoder.fit(plain[:n_database])
    index = InvertedIndex("asmk", idf=None).add(np.arange(n_database), encoder.transform(plain[:n_database]))
    return index, encoder.set_params(n_jobs=1).transform_queries, 10


def ours(X: LocalFeatures, n_database: int, method: Callable[..., Any]) -> tuple[list[list[int]], list[float]]:
    """Return the ranked images of each query and its seconds."""
    plain = decoded(X)
    index, encode, n_verified = method(plain, n_database)
    checker = SpatialVerifier()
    rankings, seconds = [], []
    with single_threaded():
        for query in range(n_database, len(X)):
            start = time.perf_counter()
            keys, _ = index.search(encode(plain[query : query + 1]), 100)
            ranked = keys[0][keys[0] >= 0].tolist()
            best = ranked[:n_verified]
            results = checker.verify_candidates(X[query], X[best])
            inliers = [result.n_inliers if result else 0 for result in results]
            order = sorted(range(len(best)), key=lambda i: (-inliers[i], i))
            rankings.append([best[i] for i in order] + ranked[n_verified:])
            seconds.append(time.perf_counter() - start)
    return rankings, seconds


def colmap(X: LocalFeatures, n_database: int, n_words: int, folder: Path) -> tuple[list[list[int]], list[float]] | None:
    """Return the same of COLMAP's pair generator; None without pycolmap."""
    try:
        import pycolmap
    except ImportError:
        return None
    pycolmap.logging.minloglevel = 2
    kind = pycolmap.FeatureExtractorType.SIFT
    plain = decoded(X)
    sample = plain[:n_database].descriptors
    rows = np.random.default_rng(0).permutation(len(sample))[:1_000_000]
    index = pycolmap.VisualIndex.create(128, 64)
    options = pycolmap.VisualIndex.BuildOptions(num_visual_words=n_words, num_iterations=10, num_rounds=1)
    index.build(options, pycolmap.FeatureDescriptorsFloat(kind, 512 * sample[rows]))
    for i, image in enumerate(plain[:n_database]):
        keypoints = pycolmap.FeatureKeypoints([_keypoint(pycolmap, *row) for row in image.keypoints.tolist()])
        descriptors = pycolmap.FeatureDescriptorsFloat(kind, 512 * image.descriptors)
        index.add(pycolmap.VisualIndex.IndexOptions(), i + 1, keypoints, descriptors)
    index.prepare()
    tree = folder / "tree.bin"
    index.write(tree)
    pairing = pycolmap.VocabTreePairingOptions(
        vocab_tree_path=tree, num_images=N_VERIFIED + 1, num_images_after_verification=N_VERIFIED + 1, num_threads=1
    )
    rankings, seconds = [], []
    for query in range(n_database, len(X)):
        database = pycolmap.Database.open(folder / f"{query}.db")
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=1000, height=1000, params=[1000, 500, 500])
        image = pycolmap.Image(name="query", camera_id=database.write_camera(camera), image_id=query + 1)
        database.write_image(image, use_image_id=True)
        database.write_keypoints(query + 1, np.ascontiguousarray(X[query].keypoints))
        descriptors = pycolmap.FeatureDescriptors(kind, np.ascontiguousarray(X[query].descriptors))
        database.write_descriptors(query + 1, descriptors)
        generator = pycolmap.VocabTreePairGenerator(pairing, database, [query + 1])
        start = time.perf_counter()
        pairs = generator.next()
        seconds.append(time.perf_counter() - start)
        rankings.append([b - 1 for a, b in pairs if b - 1 != query])
        database.close()
    return rankings, seconds


def _keypoint(pycolmap: Any, x: float, y: float, scale: float, angle: float) -> Any:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return pycolmap.FeatureKeypoint({"x": x, "y": y, "a11": cosine, "a12": -sine, "a21": sine, "a22": cosine})


def average_precision(rankings: list[list[int]], data: RetrievalDataset, n_database: int) -> tuple[float, float]:
    """Return the mean of 1 / rank and the share of first places of the reference."""
    names = dict(enumerate(data.database_ids))
    values = []
    for query, ranking in zip(data.queries, rankings, strict=True):
        kept = [names.get(key, "") for key in ranking if key < n_database]
        place = next((rank for rank, name in enumerate(kept, 1) if name in query.relevant), None)
        values.append(0.0 if place is None else 1 / place)
    return float(np.mean(values)), float(np.mean([value == 1 for value in values]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--features", type=int, default=1200)
    parser.add_argument("--colmap-words", type=int, default=16_384)
    parser.add_argument(
        "--ours-only", action="store_true", help="leave out COLMAP, which may take long to learn its words"
    )
    parser.add_argument("--distractors", type=int, nargs="+", default=[0, 1000])
    parser.add_argument("--cameras", nargs="+", default=["E63", "Canon"])
    arguments = parser.parse_args()
    root = data_folder(arguments.data)
    if root is None:
        raise SystemExit("Photos are needed: --data or CVRETRIEVAL_DATA.")
    distractors = sorted(find_images(root / "imagenet1k_sample"))
    for n_others in arguments.distractors:
        for camera in arguments.cameras:
            data = query_reference(root / "smvs_dvd" / camera, root / "smvs_dvd" / "Reference")
            X, n_database = describe(data, distractors[:n_others], arguments.features)
            print(f"{camera}, {n_others} distractors, {len(X.descriptors) / len(X):.0f} features an image")
            rows: dict[str, Any] = {"ASMK*": ours(X, n_database, asmk), "VLAD": ours(X, n_database, vlad)}
            with tempfile.TemporaryDirectory() as folder:
                if not arguments.ours_only:
                    rows["pycolmap"] = colmap(X, n_database, arguments.colmap_words, Path(folder))
            for name, row in rows.items():
                if row is None:
                    print(f"  {name}: not installed")
                    continue
                value, first = average_precision(row[0], data, n_database)
                middle = 1000 * statistics.median(row[1])
                print(f"  {name:<10} mAP {value:.3f}, R@1 {first:.2f}, {middle:.0f} ms a query")
            if rows.get("pycolmap") is not None:
                for name in ("ASMK*", "VLAD"):
                    ratio = statistics.median(rows["pycolmap"][1]) / statistics.median(rows[name][1])
                    print(f"  {name}: {ratio:.2f} times as fast  (target ≥ 3: {'met' if ratio >= 3 else 'MISSED'})")


if __name__ == "__main__":
    main()
