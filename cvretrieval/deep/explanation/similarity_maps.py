"""Heat maps of the similarity of two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.explanation.described import ScaledMap, scaled_maps, split_descriptor


@dataclass(frozen=True, eq=False)
class SimilarityMaps:
    """What each place of two images contributes to their similarity.

    Attributes
    ----------
    similarity : float
        Inner product of the two descriptors.
    a, b : ndarray of shape (height, width)
        float32, contributions of the pixels of the feature map of the first and second image.
    frame_a, frame_b : ndarray of shape (4,)
        Where the maps lie: x1, y1, x2, y2 of their outer borders in original pixels, pixel centres at integers.
    rest_a, rest_b : float
        What belongs to no place: ``similarity - a.sum()`` and ``similarity - b.sum()``.
    """

    similarity: float
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    frame_a: NDArray[np.float64]
    frame_b: NDArray[np.float64]
    rest_a: float
    rest_b: float


def explain_similarity(estimator: Any, a: Any, b: Any) -> SimilarityMaps:
    """Return which places of two images make their descriptors similar.

    Parameters
    ----------
    estimator : descriptor, or pipeline
        One that pools a feature map (`GeM`, `MAC`, `SPoC`, `CroW`, `RMAC`, `NetVLAD`, …), fitted if it learns; or a
        pipeline of one and whitenings.
    a, b : path, array, PIL image, file object or ImageRegion
        The images.

    Returns
    -------
    SimilarityMaps

    Raises
    ------
    TypeError
        For other estimators.
    ImageReadError
        If an image cannot be read, or is too small for the network.

    Notes
    -----
    With descriptors v_a and v_b, pixel p of b contributes Σ_c x_c(p) · ∂(v_a · v_b) / ∂x_c(p), where the norms that
    vectors are divided by are held fixed. Poolings that grow in proportion to the map (all but NetVLAD) are divided
    into these contributions without a rest, by Euler's theorem: for SPoC they are v_a · x(p) / ‖Σ x‖, for GeM in
    proportion to x_c(p)^p, for MAC and R-MAC all at the maxima. The rest is what a whitening subtracts, seen through
    its rotation; with NetVLAD, what its centres subtract and what a shift of the assignment would do. Negative
    contributions are places that make the images less similar. Of several scales the contributions are added up on
    the map of the finest.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, GeM, explain_similarity
    >>> a, b = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    >>> gem = GeM(Backbone("resnet18", weights=None)).fit([a, b])
    >>> maps = explain_similarity(gem, a, b)
    >>> maps.b.shape, bool(np.isclose(maps.b.sum(), maps.similarity, atol=1e-4))
    ((2, 3), True)
    """
    descriptor, whitening = split_descriptor(estimator)
    pooling = descriptor._pooling(descriptor._prepare())
    maps = [scaled_maps(descriptor, image) for image in (a, b)]
    vectors = [_describe(descriptor, pooling, whitening, [scaled.x for scaled in found]).detach() for found in maps]
    similarity = float(vectors[0] @ vectors[1])
    shares = []
    for found, other in zip(maps, reversed(vectors), strict=True):
        xs = [scaled.x.requires_grad_() for scaled in found]
        with _FixedNorms():
            product = _describe(descriptor, pooling, whitening, xs) @ other
        gradients = torch.autograd.grad(product, xs)
        shares.append([(x * g).sum((0, 1)).detach() for x, g in zip(xs, gradients, strict=True)])
    (share_a, frame_a), (share_b, frame_b) = (_add_up(own, found) for own, found in zip(shares, maps, strict=True))
    return SimilarityMaps(
        similarity, share_a, share_b, frame_a, frame_b,
        similarity - float(share_a.sum(dtype=np.float64)), similarity - float(share_b.sum(dtype=np.float64)),
    )  # fmt: skip


class _FixedNorms(TorchFunctionMode):
    """`F.normalize` divides by norms that do not depend on what is normalised, as far as gradients go."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.normalize:
            return func(*args, **kwargs)

        def fixed(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
            return x / x.norm(p, dim, keepdim=True).clamp_min(eps).detach()

        return fixed(*args, **kwargs)


def _describe(descriptor: MapDescriptor, pooling: nn.Module, whitening: nn.Module, xs: list[Tensor]) -> Tensor:
    vectors: Tensor = whitening(descriptor._combine([descriptor._describe(pooling, x) for x in xs]))
    return vectors[0]


def _add_up(shares: list[Tensor], found: list[ScaledMap]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the shares of all scales on the finest map, none lost, and the frame of that."""
    finest = max(range(len(found)), key=lambda i: found[i].x[0, 0].numel())
    height, width = shares[finest].shape
    total = torch.zeros((height, width), dtype=torch.float64, device=shares[finest].device)
    for share in shares:
        down, across = _spread(share.shape[0], height), _spread(share.shape[1], width)
        total += down.to(share.device) @ share.double() @ across.to(share.device).T
    return total.cpu().numpy().astype(np.float32), found[finest].frame()


def _spread(n_from: int, n_to: int) -> Tensor:
    """Return how much of each of `n_from` even intervals falls into each of `n_to`, (n_to, n_from)."""
    borders = [torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in (n_to, n_from)]
    stop = torch.minimum(borders[0][1:, None], borders[1][1:])
    start = torch.maximum(borders[0][:-1, None], borders[1][:-1])
    return (stop - start).clamp(min=0) * n_from
