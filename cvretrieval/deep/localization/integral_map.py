"""Maxima of any rectangle of a feature map, approximately, from sums of powers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class IntegralMap:
    """A feature map that is asked for the maximum activations of many rectangles.

    Parameters
    ----------
    x : Tensor of shape (C, H, W)
        Activations after a ReLU; negative ones count as 0.
    power : float
        α of the generalised mean; the larger, the closer to the maximum.

    Notes
    -----
    The maximum of channel c in region R is taken as (Σ_{p ∈ R} x_c(p)^α)^(1/α), never less than the maximum and at most
    |R|^(1/α) times as much. The sums are four values of the channel's integral map, in float64 and relative to the
    channel's largest activation: what is below a twentieth of that may be anything up to it, for α = 10.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 4.1, equation 6.
    """

    def __init__(self, x: Tensor, power: float) -> None:
        self.x = x.clamp(min=0)
        self.power = power
        self.height, self.width = int(x.shape[1]), int(x.shape[2])
        self._largest = self.x.amax((1, 2))
        shares = self.x.double() / self._largest.double().clamp(min=1e-300)[:, None, None]
        self._sums = F.pad(shares.pow(power).cumsum(1).cumsum(2), (1, 0, 1, 0))

    def maxima(self, boxes: Tensor) -> Tensor:
        """Return the approximate maxima of rectangles, (n_boxes, C), not normalised.

        `boxes` are int64 rows of the first pixel and the one past the last: x1, y1, x2, y2.
        """
        x1, y1, x2, y2 = boxes.unbind(1)
        sums = self._sums[:, y2, x2] - self._sums[:, y1, x2] - self._sums[:, y2, x1] + self._sums[:, y1, x1]
        return (sums.clamp(min=0).pow(1 / self.power) * self._largest[:, None]).T.to(self.x.dtype)

    def exact_maxima(self, box: tuple[int, int, int, int]) -> Tensor:
        """Return the maxima of one rectangle, (C,)."""
        x1, y1, x2, y2 = box
        return self.x[:, y1:y2, x1:x2].amax((1, 2))
