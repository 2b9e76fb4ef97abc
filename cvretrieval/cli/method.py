"""The method behind the commands: options → stages, with the same defaults everywhere."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvretrieval.cli.networks import (
    NETWORK_DEFAULTS,
    NETWORK_METHODS,
    make_network_encoder,
    options_of,
    read_option,
)

if TYPE_CHECKING:
    from cvretrieval import ImageRetriever


class Exif(str, Enum):
    """Whether the camera's orientation is applied."""

    apply = "apply"
    ignore = "ignore"


class Method(str, Enum):
    """How an image becomes one vector, of its local features or by a network, or is compared word by word."""

    vlad = "vlad"
    bow = "bow"
    fisher = "fisher"
    hamming = "hamming"
    asmk = "asmk"
    gem = "gem"
    mac = "mac"
    spoc = "spoc"
    crow = "crow"
    rmac = "rmac"
    netvlad = "netvlad"


#: Words of each method, where none are asked for: components of the mixture for Fisher vectors.
DEFAULT_WORDS = {"vlad": 64, "bow": 4000, "fisher": 64, "hamming": 4000, "asmk": 4000, "netvlad": 64}

# Bags of more words are held in an inverted file; shorter ones as vectors, which rerankers can work with.
_DENSE_WORDS = 10_000

# Descriptors that a word is learned from, at least, up to the number of those there are.
_SAMPLES_PER_WORD = 32

# Words for each feature of a query in ASMK*, as in the literature. More than one cost Hamming embedding accuracy on the
# covers of SMVS: 0.985 mAP instead of 1.000 with 4,000 words.
_ASMK_QUERY_WORDS = 5

MethodOption = Annotated[
    Method | None, typer.Option("--method", help="Of SIFT: VLAD, tf-idf bags of words, Fisher vectors, Hamming "
                                "embedding or ASMK*. Of a network's feature map: GeM, MAC, SPoC, CroW, R-MAC or "
                                "NetVLAD.", show_default="vlad")
]  # fmt: skip
FeaturesOption = Annotated[
    int | None, typer.Option("--features", min=1, help="Most SIFT features of an image.", show_default="1200")
]
MaxSizeOption = Annotated[
    int | None, typer.Option("--max-size", min=1, help="Longest side in pixels; larger images are reduced.",
                             show_default="1024")
]  # fmt: skip
WordsOption = Annotated[
    int | None, typer.Option("--words", min=1, help="Visual words, components of a Fisher vector's mixture, "
                             "centres of NetVLAD.", show_default="64; 4000 for bow, hamming and asmk")
]  # fmt: skip
PcaOption = Annotated[
    int | None, typer.Option("--pca", min=1, help="Whiten the vectors, or the regions of rmac, and keep so many "
                             "dimensions.", show_default="off")
]  # fmt: skip
ExifOption = Annotated[
    Exif | None, typer.Option("--exif", help="Apply or ignore the orientation in EXIF.", show_default="apply")
]
UprightOption = Annotated[
    bool | None, typer.Option("--upright/--rotated", help="Photos are never rotated.", show_default="rotated")
]
VerifyOption = Annotated[
    bool | None, typer.Option("--verify/--no-verify", help="Keep SIFT features to verify candidates by geometry.",
                              show_default="verify")
]  # fmt: skip
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]

DEFAULTS: dict[str, Any] = {
    "method": "vlad", "features": 1200, "max_size": 1024, "words": None, "pca": None, "exif": "apply",
    "upright": False, "seed": 0, "verify": True, **NETWORK_DEFAULTS,
}  # fmt: skip


def inapplicable(method: str, verify: bool) -> dict[str, str]:
    """Return the options that have no meaning for a method, each with the reason."""
    if method not in NETWORK_METHODS:
        reason = f"is about a network, but --method {method} has none; networks are in {', '.join(NETWORK_METHODS)}"
        return dict.fromkeys(NETWORK_DEFAULTS, reason)
    found = {} if method in DEFAULT_WORDS else {"words": f"has no meaning for --method {method}, which learns no words"}
    if not verify:
        reason = f"is about SIFT, which --method {method} has for verification alone, and that is off"
        found |= dict.fromkeys(("features", "upright"), reason)
    return found


