"""Models of "CNN Image Retrieval in PyTorch" (cirtorch)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from cvretrieval import LearnedWhitening
from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones import Backbone
from cvretrieval.deep.backbones.checkpoints import read_checkpoint
from cvretrieval.deep.descriptors import MAC, RMAC, GeM, SPoC
from cvretrieval.deep.published.projections import field, fitted_whitening, linear_layer, numbers

_DEFAULT_WHITENING = "retrieval-SfM-120k"


def load_cirtorch(
    path: str | os.PathLike[str],
    *,
    whitening: str | None = "auto",
    scales: Sequence[float] = (1.0,),
    **parameters: Any,
) -> Any:
    """Return a model of cirtorch, "CNN Image Retrieval in PyTorch", as a fitted estimator: images → vectors.

    Parameters
    ----------
    path : path
        What its training program saved, or one of its published models, such as
        ``retrievalSfM120k-resnet101-gem-b80fb85.pth``. The estimator reads the network from there whenever it is used.
    whitening : str or None, default="auto"
        Which of the learned whitenings in the file follows, e.g. "retrieval-SfM-120k"; "auto" is that one if it is
        there, else the first, if any. None: none. A whitening that is a layer of the network is always part of it.
    scales : sequence of float, default=(1.0,)
        Factors that images are resized by; the authors report (1, 2**-0.5, 0.5) as multi-scale. The whitening is the
        one that was learned for a single scale, or for several.
    **parameters
        Of the estimator: ``image_size``, ``device``, ``dtype``, ``batch_size``, ``n_workers``, ….

    Returns
    -------
    FrozenEstimator
        Of `GeM`, `MAC`, `SPoC` or `RMAC`, or of a Pipeline of one and `LearnedWhitening`: ``fit`` leaves it as it is.

    Raises
    ------
    StoreError
        If the file is none of that program, is damaged, or holds what could run code.
    ValueError
        For models with regional or local whitening, which have no counterpart here, and for a whitening that the file
        does not hold.

    Notes
    -----
    Nothing in the file is run. Its layout, from cirtorch's ``networks/imageretrievalnet.py``, ``examples/test.py`` and
    ``utils/whiten.py``: ``meta`` names the architecture, the pooling and the normalisation of images; ``state_dict``
    holds the layers of the network as ``features.N``, the exponent as ``pool.p`` and the whitening layer as ``whiten``;
    ``meta["Lw"][data set]["ss" or "ms"]`` holds mean ``m`` and projection ``P`` of a learned whitening, P (x − m), L2.

    References
    ----------
    .. [1] F. Radenović, G. Tolias and O. Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    meta = field(path, checkpoint, "meta", Mapping)
    weights = field(path, checkpoint, "state_dict", Mapping)
    for name in ("regional", "local_whitening"):
        if meta.get(name):
            raise ValueError(f"{path} is a model with {name.replace('_', ' ')}, which has no counterpart here.")
    backbone = Backbone(
        field(path, meta, "architecture", str),
        weights=path,
        mean=tuple(map(float, field(path, meta, "mean", Sequence))),
        std=tuple(map(float, field(path, meta, "std", Sequence))),
    )
    layer = None
    if "whiten.weight" in weights:
        layer = linear_layer(*(numbers(path, f"whiten.{name}", weights[f"whiten.{name}"], n_dims)
                               for name, n_dims in (("weight", 2), ("bias", 1))))  # fmt: skip
    pooling = field(path, meta, "pooling", str)
    parameters = {"scales": tuple(scales), **parameters}
    if pooling == "gem":
        p = numbers(path, "pool.p", weights.get("pool.p"), 1)
        if len(p) != 1:
            raise ValueError(f"{path} has an exponent for each of {len(p)} channels, which has no counterpart here.")
        estimator: Any = GeM(backbone, p=float(p[0]), whitening=None if layer is None else LearnedWhitening(),
                             **parameters)  # fmt: skip
        if layer is not None:
            estimator.whitening_ = layer
        steps = [estimator]
    else:
        kinds: dict[str, Any] = {
            "mac": lambda: MAC(backbone, **parameters),
            "spoc": lambda: SPoC(backbone, center_prior=False, **parameters),
            "rmac": lambda: RMAC(backbone, include_global=True, **parameters),
        }
        if pooling not in kinds:
            raise ValueError(f"{path} has the pooling {pooling!r}. Known: gem, {', '.join(kinds)}.")
        if layer is not None and len(parameters["scales"]) > 1:
            raise ValueError(f"{path} whitens {pooling} at each scale, which is possible here for gem alone.")
        steps = [kinds[pooling](), *([] if layer is None else [layer])]
    learned = _learned_whitening(path, meta.get("Lw"), whitening, len(parameters["scales"]) > 1)
    steps += [] if learned is None else [learned]
    steps[0].remember_network()
    return FrozenEstimator(steps[0] if len(steps) == 1 else make_pipeline(*steps))


def _learned_whitening(path: Path, found: Any, name: str | None, is_multi_scale: bool) -> LearnedWhitening | None:
    if name is None or (name == "auto" and not found):
        return None
    known = list(found) if isinstance(found, Mapping) else []
    if name == "auto":
        name = _DEFAULT_WHITENING if _DEFAULT_WHITENING in known else str(known[0])
    if name not in known:
        raise ValueError(f"{path} has no whitening {name!r}. It has: {', '.join(map(str, known)) or 'none'}.")
    kind = "ms" if is_multi_scale else "ss"
    part = field(path, found[name], kind, Mapping)
    try:
        mean, rows = (numbers(path, f"Lw {name} {kind} {key}", part[key], 2) for key in ("m", "P"))
    except KeyError as error:
        raise StoreError(f"{path} has a whitening {name!r} without {error}.") from error
    return fitted_whitening(mean, rows)
