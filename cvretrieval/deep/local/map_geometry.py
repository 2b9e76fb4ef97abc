"""Where the pixels of a feature map lie in the image: followed through convolutions and poolings as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


class AxisGeometry(NamedTuple):
    """What the pixels of a map see of the image along one axis.

    Pixel i sees those from ``first + i * step`` to ``last + i * step``.
    """

    step: float
    first: float
    last: float

    @property
    def start(self) -> float:
        """Centre of what pixel 0 sees."""
        return (self.first + self.last) / 2

    @property
    def size(self) -> float:
        """Side of the receptive field."""
        return self.last - self.first + 1


class MapGeometry(NamedTuple):
    """`AxisGeometry` along y and x, in pixels of the image that the network was given."""

    y: AxisGeometry
    x: AxisGeometry


class GeometryTracer:
    """Watches a network run and tells where the pixels of its map lie.

    Attributes
    ----------
    image_size : tuple of int
        Height and width of the images that were watched last, as the network was given them.

    Notes
    -----
    A window of k pixels, d apart, that moves s pixels at a time over a map padded by p, sees from
    first − p · step to last + (d (k − 1) − p) · step, and its step is s · step. Sums and concatenations of maps see
    what all of them do. What passes through a single pixel, as the weights of squeeze-and-excitation do, is left out:
    it belongs to no place.

    This is the formula for receptive fields, applied to the operations themselves as they are executed, so it needs no
    list of layers, and holds for paddings that depend on the size of the image. Where a map is turned into something
    else on its way, as transformers do, it can't be followed; it is then taken to cover the image evenly, each pixel
    seeing a cell of its own.
    """

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()
        self.image_size = (1, 1)

    @contextmanager
    def watch(self, images: Tensor) -> Iterator[None]:
        """Follow these images (B, 3, H, W) through what runs in this context."""
        self._known = WeakTensorKeyDictionary()
        self.image_size = (int(images.shape[2]), int(images.shape[3]))
        pixel = AxisGeometry(1.0, 0.0, 0.0)
        self._known[images] = MapGeometry(pixel, pixel)
        with _Following(self._known):
            yield

    def geometry(self, found: Tensor) -> MapGeometry:
        """Return the geometry of a map (B, C, H, W) that came out of what was watched."""
        known: MapGeometry | None = self._known.get(found)
        if known is not None:
            return known
        cells = [side / int(n) for side, n in zip(self.image_size, found.shape[2:], strict=True)]
        y, x = (AxisGeometry(cell, 0.0, cell - 1) for cell in cells)
        return MapGeometry(y, x)


class _Following(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Notes the geometry of the result of every operation."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.known = known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name in _WINDOWS:
            moved = self._moved(_WINDOWS[name], func, args, kwargs)
            result = found[0] if isinstance(found, (tuple, list)) else found
            if moved is not None:
                self.known[result] = moved
            return found
        results = [value for value in _flat([found]) if value.dim() >= 2]
        if results:
            sources = [(value, self.known.get(value)) for value in _flat([*args, *kwargs.values()])]
            for result in results:
                # Elementwise operations, normalisations, concatenations, other views of the channels.
                seen = [geometry for value, geometry in sources if geometry and value.shape[-2:] == result.shape[-2:]]
                joined = _union(seen)
                if joined is not None:
                    self.known[result] = joined
        return found

    def _moved(self, windows: _Windows, func: Any, args: Any, kwargs: Any) -> MapGeometry | None:
        bound = {argument.name: argument.default_value for argument in func._schema.arguments}
        bound.update(zip(bound, args, strict=False))
        bound.update(kwargs)
        source = bound.get("input", bound.get("self"))
        known: MapGeometry | None = self.known.get(source) if isinstance(source, Tensor) else None
        if known is None or source is None or source.dim() != 4:
            return None
        moved = windows(bound)
        if moved is None:
            return None
        y, x = (_move(axis, *window) for axis, window in zip(known, moved, strict=True))
        return MapGeometry(y, x)


#: span (pixels from the first to the last of a window), stride, padding before the first pixel; for y and x
_Window = tuple[int, int, int]
_Windows = Callable[[dict[str, Any]], "tuple[_Window, _Window] | None"]


def _move(axis: AxisGeometry, span: int, stride: int, padding: int) -> AxisGeometry:
    step, first, last = axis
    return AxisGeometry(step * stride, first - padding * step, last + (span - padding) * step)


def _convolution(bound: dict[str, Any]) -> tuple[_Window, _Window] | None:
    if bound.get("transposed"):
        return None
    return _pair(bound["weight"].shape[2:], bound["stride"], bound["padding"], bound["dilation"])


def _pooling(bound: dict[str, Any]) -> tuple[_Window, _Window] | None:
    stride = bound["stride"] or bound["kernel_size"]
    return _pair(bound["kernel_size"], stride, bound["padding"], bound.get("dilation", 1))


def _padding(bound: dict[str, Any]) -> tuple[_Window, _Window] | None:
    # Left, right, top, bottom; constant paddings may name the last axes alone, or the channels as well.
    paddings = [*bound["pad" if "pad" in bound else "padding"], 0, 0]
    return (0, 1, int(paddings[2])), (0, 1, int(paddings[0]))


def _pair(kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[_Window, _Window]:
    kernels, strides, dilations = (_two(value) for value in (kernel, stride, dilation))
    spans = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
    if isinstance(padding, str):
        paddings = [span // 2 if padding == "same" else 0 for span in spans]
    else:
        paddings = _two(padding)
    y, x = zip(spans, strides, paddings, strict=True)
    return y, x


def _two(value: Any) -> list[int]:
    values = [int(v) for v in value] if isinstance(value, (Sequence, torch.Size)) else [int(value)]
    return values if len(values) == 2 else values * 2


_WINDOWS: dict[str, _Windows] = {
    **dict.fromkeys(("conv2d", "convolution", "cudnn_convolution"), _convolution),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), _pooling),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padding),
}


def _union(seen: list[MapGeometry]) -> MapGeometry | None:
    """Return what maps see together; None for none, and for maps of different steps."""
    if not seen or any(one.y.step != seen[0].y.step or one.x.step != seen[0].x.step for one in seen):
        return None
    y, x = (
        AxisGeometry(axes[0].step, min(axis.first for axis in axes), max(axis.last for axis in axes))
        for axes in zip(*seen, strict=True)
    )
    return MapGeometry(y, x)


def _flat(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _flat(value)
    return found
