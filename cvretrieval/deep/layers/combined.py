"""Several descriptors of one map, combined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval._validation import check_choice
from cvretrieval.deep.layers.gem import GeM
from cvretrieval.deep.layers.mac import MAC
from cvretrieval.deep.layers.maps import check_channels
from cvretrieval.deep.layers.spoc import SPoC

#: Letter → descriptor, as the paper abbreviates them.
BRANCHES = {"S": "SPoC", "M": "MAC", "G": "GeM"}

#: How descriptors become one.
COMBINATIONS = ("concatenate", "concatenate_before_fc", "sum_before_fc")


class CombinedDescriptors(nn.Module):
    """Combination of multiple global descriptors (CGD): several poolings of one map, each reduced by a linear layer.

    Parameters
    ----------
    n_channels : int
        Channels of the map.
    branches : str, default="MG"
        The descriptors in their order: S (average pooling, SPoC without its prior), M (MAC), G (GeM). A classifier
        that training attaches sees the first.
    n_components : int, default=1536
        Dimensions of the result; a multiple of the number of branches.
    p : float, default=3.0
        Exponent of G at the start.
    train_p : bool, default=False
        Whether it is trained.
    combine : {"concatenate", "concatenate_before_fc", "sum_before_fc"}, default="concatenate"
        "concatenate": a linear layer for each descriptor, L2, concatenation, L2; the paper's choice. The other two are
        compared with it there: one linear layer on the concatenation or on the sum of the L2-normalised descriptors,
        L2.

    Attributes
    ----------
    poolings : ModuleList
    reductions : ModuleList of Linear
        Without bias; one for each branch, or a single one.

    Notes
    -----
    (B, n_channels, H, W) → (B, n_components), of unit length.

    References
    ----------
    .. [1] H. Jun, B. Ko, Y. Kim, I. Kim and J. Kim, "Combination of multiple global descriptors for image retrieval",
       arXiv:1903.10663, section 3.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.layers import CombinedDescriptors
    >>> CombinedDescriptors(8, branches="SG", n_components=6)(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        n_channels: int,
        *,
        branches: str = "MG",
        n_components: int = 1536,
        p: float = 3.0,
        train_p: bool = False,
        combine: str = "concatenate",
    ) -> None:
        super().__init__()
        check_branches(type(self).__name__, branches, n_components)
        check_choice(type(self).__name__, "combine", combine, COMBINATIONS)
        self.n_channels = n_channels
        self.branches = branches
        self.combine = combine
        make: dict[str, Any] = {
            "S": lambda: SPoC(center_prior=False, reduction="mean"),
            "M": MAC,
            "G": lambda: GeM(p),
        }
        self.poolings = nn.ModuleList(make[letter]() for letter in branches)
        for pooling in self.poolings:
            for exponent in pooling.parameters():
                exponent.requires_grad_(train_p)
        n = len(branches)
        sizes = {
            "concatenate": [(n_channels, n_components // n)] * n,
            "concatenate_before_fc": [(n_channels * n, n_components)],
            "sum_before_fc": [(n_channels, n_components)],
        }
        self.reductions = nn.ModuleList(nn.Linear(*size, bias=False) for size in sizes[combine])

    def forward(self, x: Tensor) -> Tensor:
        """Describe a map (B, n_channels, H, W) by (B, n_components)."""
        return self.combined(self.descriptors(x))

    def descriptors(self, x: Tensor) -> list[Tensor]:
        """Return the descriptors of a map, (B, n_channels) each, in their order, not normalised."""
        check_channels(x, self.n_channels)
        return [pooling(x) for pooling in self.poolings]

    def combined(self, descriptors: list[Tensor]) -> Tensor:
        """Return the combination of what `descriptors` returned."""
        if self.combine == "concatenate":
            reduced = [
                F.normalize(_linear(layer, one), dim=1) for layer, one in zip(self.reductions, descriptors, strict=True)
            ]
            return F.normalize(torch.cat(reduced, dim=1), dim=1)
        unit = [F.normalize(one, dim=1) for one in descriptors]
        together = torch.cat(unit, dim=1) if self.combine == "concatenate_before_fc" else torch.stack(unit).sum(0)
        return F.normalize(_linear(self.reductions[0], together), dim=1)

    def extra_repr(self) -> str:
        return f"{self.n_channels}, branches={self.branches!r}, combine={self.combine!r}"


def _linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype))


def check_branches(owner: Any, branches: Any, n_components: int) -> None:
    """Refuse letters that name no descriptor or one twice, and dimensions that cannot be shared evenly."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    is_known = isinstance(branches, str) and branches and set(branches) <= BRANCHES.keys()
    if not is_known or len(set(branches)) < len(branches):
        raise ValueError(
            f"The 'branches' parameter of {name} must be letters out of S, M and G, each at most once, such as 'MG'. "
            f"Got {branches!r} instead."
        )
    if n_components < len(branches) or n_components % len(branches):
        raise ValueError(
            f"The 'n_components' parameter of {name} must be a multiple of the {len(branches)} branches. "
            f"Got {n_components!r} instead."
        )
