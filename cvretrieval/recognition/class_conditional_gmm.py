"""One mixture of Gaussians per class on local descriptors: the generative classifier."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_choice, check_number, non_finite_descriptors
from cvretrieval.local_features import LocalFeatures, check_local_features

_BLOCK_IMAGES = 8

#: Descriptors whose densities are computed at once.
_BLOCK_DESCRIPTORS = 1024


class ClassConditionalGMM(LocalFeaturesInputMixin, ClassifierMixin, BaseEstimator):
    """Bayes classifier with one diagonal Gaussian mixture of local descriptors per class.

    The descriptors x of an image are taken as independent draws from the mixture of its class:
    log p(class | image) = log p(class) + Σ_x log p(x | class) + constant.

    Parameters
    ----------
    n_components : int, default=16
        Gaussians of each class; fewer where a class has fewer descriptors.
    aggregation : {"mean", "sum"}, default="mean"
        How the log-likelihoods of the descriptors of an image are combined. "sum" is Bayes' rule as stated; since
        descriptors overlap and are not independent, its probabilities are nearly always 0 or 1. "mean" divides by the
        number of descriptors, as if an image were a single draw: probabilities are moderate, the priors weigh more,
        and with equal priors the predicted class is the same.
    priors : array-like of shape (n_classes,), optional
        In the order of ``classes_``, positive, adding up to 1; default: the shares of the training images.
    max_samples : int or None, default=20000
        Descriptors of each class that its mixture is learned on, drawn at random.
    max_iter : int, default=100
        Of the EM algorithm.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood gains less.
    reg_covar : float, default=1e-6
        Added to each variance, relative to the mean variance of all sampled descriptors, so that the scale of the
        descriptors does not matter.
    n_jobs : int, optional
        Threads, over classes in `fit` and over blocks of images afterwards; the number does not change a bit.
    random_state : int, RandomState or None, default=None
        Seed of the samples and of the initialisations.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    class_log_prior_ : ndarray of shape (n_classes,)
    weights_ : ndarray of shape (n_classes, n_components)
        Components that a class lacks have weight 0.
    means_, variances_ : ndarray of shape (n_classes, n_components, n_dims)
    n_dims_ : int
        Dimension of the descriptors.

    Notes
    -----
    An image without descriptors has the prior for its posterior. Diagonal covariances suit descriptors that PCA has
    decorrelated: ``PerDescriptor(PCA(64))`` before it is faster and usually better. Computed in float64.

    References
    ----------
    .. [1] C. Dance, J. Willamowski, L. Fan, C. Bray and G. Csurka, "Visual categorization with bags of keypoints",
       ECCV workshop 2004, section 3: the naive Bayes classifier, there on quantised descriptors.
    .. [2] O. Boiman, E. Shechtman and M. Irani, "In defense of nearest-neighbor based image classification",
       CVPR 2008, section 3: Bayes' rule on the descriptors of an image.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import ClassConditionalGMM
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(label, 1.0, size=(30, 4)) for label in (0, 0, 2, 2)]
    >>> model = ClassConditionalGMM(n_components=2, random_state=0).fit(X, ["a", "a", "b", "b"])
    >>> model.predict(X).tolist()
    ['a', 'a', 'b', 'b']
    """

    def __init__(
        self,
        n_components: int = 16,
        *,
        aggregation: str = "mean",
        priors: ArrayLike | None = None,
        max_samples: int | None = 20_000,
        max_iter: int = 100,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.aggregation = aggregation
        self.priors = priors
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.tol = tol
        self.reg_covar = reg_covar
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> ClassConditionalGMM:
        """Learn a mixture per class.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
        y : array-like of shape (n_images,)
            Labels.

        Raises
        ------
        ValueError
            If a class has no descriptor at all, or descriptors are NaN or infinite; the message names it.
        """
        self._check_parameters()
        X = check_local_features(X, estimator=self, min_images=1)
        if y is None:
            raise ValueError("ClassConditionalGMM requires y to be passed, but the target y is None.")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} images, but y has {len(y)} labels.")
        if X.n_descriptors == 0:
            raise ValueError("ClassConditionalGMM cannot be fitted: none of the images has any descriptor.")
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.class_log_prior_ = self._log_priors(labels)
        random = check_random_state(self.random_state)
        samples = [self._sample(X, labels == c, self.classes_[c], random) for c in range(len(self.classes_))]
        seeds = random.randint(np.iinfo(np.int32).max, size=len(samples))
        together = np.concatenate(samples)
        floor = self.reg_covar * float(together.var(axis=0).mean() or np.square(together).mean() or 1.0)

        def learn(c: int) -> GaussianMixture:
            mixture = GaussianMixture(
                min(int(self.n_components), len(samples[c])), covariance_type="diag", reg_covar=floor, tol=self.tol,
                max_iter=self.max_iter, random_state=seeds[c],
            )  # fmt: skip
            return mixture.fit(samples[c])

        mixtures = map_blocks(
            learn, range(len(samples)), n_jobs=self.n_jobs, weights=[1] * len(samples), description="mixtures",
            unit="class", verbose=self.verbose,
        )  # fmt: skip
        shape = (len(samples), int(self.n_components))
        self.weights_ = np.zeros(shape)
        self.means_ = np.zeros((*shape, X.n_dims))
        self.variances_ = np.ones((*shape, X.n_dims))
        with warnings.catch_warnings():
            # That EM was stopped by max_iter, or that descriptors are equal, is no reason to warn for a classifier.
            warnings.simplefilter("ignore", ConvergenceWarning)
            for c, mixture in enumerate(mixtures):
                n = len(mixture.weights_)
                self.weights_[c, :n] = mixture.weights_
                self.means_[c, :n] = mixture.means_
                self.variances_[c, :n] = mixture.covariances_
        self.n_dims_ = X.n_dims
        return self

    def log_likelihood(self, X: Any) -> NDArray[np.float64]:
        """Return log p(image | class) of each class, by `aggregation`.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            With descriptors of the dimension seen at fit.

        Returns
        -------
        ndarray of shape (n_images, n_classes)
            Zeros for an image without descriptors.
        """
        check_is_fitted(self, "means_")
        self._check_parameters()
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        likelihoods = np.zeros((len(X), len(self.classes_)))
        precisions = (1 / self.variances_).reshape(-1, self.n_dims_)
        scaled_means = precisions * self.means_.reshape(-1, self.n_dims_)
        log_norms = np.einsum("kd,kd->k", scaled_means, self.means_.reshape(-1, self.n_dims_))
        log_norms += np.log(2 * np.pi * self.variances_).sum(axis=2).ravel()
        with np.errstate(divide="ignore"):
            constants = np.log(self.weights_).ravel() - 0.5 * log_norms
        # x² and x side by side, so that one product gives all densities: x² · (−½/σ²) + x · μ/σ².
        factors = np.hstack([-0.5 * precisions, scaled_means]).T

        def score(block: slice) -> None:
            for i in range(block.start, block.stop):
                likelihoods[i] = self._score(X, i, factors, constants)

        blocks = block_slices(len(X), _BLOCK_IMAGES)
        weights = [block.stop - block.start for block in blocks]
        for _ in map_blocks(
            score, blocks, n_jobs=self.n_jobs, weights=weights, description="likelihoods", verbose=self.verbose
        ):
            pass
        return likelihoods

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return log p(class | image), of shape (n_images, n_classes), in the order of ``classes_``."""
        joint = self.log_likelihood(X) + self.class_log_prior_
        return joint - logsumexp(joint, axis=1, keepdims=True)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return p(class | image), of shape (n_images, n_classes); rows add up to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each image."""
        joint = self.log_likelihood(X) + self.class_log_prior_
        return self.classes_[joint.argmax(axis=1)]

    def _score(
        self, X: LocalFeatures, i: int, factors: NDArray[np.float64], constants: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the log-likelihoods of one image, from its own rows alone."""
        descriptors = X.descriptors[X.offsets[i] : X.offsets[i + 1]]
        total = np.zeros(len(self.classes_))
        for start in range(0, len(descriptors), _BLOCK_DESCRIPTORS):
            block = descriptors[start : start + _BLOCK_DESCRIPTORS].astype(np.float64)
            if not np.isfinite(block).all():
                raise non_finite_descriptors(self, i)
            densities = np.hstack([block * block, block]) @ factors + constants
            total += logsumexp(densities.reshape(len(block), *self.weights_.shape), axis=2).sum(axis=0)
        return total / max(len(descriptors), 1) if self.aggregation == "mean" else total

    def _sample(
        self, X: LocalFeatures, chosen: NDArray[np.bool_], label: Any, random: np.random.RandomState
    ) -> NDArray[np.float64]:
        rows = np.flatnonzero(np.repeat(chosen, X.lengths))
        if not len(rows):
            name = np.asarray(label).item()
            raise ValueError(
                f"ClassConditionalGMM cannot be fitted: no image of class {name!r} has any descriptor. Leave the "
                "class out, or give it images with features."
            )
        if self.max_samples is not None and len(rows) > self.max_samples:
            rows = np.sort(random.choice(rows, int(self.max_samples), replace=False))
        sample = X.descriptors[rows].astype(np.float64)
        finite = np.isfinite(sample).all(axis=1)
        if not finite.all():
            raise non_finite_descriptors(self, int(X.image_index()[rows[~finite][0]]))
        # scikit-learn wants two rows; a row twice has the same mixture.
        return sample if len(sample) > 1 else np.repeat(sample, 2, axis=0)

    def _log_priors(self, labels: NDArray[np.intp]) -> NDArray[np.float64]:
        if self.priors is None:
            return np.log(np.bincount(labels) / len(labels))
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != (len(self.classes_),) or not (priors > 0).all() or abs(priors.sum() - 1) > 1e-6:
            raise ValueError(
                f"The 'priors' parameter of ClassConditionalGMM must be {len(self.classes_)} positive numbers that add "
                f"up to 1, one for each class. Got {self.priors!r} instead."
            )
        return np.log(priors)

    def _check_parameters(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True)
        check_choice(self, "aggregation", self.aggregation, ("mean", "sum"))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        check_number(self, "tol", self.tol, low=0)
        check_number(self, "reg_covar", self.reg_covar, low=0, low_open=True)
