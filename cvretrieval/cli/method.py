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


class Method(str, Enum):
    """How local features become one vector of an image, or are compared word by word."""

    vlad = "vlad"
    bow = "bow"
    fisher = "fisher"
    hamming = "hamming"
    asmk = "asmk"


#: Words of each method, where none are asked for: components of the mixture for Fisher vectors.
DEFAULT_WORDS = {"vlad": 64, "bow": 4000, "fisher": 64, "hamming": 4000, "asmk": 4000}

# Bags of more words are held in an inverted file; shorter ones as vectors, which rerankers can work with.
_DENSE_WORDS = 10_000

# Descriptors that a word is learned from, at least, up to the number of those there are.
_SAMPLES_PER_WORD = 32

# Words for each feature of a query in ASMK*, as in the literature. More than one cost Hamming embedding accuracy on the
# covers of SMVS: 0.985 mAP instead of 1.000 with 4,000 words.
_ASMK_QUERY_WORDS = 5

MethodOption = Annotated[
    Method | None, typer.Option("--method", help="VLAD, tf-idf bags of words, Fisher vectors, Hamming embedding or "
                                "ASMK*.", show_default="vlad")
]  # fmt: skip
FeaturesOption = Annotated[
    int | None, typer.Option("--features", min=1, help="Most SIFT features of an image.", show_default="1200")
]
MaxSizeOption = Annotated[
    int | None, typer.Option("--max-size", min=1, help="Longest side in pixels; larger images are reduced.",
                             show_default="1024")
]  # fmt: skip
WordsOption = Annotated[
    int | None, typer.Option("--words", min=1, help="Visual words, or components of a Fisher vector's mixture.",
                             show_default="64; 4000 for bow, hamming and asmk")
]  # fmt: skip
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
    "method": "vlad", "features": 1200, "max_size": 1024, "words": None, "pca": None, "exif": "apply",
    "upright": False, "seed": 0,
}  # fmt: skip


def make_retriever(method: dict[str, Any], **session: Any) -> ImageRetriever:
    """Build the retriever for the given options; None means the default."""
    from sklearn.pipeline import make_pipeline

    from cvretrieval import SIFT, ImageReader, ImageRetriever, PCAWhitening, SpatialVerifier

    chosen = DEFAULTS | {name: value for name, value in method.items() if value is not None}
    reader = ImageReader(max_size=chosen["max_size"], exif=chosen["exif"])
    extractor = SIFT(root=True, max_features=chosen["features"], upright=chosen["upright"], reader=reader)
    n_words = DEFAULT_WORDS[chosen["method"]] if chosen["words"] is None else chosen["words"]
    encoder, index = _make_encoder(chosen["method"], n_words, chosen["seed"], chosen["pca"] is not None)
    if chosen["pca"] is not None:
        if index is not None:
            raise ValueError(f"--pca whitens vectors, but --method {chosen['method']} compares visual words.")
        encoder = make_pipeline(*_steps_of(encoder), PCAWhitening(n_components=chosen["pca"]))
    return ImageRetriever(
        **{
            "extractor": extractor,
            "encoder": encoder,
            "index": index,
            "verifier": SpatialVerifier(),
            "random_state": chosen["seed"],
            **session,
        }
    )


def _make_encoder(name: str, n_words: int, seed: int, needs_vectors: bool) -> tuple[Any, Any]:
    """Return the encoder of a method, and its index; None for the index of vectors."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    from cvretrieval import (
        ASMK,
        VLAD,
        BagOfWords,
        FisherVector,
        HammingEmbedding,
        InvertedIndex,
        PerDescriptor,
        TfIdf,
    )

    words: dict[str, Any] = {"n_words": n_words, "max_samples": max(100_000, _SAMPLES_PER_WORD * n_words),
                             "random_state": seed}  # fmt: skip
    if name == "hamming":
        return HammingEmbedding(**words), InvertedIndex("hamming_embedding")
    if name == "asmk":
        return ASMK(binary=True, n_query_words=_ASMK_QUERY_WORDS, **words), InvertedIndex("asmk", idf=None)
    if name == "bow" and n_words > _DENSE_WORDS and not needs_vectors:
        return BagOfWords(norm=None, sparse=True, **words), InvertedIndex()
    if name == "bow":
        return make_pipeline(BagOfWords(norm=None, **words), TfIdf()), None
    if name == "fisher":
        decorrelated = PerDescriptor(PCA(64, random_state=seed), random_state=seed)
        return make_pipeline(decorrelated, FisherVector(n_words, random_state=seed)), None
    # Residuals of unit length, turned into the axes of their word: the best of its family on photos (benchmarks).
    return VLAD(n_words, residual_norm=True, local_coordinates=True, power=0.2, random_state=seed), None


def _steps_of(encoder: Any) -> list[Any]:
    return [step for _, step in encoder.steps] if hasattr(encoder, "steps") else [encoder]


def differences(method: dict[str, Any], retriever: ImageRetriever) -> str:
    """Name the options that were given and differ from what the index was built with."""
    from cvretrieval import ImageReader

    extractor, steps = retriever.extractor, _steps_of(retriever.encoder)
    reader = getattr(extractor, "reader", None) or ImageReader()
    # The classes of the method of an index tell it; those of another version may be unknown.
    names = {"VLAD": "vlad", "BagOfWords": "bow", "FisherVector": "fisher",
             "HammingEmbedding": "hamming", "ASMK": "asmk"}  # fmt: skip
    encoder = next((step for step in steps if type(step).__name__ in names), steps[0])
    words = [getattr(encoder, name) for name in ("n_words", "n_components") if hasattr(encoder, name)]
    whitening = [step for step in steps if type(step).__name__ == "PCAWhitening"]
    stored = {
        "method": names.get(type(encoder).__name__),
        "features": getattr(extractor, "max_features", None),
        "max_size": reader.max_size,
        "words": words[0] if words else None,
        "pca": whitening[0].n_components if whitening else None,
        "exif": reader.exif,
        "upright": getattr(extractor, "upright", None),
        "seed": getattr(encoder, "random_state", None),
    }
    changed = [name for name, value in method.items() if value is not None and value != stored[name]]
    return ", ".join(f"--{name.replace('_', '-')} {stored[name]}" for name in changed)
