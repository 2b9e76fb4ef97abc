"""Gaussian mixtures as codebooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._parallel import block_slices, map_blocks, progress_bar
from cvretrieval._spread import Spread, Threads
from cvretrieval._validation import check_choice, check_number
from cvretrieval.codebooks.expectation_maximization import (
    Floors,
    Mixture,
    Moments,
    blend,
    expect,
    maximize,
    mean_log_likelihood,
)
from cvretrieval.codebooks.mixture_start import first_mixture
from cvretrieval.codebooks.posteriors import GaussianPosteriors, PosteriorBlock
from cvretrieval.feature_chunks import sample_descriptors
from cvretrieval.local_features import LocalFeatures, check_local_features
from cvretrieval.shared_sample import spread_sample

_BLOCK_IMAGES = 32


class GMMCodebook(LocalFeaturesInputMixin, DensityMixin, BaseEstimator):
    """Mixture of Gaussians with diagonal covariances, by expectation-maximisation: the codebook of Fisher vectors.

    Parameters
    ----------
    n_components : int, default=64
        Number of Gaussians.
    init_params : {"kmeans", "random_from_data"}, default="kmeans"
        Means to start with: words of `KMeansCodebook` on part of the descriptors, or descriptors drawn at random.
        Weights and variances to start with are those of the descriptors nearest to each.
    weights_init : array-like of shape (n_components,), optional
    means_init : array-like of shape (n_components, n_dims), optional
    covariances_init : array-like of shape (n_components, n_dims), optional
        To start with, instead of what `init_params` says. With all three the result is not random.
    max_samples : int or None, default=500000
        At most so many descriptors are used by `fit`, drawn without replacement; None takes all.
    max_iter : int, default=100
        Iterations, at most.
    tol : float, default=1e-5
        EM stops when the mean log-likelihood changes by less, relative to itself. (scikit-learn's is not relative.)
    min_covariance : float, default=1e-6
        Variances are at least this, in the square of the descriptors' unit.
    min_weight : float, default=1e-6
        Weights are at least this.
    min_posterior : float, default=0.0
        The M-step leaves out posteriors below ``min_posterior / n_components``. 0 is EM as in the literature; 0.01 is
        what VLFeat does.
    n_init : int, default=1
        Starts; the one with the highest log-likelihood is kept.
    step_decay : float, default=0.7
        Exponent α of the steps of `partial_fit`, in (0.5, 1]: with smaller ones the past is forgotten sooner.
    n_jobs : int, optional
        Threads over blocks of descriptors; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the sample and the starts.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        float64; they add up to 1.
    means_ : ndarray of shape (n_components, n_dims)
        float64.
    covariances_ : ndarray of shape (n_components, n_dims)
        Variances, float64.
    converged_ : bool
        Whether `tol` ended the iterations, and not `max_iter`.
    n_iter_ : int
        Iterations run, of the start that was kept.
    lower_bound_ : float
        Mean log-likelihood of the descriptors used, under the mixture returned. (scikit-learn's is that of the
        mixture before the last M-step.)
    n_dims_ : int
        Dimension of the descriptors.
    n_samples_ : int
        Number of descriptors used.
    n_empty_components_ : int
        Components whose weight is that of the floor: next to no descriptor belongs to them.
    n_steps_ : int
        Number of batches that `partial_fit` has seen; after `fit`, the iterations.

    Notes
    -----
    The mixture is p(x) = Σ_k w_k N(x; μ_k, diag σ²_k). Attributes are those of scikit-learn's ``GaussianMixture`` with
    ``covariance_type="diag"``, and so is every iteration, except where a floor applies: scikit-learn adds
    ``reg_covar`` to all variances. A component whose weight falls below the floor keeps its mean and variances and has
    the weight of the floor from then on, unless descriptors come back to it; where there are fewer distinct
    descriptors than components, a warning tells how many do. Dimensions that are constant have the least variance.
    So everything learned is finite.

    Posteriors are computed in float32, in coordinates in which the mixture has mean 0 and variance 1, and in float64
    where that would cost digits; sums over descriptors are float64. Beyond the descriptors, `fit` needs memory for a
    block of them. There is no ``cluster_centers_``: the most probable component is not the one with the nearest mean.

    Where `X` is ``ImageRetriever.iter_features()``, `fit` has its sums computed by the processes that
    ``joblib.parallel_config`` names, Dask's for example: the sample is the same, the mixture that of threads up to the
    order in which sums are added.

    `partial_fit` is stepwise EM: batch t moves the statistics s = (w, w μ, w (σ² + μ²)) by
    s ← (1 − η_t) s + η_t ŝ, η_t = (t + 2)^−α, ŝ those of the batch.

    References
    ----------
    .. [1] F. Perronnin and C. Dance, "Fisher kernels on visual vocabularies for image categorization", CVPR 2007.
    .. [2] O. Cappé and E. Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B 71(3),
       2009.
    .. [3] P. Liang and D. Klein, "Online EM for unsupervised models", NAACL 2009, section 3.2 (steps).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import GMMCodebook
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal([3, 3], 1, size=(50, 2)), rng.normal([12, 12], 2, size=(50, 2))]
    >>> gmm = GMMCodebook(n_components=2, random_state=0).fit(X)
    >>> np.sort(gmm.means_[:, 0]).round().tolist()
    [3.0, 12.0]
    >>> gmm.predict_proba(X).shape
    (100, 2)
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        covariances_init: ArrayLike | None = None,
        max_samples: int | None = 500_000,
        max_iter: int = 100,
        tol: float = 1e-5,
        min_covariance: float = 1e-6,
        min_weight: float = 1e-6,
        min_posterior: float = 0.0,
        n_init: int = 1,
        step_decay: float = 0.7,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.covariances_init = covariances_init
        self.max_samples = max_samples
        self.max_iter = max_iter
        self.tol = tol
        self.min_covariance = min_covariance
        self.min_weight = min_weight
        self.min_posterior = min_posterior
        self.n_init = n_init
        self.step_decay = step_decay
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> GMMCodebook:
        """Learn the mixture from the descriptors of `X`.

        Parameters
        ----------
        X : LocalFeatures, list of 2-D arrays, or iterable of LocalFeatures
            Images, or chunks of them, of which one after the other is in memory, beside the sample.
        y : ignored

        Raises
        ------
        ValueError
            If none of the images has a descriptor, or one of the sample is NaN or infinite; the message names the
            image.
        """
        self._check_parameters()
        random_state = check_random_state(self.random_state)
        sample = spread_sample(X, self.max_samples, random_state, n_jobs=self.n_jobs, estimator=self)
        with sample as (rows, spread):
            runs = (self._learn(rows, self._start(rows, random_state), spread) for _ in range(int(self.n_init)))
            mixture, self.lower_bound_, self.n_iter_, self.converged_ = max(runs, key=lambda run: run[1])
            self._keep(mixture, rows)
        self.n_steps_ = self.n_iter_
        self._warn_of_empty_components()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> GMMCodebook:
        """Move the mixture towards the descriptors of `X`, one batch of a stream (stepwise EM).

        The first batch also starts the mixture, as `fit` does, so it should hold many more descriptors than there are
        components. A batch without descriptors changes nothing.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            A few thousand descriptors, at least; all of them are used. Batches should be alike: images in random order.
        y : ignored

        Raises
        ------
        ValueError
            If the descriptors have another dimension than before, or are NaN or infinite; the message names the image.
        """
        self._check_parameters()
        is_first = not hasattr(self, "means_")
        X = check_local_features(X, n_dims=None if is_first else self.n_dims_, estimator=self)
        if X.n_descriptors == 0:
            return self
        random_state = check_random_state(self.random_state)
        rows = sample_descriptors(X, None, random_state, estimator=self)
        mixture = self._start(rows, random_state) if is_first else self._mixture()
        n_steps = 0 if is_first else self.n_steps_
        moments = self._expect(rows, mixture, Threads(self.n_jobs))
        blended = blend(mixture, moments.mixture, (n_steps + 2.0) ** -float(self.step_decay))
        self._keep(maximize(blended, mixture, self._floors()), rows)
        self.lower_bound_ = moments.log_likelihood
        self.n_iter_ = self.n_steps_ = n_steps + 1
        self.converged_ = False
        if is_first:
            self._warn_of_empty_components()
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Return the most probable component of every descriptor of every image, int32 of shape (n_descriptors,).

        Ties go to the lowest. Here and below, the descriptors of one image follow those of the image before.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
            So of all methods below.
        """
        X = self._check_features(X)
        components = np.empty(X.n_descriptors, dtype=np.int32)

        def fill(rows: slice, block: PosteriorBlock) -> None:
            components[rows] = block.posteriors.argmax(axis=0)

        self._each_block(X, fill)
        return components

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the posteriors of all components, float32 of shape (n_descriptors, n_components)."""
        X = self._check_features(X)
        posteriors = np.empty((X.n_descriptors, len(self.weights_)), dtype=np.float32)

        def fill(rows: slice, block: PosteriorBlock) -> None:
            posteriors[rows] = block.posteriors.T

        self._each_block(X, fill)
        return posteriors

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return the log-likelihood log p(x) of every descriptor, of shape (n_descriptors,)."""
        X = self._check_features(X)
        log_likelihood = np.empty(X.n_descriptors)

        def fill(rows: slice, block: PosteriorBlock) -> None:
            log_likelihood[rows] = block.log_likelihood

        self._each_block(X, fill)
        return log_likelihood

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the descriptors.

        Raises
        ------
        ValueError
            If there are none.
        """
        log_likelihood = self.score_samples(X)
        if not len(log_likelihood):
            raise ValueError("GMMCodebook cannot score X: none of the images has any descriptor.")
        return float(log_likelihood.mean())

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion on `X`, −2 log L + p log n with p parameters: less is better."""
        X = self._check_features(X)
        return -2 * self.score(X) * X.n_descriptors + self._n_parameters() * float(np.log(X.n_descriptors))

    def aic(self, X: Any) -> float:
        """Return the Akaike information criterion on `X`, −2 log L + 2 p with p parameters: less is better."""
        X = self._check_features(X)
        return -2 * self.score(X) * X.n_descriptors + 2 * self._n_parameters()

    @property
    def n_words(self) -> int:
        """Number of components: `BagOfWords` takes the mixture for a codebook whose words are given by `predict`."""
        return int(self.n_components)

    def _check_features(self, X: Any) -> LocalFeatures:
        check_is_fitted(self, "means_")
        return check_local_features(X, n_dims=self.n_dims_, estimator=self)

    def _each_block(self, X: LocalFeatures, use: Callable[[slice, PosteriorBlock], None]) -> None:
        """Call `use` with rows and posteriors, block by block; every image is computed from its own rows alone."""

        def run(images: slice) -> None:
            posteriors = GaussianPosteriors(*self._mixture(), self)
            for i in range(images.start, images.stop):
                start = int(X.offsets[i])
                for block in posteriors.blocks(X.descriptors[start : int(X.offsets[i + 1])], i):
                    use(slice(start, start + len(block.rows)), block)
                    start += len(block.rows)

        for _ in map_blocks(run, block_slices(len(X), _BLOCK_IMAGES), n_jobs=self.n_jobs):
            pass

    def _start(self, rows: NDArray[Any], random_state: np.random.RandomState) -> Mixture:
        given = {name: getattr(self, name) for name in ("weights_init", "means_init", "covariances_init")}
        start = first_mixture(rows, int(self.n_components), self.init_params, given, random_state, owner=self)
        return maximize(start, start, self._floors())

    def _learn(self, rows: NDArray[Any], mixture: Mixture, spread: Spread) -> tuple[Mixture, float, int, bool]:
        """Return mixture, its mean log-likelihood, the number of iterations, and whether they came to an end."""
        n_iter, previous, floors = 0, -np.inf, self._floors()
        bar = progress_bar(total=int(self.max_iter), description="mixture", unit="iteration", verbose=self.verbose)
        with closing(bar):
            while n_iter < self.max_iter:
                moments = self._expect(rows, mixture, spread)
                if abs(moments.log_likelihood - previous) < self.tol * abs(moments.log_likelihood):
                    return mixture, moments.log_likelihood, n_iter, True
                mixture = maximize(moments.mixture, mixture, floors)
                previous = moments.log_likelihood
                n_iter += 1
                bar.update(1)
        log_likelihood = mean_log_likelihood(rows, mixture, spread=spread, owner=type(self).__name__)
        converged = abs(log_likelihood - previous) < self.tol * abs(log_likelihood)
        return mixture, log_likelihood, n_iter, bool(converged)

    def _expect(self, rows: NDArray[Any], mixture: Mixture, spread: Spread) -> Moments:
        cut = float(self.min_posterior) / len(mixture.weights)
        return expect(rows, mixture, min_posterior=cut, spread=spread, owner=type(self).__name__)

    def _floors(self) -> Floors:
        return Floors(float(self.min_covariance), float(self.min_weight))

    def _mixture(self) -> Mixture:
        return Mixture(self.weights_, self.means_, self.covariances_)

    def _keep(self, mixture: Mixture, rows: NDArray[Any]) -> None:
        self.weights_, self.means_, self.covariances_ = mixture
        self.n_samples_, self.n_dims_ = rows.shape
        self.n_empty_components_ = int(np.count_nonzero(mixture.weights <= self.min_weight))

    def _n_parameters(self) -> int:
        return len(self.weights_) - 1 + 2 * self.means_.size

    def _warn_of_empty_components(self) -> None:
        if self.n_empty_components_:
            warnings.warn(
                f"{self.n_empty_components_} of n_components={self.n_components} components are empty: too many for "
                f"this sample of {self.n_samples_} descriptors.",
                UserWarning,
                stacklevel=3,
            )

    def _check_parameters(self) -> None:
        check_number(self, "n_components", self.n_components, low=1, integer=True)
        check_choice(self, "init_params", self.init_params, ("kmeans", "random_from_data"))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        check_number(self, "max_iter", self.max_iter, low=1, integer=True)
        check_number(self, "tol", self.tol, low=0)
        check_number(self, "min_covariance", self.min_covariance, low=0, low_open=True)
        check_number(self, "min_weight", self.min_weight, low=0, high=1 / max(int(self.n_components), 1), low_open=True)
        check_number(self, "min_posterior", self.min_posterior, low=0, high=1)
        check_number(self, "n_init", self.n_init, low=1, integer=True)
        check_number(self, "step_decay", self.step_decay, low=0.5, high=1, low_open=True)
