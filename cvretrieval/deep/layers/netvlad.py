"""NetVLAD: VLAD with soft assignment, every part of it trainable."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.codebooks import KMeansCodebook
from cvretrieval.deep.layers.maps import check_channels, check_map

# The nearest centre of an average training descriptor weighs so many times what the second one does.
_RATIO = 100.0


class NetVLAD(nn.Module):
    """NetVLAD: residuals of the pixels' features to centres, softly assigned, added up and normalised.

    Parameters
    ----------
    n_clusters : int
        Centres, K; the paper takes 64.
    n_channels : int
        Channels of the map, D.
    form : {"paper", "authors"}, default="paper"
        How centres and α give the assignment at the start. "paper": by distance, w_k = 2α c_k, b_k = −α ‖c_k‖².
        "authors": by angle, w_k = α c_k / ‖c_k‖, no bias: the form of the models the authors published, for which
        their program and this one insist on normalised features.
    normalize_input : bool, default=True
        L2-normalise the features of each pixel first.
    norm : bool, default=True
        L2-normalise the vector.

    Attributes
    ----------
    centers : Parameter of shape (n_clusters, n_channels)
    weight : Parameter of shape (n_clusters, n_channels)
    bias : Parameter of shape (n_clusters,), or None
        Trained apart from the centres, as in the paper. Random until `init_from` or `set_centers` is called.
    alpha : float
        α that the assignment was last set with.

    Notes
    -----
    With a_k(i) the softmax over k of w_k · x_i + b_k, V_k = Σ_i a_k(i) (x_i − c_k); each V_k is L2-normalised
    (intra-normalisation), then the whole; every norm is at least 1e-12. (B, D, H, W) → (B, K · D), cluster-major:
    component ``k * n_channels + d`` belongs to centre k. The authors' MATLAB arrays have the cluster index running
    fastest.

    References
    ----------
    .. [1] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016, equations 1 to 4.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import NetVLAD
    >>> maps = torch.rand(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> layer = NetVLAD(3, 8).init_from(maps.permute(0, 2, 3, 1).reshape(-1, 8), random_state=0)
    >>> layer(maps).shape
    torch.Size([4, 24])
    """

    def __init__(
        self, n_clusters: int, n_channels: int, *, form: str = "paper", normalize_input: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        if form not in ("paper", "authors"):
            raise ValueError(f"The 'form' parameter of NetVLAD must be 'paper' or 'authors'. Got {form!r} instead.")
        if form == "authors" and not normalize_input:
            raise ValueError("NetVLAD assigns by angle in form='authors', which needs normalize_input=True.")
        self.n_clusters = n_clusters
        self.n_channels = n_channels
        self.form = form
        self.normalize_input = normalize_input
        self.norm = norm
        self.alpha = 1.0
        self.centers = nn.Parameter(torch.randn(n_clusters, n_channels) / math.sqrt(n_channels))
        self.weight = nn.Parameter(self.centers.detach().clone())
        self.bias = nn.Parameter(torch.zeros(n_clusters)) if form == "paper" else None

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, n_channels, H, W) to (B, n_clusters · n_channels)."""
        residuals = F.normalize(self.residuals(x), dim=2).flatten(1)
        return F.normalize(residuals, dim=1) if self.norm else residuals

    @torch.jit.export
    def residuals(self, x: Tensor) -> Tensor:
        """Return the sums V before any normalisation of them, (B, n_clusters, n_channels)."""
        features = check_map(x).flatten(2)
        check_channels(x, self.n_channels)
        if self.normalize_input:
            features = F.normalize(features, dim=1)
        shares = self._shares(features)
        sums = torch.matmul(shares, features.transpose(1, 2))
        return sums - shares.sum(2, keepdim=True) * self.centers.to(features.dtype)

    @torch.jit.export
    def assign(self, x: Tensor) -> Tensor:
        """Return the shares a of the centres in each pixel, (B, n_clusters, H, W)."""
        features = check_map(x).flatten(2)
        check_channels(x, self.n_channels)
        if self.normalize_input:
            features = F.normalize(features, dim=1)
        return self._shares(features).unflatten(2, [x.shape[2], x.shape[3]])

    def _shares(self, features: Tensor) -> Tensor:
        scores = torch.matmul(self.weight.to(features.dtype), features)
        bias = self.bias
        if bias is not None:
            scores = scores + bias.to(features.dtype).unsqueeze(1)
        return scores.softmax(1)

    @torch.jit.unused
    def init_from(self, descriptors: Any, *, random_state: Any = None) -> NetVLAD:
        """Set centres by k-means and α by the authors' rule; return self.

        Parameters
        ----------
        descriptors : array or tensor of shape (n_descriptors, n_channels)
            Features of pixels drawn from training images; the paper takes 100 of each of 500 images.
        random_state : int, RandomState or None, default=None
            Seed of k-means.

        Notes
        -----
        α = ln 100 / mean(gap), where the gap of a descriptor is its squared distance to the second-nearest centre less
        that to the nearest one, or, in the authors' form, the difference of its two largest cosines: with the mean
        gap, the nearest centre weighs 100 times what the second one does.
        """
        rows = np.asarray(torch.as_tensor(descriptors).detach().cpu().to(torch.float64))
        if rows.ndim != 2 or rows.shape[1] != self.n_channels:
            raise ValueError(
                f"NetVLAD learns from descriptors of shape (n_descriptors, {self.n_channels}). Got shape "
                f"{rows.shape} instead."
            )
        if self.normalize_input:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        codebook = KMeansCodebook(self.n_clusters, max_samples=None, random_state=random_state).fit([rows])
        centers = np.asarray(codebook.cluster_centers_, dtype=np.float64)
        return self.set_centers(centers, alpha_of(rows, centers, self.form))

    @torch.jit.unused
    def set_centers(self, centers: Any, alpha: float) -> NetVLAD:
        """Set the centres, (n_clusters, n_channels), and the assignment that they and α > 0 give; return self."""
        values = torch.as_tensor(np.asarray(centers, dtype=np.float64))
        if list(values.shape) != [self.n_clusters, self.n_channels]:
            raise ValueError(
                f"The centres must have shape ({self.n_clusters}, {self.n_channels}). Got {tuple(values.shape)}."
            )
        self.alpha = float(alpha)
        with torch.no_grad():
            self.centers.copy_(values)
            if self.bias is not None:
                self.weight.copy_(2 * alpha * values)
                self.bias.copy_(-alpha * (values * values).sum(1))
            else:
                self.weight.copy_(alpha * F.normalize(values, dim=1))
        return self

    def extra_repr(self) -> str:
        return f"{self.n_clusters}, {self.n_channels}, form={self.form!r}, normalize_input={self.normalize_input}"


def alpha_of(rows: NDArray[np.float64], centers: NDArray[np.float64], form: str) -> float:
    """Return α of centres by the authors' rule, from training descriptors normalised as the layer does.

    With one centre, or where every descriptor is as near to two of them, there is no gap to go by, and α is 1.
    """
    if len(centers) < 2:
        return 1.0
    if form == "paper":
        nearness = 2 * rows @ centers.T - (centers**2).sum(1)
    else:
        nearness = rows @ (centers / np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-12)).T
    best = np.partition(nearness, -2, axis=1)
    gap = float((best[:, -1] - best[:, -2]).mean())
    return math.log(_RATIO) / gap if gap > 0 else 1.0
