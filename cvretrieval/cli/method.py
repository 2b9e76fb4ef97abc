"""The method behind the commands: options → stages, with the same defaults everywhere."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever


class Exif(str, Enum):
    """Whether the camera's orientation is applied."""

    apply = "apply"
    ignore = "ignore"


FeaturesOption = Annotated[
    int | None, typer.Option("--features", min=1, help="Most SIFT features of an image.", show_default="1200")
]
MaxSizeOption = Annotated[
    int | None, typer.Option("--max-size", min=1, help="Longest side in pixels; larger images are reduced.",
                             show_default="1024")
]  # fmt: skip
WordsOption = Annotated[
    int | None, typer.Option("--words", min=1, help="Visual words of the VLAD encoder.", show_default="64")
]
PcaOption = Annotated[
    int | None, typer.Option("--pca", min=1, help="Whiten the vectors and keep so many dimensions.",
                             show_default="off")
]  # fmt: skip
ExifOption = Annotated[
    Exif | None, typer.Option("--exif", help="Apply or ignore the orientation in EXIF.", show_default="apply")
]
UprightOption = Annotated[
    bool | None, typer.Option("--upright/--rotated", help="Photos are never rotated.", show_default="rotated")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]

DEFAULTS: dict[str, Any] = {
    "features": 1200, "max_size": 1024, "words": 64, "pca": None, "exif": "apply", "upright": False, "seed": 0,
}  # fmt: skip


def make_retriever(method: dict[str, Any], **session: Any) -> ImageRetriever:
    """Build the retriever for the given options; None means the default."""
    from sklearn.pipeline import make_pipeline

    from cvretrieval import SIFT, VLAD, ImageReader, ImageRetriever, PCAWhitening, SpatialVerifier

    chosen = {name: DEFAULTS[name] if value is None else value for name, value in method.items()}
    reader = ImageReader(max_size=chosen["max_size"], exif=chosen["exif"])
    extractor = SIFT(root=True, max_features=chosen["features"], upright=chosen["upright"], reader=reader)
    # Intra-normalised: a burst of one texture must not outweigh everything else in a cluttered photo.
    encoder: Any = VLAD(n_words=chosen["words"], power=None, intra_norm=True, random_state=chosen["seed"])
    if chosen["pca"] is not None:
        encoder = make_pipeline(encoder, PCAWhitening(n_components=chosen["pca"]))
    return ImageRetriever(
        extractor=extractor,
        encoder=encoder,
        verifier=SpatialVerifier(),
        random_state=chosen["seed"],
        **session,
    )


def differences(method: dict[str, Any], retriever: ImageRetriever) -> str:
    """Name the options that were given and differ from what the index was built with."""
    from cvretrieval import ImageReader

    extractor, encoder = retriever.extractor, retriever.encoder
    steps = [step for _, step in getattr(encoder, "steps", [("", encoder)])]
    reader = getattr(extractor, "reader", None) or ImageReader()
    stored = {
        "features": getattr(extractor, "max_features", None),
        "max_size": reader.max_size,
        "words": getattr(steps[0], "n_words", None),
        "pca": next((step.n_components for step in steps[1:] if hasattr(step, "n_components")), None),
        "exif": reader.exif,
        "upright": getattr(extractor, "upright", None),
        "seed": getattr(steps[0], "random_state", None),
    }
    changed = [name for name, value in method.items() if value is not None and value != stored[name]]
    return ", ".join(f"--{name.replace('_', '-')} {stored[name]}" for name in changed)
