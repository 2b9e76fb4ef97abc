"""A learned whitening as a layer of a network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F


class Whitening(nn.Module):
    """A fitted whitening of vectors, such as `PCAWhitening` or `LearnedWhitening`, as a trainable linear layer.

    Parameters
    ----------
    whitening : fitted estimator
        Any transformer that is an affine map, once its parameter ``norm``, if it has one, is None.
    norm : bool, default=True
        L2-normalise the result.

    Attributes
    ----------
    linear : Linear

    Notes
    -----
    y = W x + b, then L2; (…, n_features) → (…, n_components).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from cvretrieval import PCAWhitening
    >>> from cvretrieval.deep.layers import Whitening
    >>> X = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    >>> pca = PCAWhitening(3).fit(X)
    >>> bool(np.allclose(Whitening(pca)(torch.as_tensor(X)).detach(), pca.transform(X), atol=1e-5))
    True
    """

    def __init__(self, whitening: Any, *, norm: bool = True) -> None:
        super().__init__()
        check_is_fitted(whitening)
        plain = copy.copy(whitening)
        if "norm" in plain.get_params(deep=False):
            plain.norm = None
        # The images of the origin and of the axes: whatever the estimator calls its parts.
        n_features = int(plain.n_features_in_)
        bias = np.asarray(plain.transform(np.zeros((1, n_features))), dtype=np.float64)[0]
        weight = (np.asarray(plain.transform(np.eye(n_features)), dtype=np.float64) - bias).T
        self.linear = nn.Linear(n_features, len(bias))
        with torch.no_grad():
            self.linear.weight.copy_(torch.as_tensor(weight.copy()))
            self.linear.bias.copy_(torch.as_tensor(bias))
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Whiten vectors (…, n_features) to (…, n_components)."""
        y = F.linear(x, self.linear.weight.to(x.dtype), self.linear.bias.to(x.dtype))
        return F.normalize(y, dim=-1) if self.norm else y