def make_retriever(method: dict[str, Any], **session: Any) -> ImageRetriever:
    """Build the retriever for the given options; None means the default."""
    from cvretrieval import SIFT, ImageReader, ImageRetriever, SpatialVerifier

    given = {name: value for name, value in method.items() if value is not None}
    chosen = DEFAULTS | given
    for option, reason in inapplicable(chosen["method"], chosen["verify"]).items():
        if option in given:
            raise ValueError(f"--{option.replace('_', '-')} {reason}.")
    reader = ImageReader(max_size=chosen["max_size"], exif=chosen["exif"])
    n_words = DEFAULT_WORDS.get(chosen["method"], 0) if chosen["words"] is None else chosen["words"]
    by_network = chosen["method"] in NETWORK_METHODS
    extractor = index = None
    if chosen["verify"] or not by_network:
        extractor = SIFT(root=True, max_features=chosen["features"], upright=chosen["upright"], reader=reader)
    if by_network:
        encoder = make_network_encoder(chosen, n_words, reader)
    else:
        encoder, index = _make_encoder(chosen["method"], n_words, chosen["seed"], chosen["pca"])
    return ImageRetriever(
        **{
            "extractor": extractor,
            "encoder": encoder,
            "index": index,
            "verifier": SpatialVerifier() if chosen["verify"] else None,
            "random_state": chosen["seed"],
            **session,
        }
    )


def _make_encoder(name: str, n_words: int, seed: int, pca: int | None) -> tuple[Any, Any]:
    """Return the encoder of a method, whitened if that is asked for, and its index; None for the index of vectors."""
    from sklearn.pipeline import make_pipeline

    from cvretrieval import PCAWhitening

    encoder, index = _make_plain_encoder(name, n_words, seed, pca is not None)
    if pca is None:
        return encoder, index
    if index is not None:
        raise ValueError(f"--pca whitens vectors, but --method {name} compares visual words.")
    return make_pipeline(*_steps_of(encoder), PCAWhitening(n_components=pca)), index


def _make_plain_encoder(name: str, n_words: int, seed: int, needs_vectors: bool) -> tuple[Any, Any]:
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
    # The classes of the method of an index tell it; those of another version may be unknown.
    names = {"VLAD": "vlad", "BagOfWords": "bow", "FisherVector": "fisher",
             "HammingEmbedding": "hamming", "ASMK": "asmk",
             **{kind: name for name, kind in NETWORK_METHODS.items()}}  # fmt: skip
    encoder = next((step for step in steps if type(step).__name__ in names), steps[0])
    reader = getattr(encoder if extractor is None else extractor, "reader", None) or ImageReader()
    words = [getattr(encoder, name) for name in ("n_words", "n_components", "n_clusters") if hasattr(encoder, name)]
    whitening = [step for step in steps if type(step).__name__ == "PCAWhitening"]
    stored = {
        "method": names.get(type(encoder).__name__),
        "features": getattr(extractor, "max_features", None),
        "max_size": reader.max_size,
        "words": words[0] if words else None,
        "pca": whitening[0].n_components if whitening else None,
        "exif": reader.exif,
        "upright": getattr(extractor, "upright", None),
        "verify": retriever.verifier is not None,
        # Of those that draw nothing none is stored.
        "seed": getattr(encoder, "random_state", method.get("seed")),
    }
    if stored["method"] in NETWORK_METHODS:
        stored |= options_of(encoder)
    given = {name: read_option(name, value) for name, value in method.items() if value is not None}
    return ", ".join(_shown(name, stored.get(name)) for name, value in given.items() if value != stored.get(name))


def _shown(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if value is None or value is False:
        return f"no --{option}"
    text = ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else value
    return f"--{option}" if value is True else f"--{option} {text}"
