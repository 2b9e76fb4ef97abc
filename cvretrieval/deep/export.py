"""Export of an estimator as one ONNX graph: network, pooling and what follows, from images to vectors."""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._durable import replace_file
from cvretrieval._optional import import_optional
from cvretrieval._validation import StoreError
from cvretrieval.deep import layers
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.gem import UnitLength
from cvretrieval.deep.descriptors.neural_codes import NeuralCodes

#: Size that the graph is traced at, where it may have any; neither side is special.
_TRACED_SIZE = (224, 288)

#: Estimators of vectors that are affine maps, up to a normalisation of their own.
_AFFINE = ("PCAWhitening", "LearnedWhitening", "PCA", "TruncatedSVD", "StandardScaler", "MaxAbsScaler")


def export_onnx(
    estimator: Any, path: str | os.PathLike[str], *, size: tuple[int, int] | None = None, opset: int | None = None
) -> Path:
    """Write a fitted estimator as one ONNX graph: images → vectors, by any program that runs ONNX.

    Parameters
    ----------
    estimator : MapDescriptor or Pipeline
        `MAC`, `SPoC`, `CroW`, `GeM`, `NetVLAD`, `RMAC`, `NeuralCodes`, … or a Pipeline of one and of whitenings
        (`PCAWhitening`, `LearnedWhitening`), scikit-learn's PCA, TruncatedSVD, StandardScaler, MaxAbsScaler or
        Normalizer; one that is frozen, too.
    path : path
        File to write, by custom ``*.onnx``; an old one is replaced in one step.
    size : (height, width), optional
        The only size of images that the graph takes; None makes one for any. R-MAC needs it: how many regions there are
        depends on the size. That of `NeuralCodes` is their `input_size`.
    opset : int, optional
        Version of ONNX's operators; None is the exporter's choice.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    NotFittedError
        If it, or a step of it, is not fitted.
    TypeError
        If it, or a step of it, cannot be exported.
    ValueError
        If R-MAC is given no size, or `NeuralCodes` another one than theirs, or the network or pooling depends on the
        size in another way.
    StoreError
        If the file cannot be written, or its graph, run by onnxruntime, gives other vectors than the estimator. It is
        not written then.

    Notes
    -----
    Input ``images``, float32 (n_images, 3, height, width): R, G, B in [0, 1], reduced to the longest side that the
    estimator has as ``image_size``; the network's normalisation is part of the graph, as are the scales. Output
    ``vectors``, float32 (n_images, n_features). Computed in float32, whatever `dtype` is. Needs onnx and onnxscript;
    with onnxruntime the graph is checked, at two sizes if it takes any.

    Examples
    --------
    >>> import tempfile
    >>> from cvretrieval.deep import Backbone, GeM, export_onnx
    >>> gem = GeM(Backbone("resnet18", weights=None, layer="layer1"))
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     export_onnx(gem, folder + "/gem.onnx").name
    'gem.onnx'
    """
    for module in ("onnx", "onnxscript"):
        import_optional(module, "export_onnx")
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"The folder {path.parent} does not exist"
        raise ValueError(f"{what}; give the graph a file name such as model.onnx.")
    graph = _Graph(*_steps(estimator)).eval()
    if isinstance(graph.estimator, NeuralCodes):
        size = _only_size(graph.estimator, size)
    if size is None and any(isinstance(part, layers.RMAC) for part in graph.modules()):
        raise ValueError(
            "How many regions R-MAC has depends on the size of images, which a graph cannot decide. Give the one it is "
            "for: size=(height, width)."
        )
    model = _trace(graph, size, opset)
    data = model.SerializeToString()
    _check(graph, data, size)
    replace_file(path, lambda file: file.write(data))
    return path


