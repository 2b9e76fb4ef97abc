"""Several descriptors of an image in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import ImageInputMixin, input_kind
from cvretrieval._validation import check_choice, check_number
from cvretrieval.images import check_images
from cvretrieval.postprocessing import PCAWhitening
from cvretrieval.postprocessing.power_norm import l2_normalize


class Ensemble(ImageInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _BaseComposition):
    """Ensemble of descriptors: each whitened by itself, then concatenated or averaged.

    Parameters
    ----------
    members : list of (str, estimator) pairs
        What describes images: the estimators of `cvretrieval.deep`, or Pipelines that begin with an extractor, such as
        ``make_pipeline(SIFT(), VLAD(64))``. Clones of them are fitted. Their parameters go by their names, as in a
        Pipeline: ``set_params(gem__p=4)``.
    whitening : estimator or None, default="pca"
        A clone of it is fitted on the vectors of each member; "pca" is ``PCAWhitening()``, None leaves them.
    combine : {"concatenate", "mean"}, default="concatenate"
        "mean" needs members of as many components.
    weights : sequence of float, optional
        A factor for each member's normalised vector; None is 1 each. Concatenated vectors are as similar as
        Σ w² cos / Σ w² over the members says.
    norm : {"l2", None}, default="l2"
        L2-normalise the vectors of each member after whitening, and the result.

    Attributes
    ----------
    members_ : list of estimators
        The fitted clones.
    whitenings_ : list of estimators
        One for each member; only with `whitening`.

    Notes
    -----
    Member, whitening, L2, weight; concatenation or mean; L2. Whitening makes descriptors of different kinds comparable:
    without it one whose vectors are all alike adds nothing but a constant. `fit` takes all images for everything that
    is learned; to learn a whitening from few images give it few components, ``PCAWhitening(128)``, or shrinkage.

    This is the combination that CGD, which learns its descriptors together from the start, is compared with.

    References
    ----------
    .. [1] H. Jun, B. Ko, Y. Kim, I. Kim and J. Kim, "Combination of multiple global descriptors for image retrieval",
       arXiv 1903.10663, 2019.
    .. [2] H. Jégou and O. Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
       whitening", ECCV 2012, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import PCAWhitening
    >>> from cvretrieval.deep import MAC, Backbone, Ensemble, SPoC
    >>> images = list(np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8))
    >>> network = Backbone("resnet18", weights=None)
    >>> both = Ensemble([("max", MAC(network)), ("sum", SPoC(network))], whitening=PCAWhitening(4))
    >>> both.fit_transform(images).shape
    (8, 8)
    """

    def __init__(
        self,
        members: Sequence[tuple[str, Any]],
        *,
        whitening: Any = "pca",
        combine: str = "concatenate",
        weights: Sequence[float] | None = None,
        norm: str | None = "l2",
    ) -> None:
        self.members = members
        self.whitening = whitening
        self.combine = combine
        self.weights = weights
        self.norm = norm

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of the members by their names among them."""
        found: dict[str, Any] = self._get_params("members", deep=deep)
        return found

    def set_params(self, **params: Any) -> Ensemble:
        """Set parameters, members by name, or parameters of members."""
        self._set_params("members", **params)
        return self

    def fit(self, X: Any, y: Any = None) -> Ensemble:
        """Fit the members, and the whitening of each on what it makes of the same images."""
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        """Fit on images and describe them, each member once."""
        return self._join(self._fit(X, y))

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Describe images.

        Parameters
        ----------
        X : sequence of paths, arrays, PIL images, file objects or ImageRegion

        Returns
        -------
        ndarray of shape (n_images, n_features)
            float32.
        """
        check_is_fitted(self, "members_")
        self._check_parameters()
        images = check_images(X, estimator=self)
        vectors = [_dense(member.transform(images)) for member in self.members_]
        if not len(images):
            return np.empty((0, self._n_features_out), dtype=np.float32)
        if self.whitening is not None:
            vectors = [part.transform(found) for part, found in zip(self.whitenings_, vectors, strict=True)]
        return self._join(vectors)

    def _fit(self, X: Any, y: Any) -> list[NDArray[Any]]:
        """Fit everything and return the whitened vectors of all members."""
        self._check_parameters()
        images = check_images(X, estimator=self)
        if not len(images):
            raise ValueError("Ensemble cannot be fitted: X has no images.")
        self.__dict__.pop("whitenings_", None)
        members, whitenings, vectors = [], [], []
        for _, member in self.members:
            members.append(clone(member).fit(images, y))
            vectors.append(_dense(members[-1].transform(images)))
        if self.whitening is not None:
            template = PCAWhitening() if isinstance(self.whitening, str) else self.whitening
            whitenings = [clone(template).fit(found, y) for found in vectors]
            vectors = [part.transform(found) for part, found in zip(whitenings, vectors, strict=True)]
            self.whitenings_ = whitenings
        self.members_ = members
        if self.combine == "mean" and len({found.shape[1] for found in vectors}) > 1:
            raise ValueError(
                f"The members give vectors of {', '.join(str(found.shape[1]) for found in vectors)} components, which "
                "have no mean. Give a whitening with n_components, or combine='concatenate'."
            )
        return vectors

    def _join(self, vectors: list[NDArray[Any]]) -> NDArray[np.float32]:
        if self.norm == "l2":
            vectors = [l2_normalize(found) for found in vectors]
        weights = [1.0] * len(vectors) if self.weights is None else self.weights
        weighted = [np.float32(w) * found.astype(np.float32) for w, found in zip(weights, vectors, strict=True)]
        if self.combine == "mean":
            joined = np.sum(weighted, axis=0, dtype=np.float32) / np.float32(np.sum(weights))
        else:
            joined = np.concatenate(weighted, axis=1)
        return l2_normalize(joined) if self.norm == "l2" else joined

    def _check_parameters(self) -> None:
        members = list(self.members)
        if not members or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in members):
            raise ValueError(
                "The 'members' parameter of Ensemble must be pairs of a name and an estimator, such as "
                f"[('gem', GeM()), ('rmac', RMAC())]. Got {self.members!r} instead."
            )
        self._validate_names([name for name, _ in members])
        for name, member in members:
            if not hasattr(member, "transform") or input_kind(member) != "images":
                raise ValueError(
                    f"The member {name!r} of Ensemble must describe images, as GeM() or make_pipeline(SIFT(), VLAD()) "
                    f"do. Got {member!r} instead."
                )
        if isinstance(self.whitening, str):
            check_choice(self, "whitening", self.whitening, ("pca", None))
        check_choice(self, "combine", self.combine, ("concatenate", "mean"))
        check_choice(self, "norm", self.norm, ("l2", None))
        if self.weights is not None:
            if len(self.weights) != len(members):
                raise ValueError(f"Ensemble has {len(members)} members, but {len(self.weights)} weights.")
            for weight in self.weights:
                check_number(self, "weights", weight, low=0, low_open=True)

    @property
    def _n_features_out(self) -> int:
        parts = self.members_ if self.whitening is None else self.whitenings_
        sizes = [len(part.get_feature_names_out()) for part in parts]
        return sizes[0] if self.combine == "mean" else sum(sizes)


def _dense(vectors: Any) -> NDArray[Any]:
    """Return vectors of a member, of words that may come sparse, as an array."""
    return np.array(vectors.toarray() if issparse(vectors) else vectors)
