"""Cross entropy of a softmax with a temperature."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cvretrieval.deep.losses.pairs import check_positive


class CrossEntropy(nn.Module):
    """Cross entropy of the softmax of scores over a temperature, with label smoothing.

    Parameters
    ----------
    temperature : float, default=0.5
        τ: below 1 it makes the softmax steeper, and gradients of hard images larger. 1 leaves the scores.
    label_smoothing : float, default=0.1
        ε: share of the target that is spread evenly over all classes, the right one included.

    Notes
    -----
    L = mean_i −Σ_c t_ic log softmax(s_i / τ)_c with t_ic = (1 − ε) [c is the class of i] + ε / n_classes.

    References
    ----------
    .. [1] H. Jun, B. Ko, Y. Kim, I. Kim and J. Kim, "Combination of multiple global descriptors for image retrieval",
       arXiv:1903.10663, equation 5.
    .. [2] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, "Rethinking the Inception architecture for
       computer vision", CVPR 2016, section 7.

    Examples
    --------
    >>> import torch
    >>> from cvretrieval.deep.losses import CrossEntropy
    >>> CrossEntropy(temperature=1, label_smoothing=0)(torch.zeros(3, 4), torch.tensor([0, 1, 3])).exp()
    tensor(4.)
    """

    def __init__(self, temperature: float = 0.5, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.temperature = check_positive("CrossEntropy", "temperature", temperature)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"The 'label_smoothing' parameter of CrossEntropy must be a number in [0, 1). Got {label_smoothing!r}."
            )
        self.label_smoothing = float(label_smoothing)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of scores (B, n_classes) of classes (B,)."""
        return F.cross_entropy(scores / self.temperature, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}, label_smoothing={self.label_smoothing:g}"
