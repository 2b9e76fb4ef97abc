"""Fisher vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.fisher import mean_gradients, normalize_gradients, variance_gradients, weight_gradients
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_choice, check_flag, check_number, dimension_mismatch
from cvretrieval.codebooks import GaussianPosteriors, GMMCodebook, MixtureStatistics, gmm_parameters, resolve_gmm
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures, check_local_features

_BLOCK_IMAGES = 8

# VLFeat's cuts: components and posteriors below contribute nothing.
_MIN_WEIGHT = 1e-6
_MIN_POSTERIOR = 1e-6

_GRADIENTS = ("weights", "means", "variances")
_LAYOUTS = {"vlfeat": ("means", "variances"), "skimage": _GRADIENTS}


class FisherVector(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Fisher vector of a Gaussian mixture (Perronnin and Dance 2007), by default the improved one (2010).

    An image is the gradient of the mean log-likelihood of its descriptors with respect to the parameters of a mixture
    of Gaussians with diagonal covariances, divided by the square root of the Fisher information.

    Parameters
    ----------
    n_components : int, default=64
        Gaussians of the mixture that `fit` learns; ignored if `gmm` is given.
    gmm : fitted mixture, optional
        `GMMCodebook`, or scikit-learn's ``GaussianMixture(covariance_type="diag")``; kept as it is, by `fit` and when
        cross-validation clones the encoder.
    gradients : tuple of str, optional
        Some of "weights", "means" and "variances": which gradients the vector holds, always in this order. None: those
        of the layout, for "vlfeat" means and variances, for "skimage" all three.
    layout : {"vlfeat", "skimage"}, default="vlfeat"
        Whose conventions: see Notes.
    fast : bool, default=False
        Only the most probable component of each descriptor counts, with posterior 1.
    power : float or None, default=0.5
        Signed power sign(z)|z|^power of every component; None or 1 leaves them.
    norm : {"l2", None}, default="l2"
        Normalisation of the whole vector. The plain Fisher vector is ``power=None, norm=None``.
    max_samples : int or None, default=500000
        Descriptors the mixture is learned on.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change a bit of the vectors or of the mixture.
    random_state : int, RandomState or None, default=None
        Seed of the mixture.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    gmm_ : mixture
        The learned or given mixture.
    n_dims_ : int
        Dimension of the descriptors.

    Notes
    -----
    With posteriors γ_ik, N descriptors, weights π_k and t = (x_i − μ_k) / σ_k:

    * weights: (Σ_i γ_ik / N − π_k) / √π_k, one number per component;
    * means: 1 / (N √π_k) Σ_i γ_ik t, component ``k * n_dims + d`` of their part;
    * variances: 1 / (N √(2 π_k)) Σ_i γ_ik (t² − 1), likewise.

    Options apply in a fixed order: gradients, signed power, L2; the norm is at least 1e-12. An image without features
    is a row of zeros.

    The layouts differ in three ways. "skimage" (``skimage.feature.fisher_vector``) begins with the gradients for the
    weights, and its gradients for the variances have the opposite sign. "vlfeat" (``vl_fisher``) takes posteriors below
    1e-6 for zero. In both, components of weight below 1e-6 get no posterior and are blocks of zeros, as in VLFeat.

    Posteriors and the sums over blocks of descriptors are float32, in coordinates in which the mixture has mean 0 and
    variance about 1, everything after them float64; components and descriptors for which that would lose digits are
    computed in float64 throughout, several times as slowly. Vectors agree with float64 arithmetic to 1e-5 as long as no
    posterior lies at the cut within rounding (with `fast`, no descriptor between two components).

    References
    ----------
    .. [1] F. Perronnin and C. Dance, "Fisher kernels on visual vocabularies for image categorization", CVPR 2007.
    .. [2] F. Perronnin, J. Sánchez and T. Mensink, "Improving the Fisher kernel for large-scale image
       classification", ECCV 2010, sections 3.1 and 3.2 (L2 and power).
    .. [3] J. Sánchez, F. Perronnin, T. Mensink and J. Verbeek, "Image classification with the Fisher vector: theory and
       practice", IJCV 105(3), 2013, equations 16 to 18.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import FisherVector
    >>> X = list(np.random.default_rng(0).normal(size=(4, 50, 8)))
    >>> FisherVector(n_components=3, random_state=0).fit_transform(X).shape
    (4, 48)
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        gmm: Any = None,
        gradients: tuple[str, ...] | None = None,
        layout: str = "vlfeat",
        fast: bool = False,
        power: float | None = 0.5,
        norm: str | None = "l2",
        max_samples: int | None = 500_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.gmm = gmm
        self.gradients = gradients
        self.layout = layout
        self.fast = fast
        self.power = power
        self.norm = norm
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> FisherVector:
        """Learn the mixture from `X`, or take the given one.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        if self.gmm is not None:
            self.gmm_ = resolve_gmm(self.gmm, self)
            n_dims = int(np.shape(self.gmm_.means_)[1])
            if not X.is_empty and X.n_dims != n_dims:
                raise dimension_mismatch("the gmm of FisherVector", X.n_dims, n_dims)
        else:
            if X.is_empty:
                raise ValueError("FisherVector cannot be fitted: none of the images has any descriptor.")
            gmm = GMMCodebook(
                self.n_components, max_samples=self.max_samples, n_jobs=self.n_jobs, random_state=self.random_state,
                verbose=self.verbose,
            )  # fmt: skip
            self.gmm_ = gmm.fit(X)
            n_dims = X.n_dims
        self.n_dims_ = n_dims
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Encode images.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            With descriptors of the dimension seen at fit.

        Returns
        -------
        ndarray of shape (n_images, n_features)
            float32, C-contiguous; n_features is 2 * n_components * n_dims with gradients for means and variances.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        check_is_fitted(self, "gmm_")
        self._check_parameters()
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        weights, means, variances = gmm_parameters(self.gmm_)
        cut = _MIN_POSTERIOR if self.layout == "vlfeat" else 0.0
        alive = np.where(weights < _MIN_WEIGHT, 0.0, weights)
        posteriors = GaussianPosteriors(alive, means, variances, self, cut=cut, one_hot=bool(self.fast))
        vectors = np.zeros((len(X), self._n_features_out), dtype=np.float32)

        def encode(block: slice) -> None:
            self._encode(X, block, posteriors.another(), weights, vectors)

        blocks = block_slices(len(X), _BLOCK_IMAGES)
        sizes = [block.stop - block.start for block in blocks]
        for _ in map_blocks(
            encode, blocks, n_jobs=self.n_jobs, weights=sizes, description="Fisher vectors", verbose=self.verbose
        ):
            pass
        return vectors

    def _encode(
        self,
        X: LocalFeatures,
        block: slice,
        posteriors: GaussianPosteriors,
        weights: NDArray[np.float64],
        vectors: NDArray[np.float32],
    ) -> None:
        """Write the vectors of a block of images; each image is computed from its own rows alone."""
        statistics = MixtureStatistics(posteriors)
        power = 1.0 if self.power is None else float(self.power)
        for i in range(block.start, block.stop):
            descriptors = X.descriptors[X.offsets[i] : X.offsets[i + 1]]
            if not len(descriptors):
                continue
            statistics.clear()
            for part in posteriors.blocks(descriptors, i):
                statistics.add(part)
            self._write_gradients(statistics, weights, vectors[i])
            normalize_gradients(vectors[i], power, self.norm == "l2")

    def _write_gradients(
        self, statistics: MixtureStatistics, weights: NDArray[np.float64], vector: NDArray[np.float32]
    ) -> None:
        zeroth, first, second = statistics.whitened()
        n, gradients = statistics.n_descriptors, self._chosen_gradients()
        if "weights" in gradients:
            weight_gradients(zeroth, weights, n, _MIN_WEIGHT, vector[: weights.size])
            vector = vector[weights.size :]
        if "means" in gradients:
            mean_gradients(first, weights, n, _MIN_WEIGHT, vector[: first.size])
            vector = vector[first.size :]
        if "variances" in gradients:
            sign = 1.0 if self.layout == "vlfeat" else -1.0
            variance_gradients(zeroth, second, weights, n, _MIN_WEIGHT, sign, vector)

    def _chosen_gradients(self) -> tuple[str, ...]:
        return _LAYOUTS[self.layout] if self.gradients is None else tuple(self.gradients)

    def _check_parameters(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True)
        check_choice(self, "layout", self.layout, tuple(_LAYOUTS))
        check_flag(self, "fast", self.fast)
        check_number(self, "power", self.power, low=0, low_open=True, optional=True)
        check_choice(self, "norm", self.norm, ("l2", None))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        given = self.gradients
        if given is not None and (
            not isinstance(given, (tuple, list))
            or not given
            or any(given.count(name) > 1 or name not in _GRADIENTS for name in given)
        ):
            raise ValueError(
                f"The 'gradients' parameter of FisherVector must be None or a tuple of some of "
                f"{', '.join(map(repr, _GRADIENTS))}. Got {given!r} instead."
            )

    def __sklearn_clone__(self) -> FisherVector:
        copy: FisherVector = super().__sklearn_clone__()
        # scikit-learn would clone the mixture as well, and a clone is not fitted.
        copy.gmm = self.gmm
        return copy

    @property
    def _n_features_out(self) -> int:
        n_components, n_dims = np.shape(self.gmm_.means_)
        widths = {"weights": 1, "means": n_dims, "variances": n_dims}
        return int(n_components * sum(widths[name] for name in self._chosen_gradients()))
