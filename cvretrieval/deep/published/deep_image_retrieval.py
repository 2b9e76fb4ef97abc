"""Models of "Deep Image Retrieval" (naver/deep-image-retrieval)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from cvretrieval.deep.backbones import Backbone
from cvretrieval.deep.backbones.checkpoints import read_checkpoint
from cvretrieval.deep.backbones.plain_pickles import PlainPCA
from cvretrieval.deep.descriptors import MAC, GeM
from cvretrieval.deep.published.projections import field, fitted_pca, linear_layer, numbers

_DEFAULT_WHITENING = "Landmarks_clean"


def load_dir(
    path: str | os.PathLike[str],
    *,
    whitening: str | None = "auto",
    power: float = 0.25,
    n_components: int | None = None,
    **parameters: Any,
) -> Any:
    """Return a model of "Deep Image Retrieval" as a fitted Pipeline: images → vectors.

    Parameters
    ----------
    path : path
        One of its published models, such as ``Resnet-101-AP-GeM.pt``; they are also called R-MAC in its programs. The
        estimator reads the network from there whenever it is used.
    whitening : str or None, default="auto"
        Which PCA of the file follows; "auto" is "Landmarks_clean" if it is there, else the first, if any. None: none.
    power : float, default=0.25
        Exponent of the PCA's variances, ``--whitenp`` of its programs.
    n_components : int, optional
        Dimensions kept by the PCA; None keeps all.
    **parameters
        Of the estimator: ``image_size``, ``device``, ``dtype``, ``batch_size``, ``n_workers``, …; a single scale.

    Returns
    -------
    FrozenEstimator
        Of a Pipeline, which ``fit`` leaves as it is: `GeM` or `MAC`, the fully connected layer as a `LearnedWhitening`,
        the PCA as a `PCAWhitening`; what the file does not hold is left out.

    Raises
    ------
    StoreError
        If the file is none of that program, is damaged, or holds what could run code.
    ValueError
        For models with another network than a ResNet, a bias to the centre or another pooling, and for a whitening that
        the file does not hold.

    Notes
    -----
    Nothing in the file is run: of the pickled PCA the attributes are read, and its class is not. Layout, from
    ``dirtorch/test_dir.py``, ``utils/common.py`` and ``nets/rmac_resnet.py``: ``model_options`` names ``arch`` and
    ``pooling``; ``state_dict`` has the weights under torchvision's names, ``adpool.p`` and ``fc``; ``preprocess`` the
    normalisation of images; ``pca`` maps names to PCAs. A PCA may also be a dictionary of ``mean_``, ``components_``
    and ``explained_variance_``. The pooled vector is not normalised before the fully connected layer, unless
    ``norm_features`` says so; L2 after that and after the PCA.

    References
    ----------
    .. [1] A. Gordo, J. Almazán, J. Revaud and D. Larlus, "End-to-end learning of deep visual representations for image
       retrieval", IJCV 2017.
    .. [2] J. Revaud, J. Almazán, R. S. Rezende and C. R. de Souza, "Learning with average precision: training image
       retrieval with a listwise loss", ICCV 2019.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    options = field(path, checkpoint, "model_options", Mapping)
    weights = {name.removeprefix("module."): value
               for name, value in field(path, checkpoint, "state_dict", Mapping).items()}  # fmt: skip
    arch = field(path, options, "arch", str)
    if not arch.startswith("resnet") or not arch.endswith("_rmac") or "fpn" in arch:
        raise ValueError(f"{path} is a model {arch!r}, which has no counterpart here; resnet…_rmac have.")
    if options.get("center_bias"):
        raise ValueError(f"{path} weights pixels by their distance from the centre, which has no counterpart here.")
    if len(tuple(parameters.get("scales", (1.0,)))) > 1:
        raise ValueError("load_dir describes images at one scale, for the layer after the pooling is of each scale.")
    preprocess = checkpoint.get("preprocess") or {}
    backbone = Backbone(
        arch.removesuffix("_rmac"),
        weights=path,
        mean=tuple(map(float, preprocess["mean"])) if "mean" in preprocess else None,
        std=tuple(map(float, preprocess["std"])) if "std" in preprocess else None,
    )
    has_layer = not options.get("without_fc", False)
    parameters["norm"] = "l2" if options.get("norm_features", False) or not has_layer else None
    pooling = str(options.get("pooling", "gem"))
    if pooling.startswith("gem"):
        p = numbers(path, "adpool.p", weights.get("adpool.p"), 1)
        steps: list[Any] = [GeM(backbone, p=float(p[0]), **parameters)]
    elif pooling == "avg":
        steps = [GeM(backbone, p=1.0, **parameters)]
    elif pooling == "max":
        steps = [MAC(backbone, **parameters)]
    else:
        raise ValueError(f"{path} has the pooling {pooling!r}. Known: gem, avg, max.")
    if has_layer:
        steps.append(linear_layer(*(numbers(path, f"fc.{name}", weights.get(f"fc.{name}"), n_dims)
                                    for name, n_dims in (("weight", 2), ("bias", 1)))))  # fmt: skip
    pca = _pca_values(path, checkpoint.get("pca"), whitening)
    if pca is not None:
        steps.append(fitted_pca(pca, power, n_components))
    steps[0].remember_network()
    return FrozenEstimator(make_pipeline(*steps))


def _pca_values(path: Path, found: Any, name: str | None) -> dict[str, Any] | None:
    if name is None or (name == "auto" and not found):
        return None
    if isinstance(found, Mapping) and "components_" not in found:
        known: Sequence[str] = [str(key) for key in found]
        if name == "auto":
            name = _DEFAULT_WHITENING if _DEFAULT_WHITENING in known else known[0]
        if name not in known:
            raise ValueError(f"{path} has no whitening {name!r}. It has: {', '.join(known) or 'none'}.")
        found = found[name]
    values = found.values() if isinstance(found, PlainPCA) else dict(found or {})
    for attribute, n_dims in (("mean_", 1), ("components_", 2), ("explained_variance_", 1)):
        numbers(path, f"{attribute} of the PCA", values.get(attribute), n_dims)
    return values
