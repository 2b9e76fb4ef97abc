"""``verify``: do two photos show the same thing?"""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cvretrieval.cli.common import check_report, say


class Model(str, Enum):
    """Geometric models."""

    translation_scale = "translation_scale"
    similarity = "similarity"
    upright_affine = "upright_affine"
    affine = "affine"
    homography = "homography"
    fundamental = "fundamental"


def verify(
    image_a: Annotated[Path, typer.Argument(help="One photo.", metavar="A")],
    image_b: Annotated[Path, typer.Argument(help="The other one.", metavar="B")],
    report: Annotated[Path | None, typer.Option(help="Write an HTML report with the matched lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    model: Annotated[Model | None, typer.Option(help="Geometric model.", show_default="the verifier's")] = None,
    features: Annotated[int, typer.Option(min=1, help="Most SIFT features of an image.")] = 1200,
    max_size: Annotated[int, typer.Option(min=1, help="Longest side in pixels; larger images are reduced.")] = 1024,
) -> None:
    """Say whether two photos show the same thing: matches, inliers, and the transform from A to B."""
    from cvretrieval import SIFT, ImageReader, SpatialVerifier
    from cvretrieval.retrieval.outline import query_outline

    check_report(report)
    start = time.perf_counter()
    extractor = SIFT(root=True, max_features=features, reader=ImageReader(max_size=max_size))
    verifier = SpatialVerifier() if model is None else SpatialVerifier(model=model.value)
    a, b = extractor.transform([image_a, image_b])
    result = verifier.verify(a, b)
    seconds = time.perf_counter() - start
    outline = query_outline(result, a, b)
    matrix = result.transform if result.fundamental is None else result.fundamental
    if as_json:
        facts = {
            "a": str(image_a), "b": str(image_b), "same": bool(result), "n_inliers": int(result.n_inliers),
            "n_matches": len(result.matches), "n_features": [len(a.descriptors), len(b.descriptors)],
            "n_effective_inliers": int(result.n_effective_inliers), "model": result.model,
            "transform": None if result.transform is None else result.transform.tolist(),
            "fundamental": None if result.fundamental is None else result.fundamental.tolist(),
            "outline": None if outline is None else outline.round(1).tolist(), "reason": result.reason,
            "seconds": round(seconds, 4),
        }  # fmt: skip
        print(json.dumps(facts))
    else:
        verdict = (
            "the same thing" if result else f"no common object found{f': {result.reason}' if result.reason else ''}"
        )
        print(verdict)
        print(f"{result.n_inliers} inliers of {len(result.matches)} matches", end="")
        print(f" ({len(a.descriptors)} and {len(b.descriptors)} features), {seconds:.2f} s")
        if matrix is not None:
            words = "matrix F of B·F·A = 0" if result.fundamental is not None else "from A to B"
            print(f"{result.model} {words}, in pixels:")
            for row in matrix:
                print("  " + " ".join(f"{value:12.6g}" for value in row))
    if report is not None:
        from sklearn import config_context

        from cvretrieval.plotting import write_match_report

        # A report must still say what was done when the defaults have changed.
        with config_context(print_changed_only=False):
            method = {"extractor": " ".join(repr(extractor).split()), "verifier": " ".join(repr(verifier).split())}
        path = write_match_report(
            image_a,
            image_b,
            path=report,
            n_features=(len(a.descriptors), len(b.descriptors)),
            n_inliers=int(result.n_inliers),
            n_matches=len(result.matches),
            matches=result.inlier_coordinates(a, b),
            transform=result.transform,
            fundamental=result.fundamental,
            accepted=bool(result),
            reason=result.reason,
            method=method,
            seconds=seconds,
            reader=extractor.reader,
        )
        say(f"report: {path}")