def _only_size(estimator: NeuralCodes, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size that fully connected layers take."""
    side = int(estimator.input_size)
    if size not in (None, (side, side)):
        raise ValueError(
            f"NeuralCodes as configured take images of {side} x {side} pixels, not of {size}: set input_size, or leave "
            "size out."
        )
    return side, side


class _Graph(nn.Module):
    """All that happens to images between their reading and their vectors."""

    def __init__(self, estimator: MapDescriptor, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        check_is_fitted(estimator)
        prepared = estimator._prepare()
        self.network = copy.deepcopy(prepared.network).cpu().requires_grad_(False)
        self.pooling = copy.deepcopy(estimator._pooling(prepared)).cpu().requires_grad_(False)
        self.steps = nn.ModuleList(steps)
        self.estimator = estimator

    def forward(self, images: Tensor) -> Tensor:
        """Describe images (B, 3, H, W)."""
        by_scale = []
        for scale in self.estimator.scales:
            resized = images if scale == 1 else _resize(images, float(scale))
            by_scale.append(self.estimator._describe(self.pooling, self.network(resized)))
        vectors = self.estimator._combine(by_scale)
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def _resize(images: Tensor, scale: float) -> Tensor:
    size = [torch.sym_max(1, torch.sym_int(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _steps(estimator: Any) -> tuple[MapDescriptor, list[nn.Module]]:
    if type(estimator).__name__ == "FrozenEstimator":
        return _steps(estimator.estimator)
    parts = [part for _, part in getattr(estimator, "steps", [("", estimator)]) if part not in (None, "passthrough")]
    first, after = parts[0], [module for part in parts[1:] for module in _modules_of(part)]
    if hasattr(first, "steps") or type(first).__name__ == "FrozenEstimator":
        descriptor, before = _steps(first)
        return descriptor, [*before, *after]
    if not isinstance(first, MapDescriptor):
        raise TypeError(f"export_onnx takes descriptors of feature maps, such as GeM. Got {type(first).__name__}.")
    return first, after


def _modules_of(step: Any) -> list[nn.Module]:
    """Return a step between vectors as layers."""
    name = type(step).__name__
    if name == "Normalizer" and step.norm == "l2":
        return [UnitLength()]
    if name not in _AFFINE:
        known = ", ".join((*_AFFINE, "Normalizer"))
        raise TypeError(f"{name} cannot be exported. After the descriptor there may be {known}.")
    linear = layers.Whitening(step, norm=False).requires_grad_(False)
    return [linear, UnitLength()] if getattr(step, "norm", None) == "l2" else [linear]


def _trace(graph: _Graph, size: tuple[int, int] | None, opset: int | None) -> Any:
    height, width = _TRACED_SIZE if size is None else size
    free = torch.export.Dim.DYNAMIC
    axes = {0: free} if size is not None else {0: free, 2: free, 3: free}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations
            program = torch.onnx.export(
                graph,
                (torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)),),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=["images"],
                output_names=["vectors"],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the exporter has its own types for what it cannot follow
        if type(error).__module__.partition(".")[0] != "torch":
            raise
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(
            f"{type(graph.estimator).__name__} cannot be exported for images of any size ({reason}). Try one size: "
            "size=(height, width)."
        ) from error
    model = program.model_proto  # type: ignore[union-attr]
    longest = graph.estimator.image_size
    model.doc_string = (
        "images: R, G, B in [0, 1], (n_images, 3, height, width)"
        + ("" if longest is None else f", reduced to a longest side of {longest} pixels")
        + "; vectors: (n_images, n_features)"
    )
    return model


def _check(graph: _Graph, data: bytes, size: tuple[int, int] | None) -> None:
    """Compare the graph with what it was made from, where it can be run."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    height, width = _TRACED_SIZE if size is None else size
    sizes = [(1, height, width), *([] if size is not None else [(2, width, height + 37)])]
    for n_images, rows, columns in sizes:
        images = torch.rand(n_images, 3, rows, columns, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = graph(images).numpy()
        found = session.run(["vectors"], {"images": images.numpy()})[0]
        close = 1e-3 * max(1e-6, float(np.abs(expected).max()))
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-2, atol=close):
            raise StoreError(
                f"The graph gives other vectors than {type(graph.estimator).__name__} for images of {columns} x {rows} "
                "pixels, so it was not written. Give the size of images: size=(height, width)."
            )
