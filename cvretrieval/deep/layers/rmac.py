"""Regional maximum activations of convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.layers.maps import check_map
from cvretrieval.deep.layers.region_grid import region_levels


class RMAC(nn.Module):
    """Regional maximum activations of convolutions (R-MAC): normalised maxima of a grid of regions, added up.

    Parameters
    ----------
    levels : int, default=3
        Scales of regions; level l has squares of about 2 / (l + 1) of the shorter side.
    include_global : bool, default=False
        Add the whole map as one more region, as some programs do. The paper and its authors' program do not.
    whitening : Module, optional
        Applied to the normalised vector of each region, (…, C) → (…, n_components), which is then normalised again,
        e.g. a `Whitening`. Learn it on the vectors of `regions`.
    norm : bool, default=True
        L2-normalise the sum.

    Notes
    -----
    Per region: maximum of each channel, L2, whitening, L2; then the sum of the regions, L2. (B, C, H, W) → (B, C), or
    (B, n_components). Regions: `rmac_regions`. The whitening is learned on other images than those searched (the paper:
    on Paris for Oxford).

    Every pixel is read once, into the maxima of the cells between the borders of all regions; the maxima of the regions
    are taken from these few.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import RMAC
    >>> x = torch.rand(2, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    >>> RMAC()(x).shape, RMAC().regions(x).shape
    (torch.Size([2, 8]), torch.Size([2, 20, 8]))
    """

    def __init__(
        self,
        levels: int = 3,
        *,
        include_global: bool = False,
        whitening: nn.Module | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"The 'levels' parameter of RMAC must be an integer in [1, inf). Got {levels!r} instead.")
        self.levels = levels
        self.include_global = include_global
        self.whitening = nn.Identity() if whitening is None else whitening
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map (B, C, H, W) to (B, C)."""
        pooled = F.normalize(self.whitening(self.regions(x)), dim=2).sum(1)
        return F.normalize(pooled, dim=1) if self.norm else pooled

    @torch.jit.export
    def regions(self, x: Tensor) -> Tensor:
        """Return the normalised maxima of all regions, (B, n_regions, C), in the order of `rmac_regions`.

        The global region, if included, comes last.
        """
        x = check_map(x)
        maxima = _region_maxima(x, self.levels)
        if self.include_global:
            maxima.append(x.amax((2, 3)).unsqueeze(1))
        return F.normalize(torch.cat(maxima, 1), dim=2)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, include_global={self.include_global}"


def _region_maxima(x: Tensor, levels: int) -> list[Tensor]:
    """Return the maxima of the regions of each level, (B, n_regions, C) each."""
    grid = region_levels(x.shape[2], x.shape[3], levels)
    rows: list[int] = []
    columns: list[int] = []
    for side, ys, xs in grid:
        for y in ys:
            rows += [y, y + side]
        for x0 in xs:
            columns += [x0, x0 + side]
    rows, columns = _distinct(rows), _distinct(columns)
    # Rows are taken together first, which leaves less to copy; with the channels last, maxima are those of vectors.
    strips = _window_maxima(x, rows[:-1], rows[1:], 2).permute(0, 2, 3, 1).contiguous()
    cells = _window_maxima(strips, columns[:-1], columns[1:], 2)
    maxima: list[Tensor] = []
    for side, ys, xs in grid:
        top = [rows.index(y) for y in ys]
        bottom = [rows.index(y + side) for y in ys]
        left = [columns.index(x0) for x0 in xs]
        right = [columns.index(x0 + side) for x0 in xs]
        maxima.append(_window_maxima(_window_maxima(cells, top, bottom, 1), left, right, 2).flatten(1, 2))
    return maxima


def _window_maxima(x: Tensor, starts: list[int], stops: list[int], dim: int) -> Tensor:
    """Return the maxima of slices along one axis."""
    parts = [x.narrow(dim, starts[i], stops[i] - starts[i]).amax(dim) for i in range(len(starts))]
    return torch.stack(parts, dim)


def _distinct(values: list[int]) -> list[int]:
    distinct: list[int] = []
    for value in sorted(values):
        if len(distinct) == 0 or value != distinct[-1]:
            distinct.append(value)
    return distinct
