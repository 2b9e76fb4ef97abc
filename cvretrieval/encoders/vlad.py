"""Vector of locally aggregated descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.vlad import aggregate_residuals, aggregate_unit_residuals, normalize_vlad
from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._validation import check_choice, check_flag, check_number, dimension_mismatch
from cvretrieval.codebooks import KMeansCodebook, NearestWord, resolve_codebook
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import LocalFeatures, check_local_features

_BLOCK_IMAGES = 32


class VLAD(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Vector of locally aggregated descriptors (VLAD, Jégou et al. 2010).

    Each descriptor is assigned to its nearest word; the residuals x − c_k of each word are added up, normalised and
    concatenated.

    Parameters
    ----------
    n_words : int, default=64
        Words of the codebook that `fit` learns; ignored if `codebook` is given.
    codebook : fitted clusterer, optional
        Anything with ``cluster_centers_`` (`KMeansCodebook`, scikit-learn's ``KMeans``); kept as it is, by `fit` and
        when cross-validation clones the encoder.
    power : float or None, default=0.5
        Signed power sign(z)|z|^power of every component; None or 1 leaves them.
    intra_norm : bool, default=False
        L2-normalise the block of each word (intra-normalisation).
    residual_norm : bool, default=False
        L2-normalise each residual before it is added.
    mass_norm : bool, default=False
        Divide the block of each word by its number of descriptors.
    norm : {"l2", None}, default="l2"
        Normalisation of the whole vector.
    max_samples : int or None, default=100000
        Descriptors the codebook is learned on.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the codebook.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    codebook_ : clusterer
        The learned or given codebook.
    n_dims_ : int
        Dimension of the descriptors.

    Notes
    -----
    The vector is word-major: component ``k * n_dims + d`` belongs to word k. Options apply in a fixed order: residual
    normalisation, sum, mass, signed power, per-word L2, global L2; every norm is at least 1e-12. So the power comes
    before the intra-normalisation, as in VLFeat; "All about VLAD" has no power at all (``power=None,
    intra_norm=True``). An image without features is a row of zeros; words without descriptors are blocks of zeros.

    float32 throughout: vectors agree with float64 arithmetic to about 1e-6 as long as no descriptor lies between two
    words within rounding.

    References
    ----------
    .. [1] H. Jégou, M. Douze, C. Schmid and P. Pérez, "Aggregating local descriptors into a compact image
       representation", CVPR 2010, equation 1.
    .. [2] R. Arandjelović and A. Zisserman, "All about VLAD", CVPR 2013, section 3.2 (intra-normalisation).
    .. [3] J. Delhumeau, P.-H. Gosselin, H. Jégou and P. Pérez, "Revisiting the VLAD image representation",
       ACM Multimedia 2013, section 3 (residual normalisation).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import VLAD
    >>> X = list(np.random.default_rng(0).normal(size=(4, 50, 8)))
    >>> VLAD(n_words=3, random_state=0).fit_transform(X).shape
    (4, 24)
    """

    def __init__(
        self,
        n_words: int = 64,
        *,
        codebook: Any = None,
        power: float | None = 0.5,
        intra_norm: bool = False,
        residual_norm: bool = False,
        mass_norm: bool = False,
        norm: str | None = "l2",
        max_samples: int | None = 100_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_words = n_words
        self.codebook = codebook
        self.power = power
        self.intra_norm = intra_norm
        self.residual_norm = residual_norm
        self.mass_norm = mass_norm
        self.norm = norm
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> VLAD:
        """Learn the codebook from `X`, or take the given one.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        if self.codebook is not None:
            self.codebook_ = resolve_codebook(self.codebook, self)
            n_dims = int(np.shape(self.codebook_.cluster_centers_)[1])
            if not X.is_empty and X.n_dims != n_dims:
                raise dimension_mismatch("the codebook of VLAD", X.n_dims, n_dims)
        else:
            if X.is_empty:
                raise ValueError("VLAD cannot be fitted: none of the images has any descriptor.")
            codebook = KMeansCodebook(self.n_words, max_samples=self.max_samples, random_state=self.random_state)
            self.codebook_ = codebook.fit(X)
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
        ndarray of shape (n_images, n_words * n_dims)
            float32, C-contiguous.

        Raises
        ------
        ValueError
            If the descriptors have another dimension than at fit, or are NaN or infinite; the message names the image.
        """
        check_is_fitted(self, "codebook_")
        self._check_parameters()
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        centers = np.ascontiguousarray(self.codebook_.cluster_centers_, dtype=np.float32)
        vectors = np.zeros((len(X), *centers.shape), dtype=np.float32)

        def encode(block: slice) -> None:
            self._encode(X, block, centers, vectors)

        blocks = block_slices(len(X), _BLOCK_IMAGES)
        weights = [block.stop - block.start for block in blocks]
        for _ in map_blocks(
            encode, blocks, n_jobs=self.n_jobs, weights=weights, description="VLAD", verbose=self.verbose
        ):
            pass
        return vectors.reshape(len(X), centers.size)

    def _encode(self, X: LocalFeatures, block: slice, centers: NDArray[Any], vectors: NDArray[np.float32]) -> None:
        """Write the vectors of a block of images; each image is computed from its own rows alone."""
        nearest = NearestWord(centers, self)
        aggregate = aggregate_unit_residuals if self.residual_norm else aggregate_residuals
        power = 1.0 if self.power is None else float(self.power)
        counts = np.empty(len(centers), dtype=np.int64)
        for i in range(block.start, block.stop):
            descriptors = X.descriptors[X.offsets[i] : X.offsets[i + 1]]
            if not len(descriptors):
                continue
            counts[:] = 0
            for rows, words in nearest.blocks(descriptors, i):
                aggregate(rows, words, centers, vectors[i], counts)
            normalize_vlad(vectors[i], counts, self.mass_norm, power, self.intra_norm, self.norm == "l2")

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_number(self, "power", self.power, low=0, low_open=True, optional=True)
        check_choice(self, "norm", self.norm, ("l2", None))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        for flag in ("intra_norm", "residual_norm", "mass_norm"):
            check_flag(self, flag, getattr(self, flag))

    def __sklearn_clone__(self) -> VLAD:
        copy: VLAD = super().__sklearn_clone__()
        # scikit-learn would clone the codebook as well, and a clone is not fitted.
        copy.codebook = self.codebook
        return copy

    @property
    def _n_features_out(self) -> int:
        return int(np.size(self.codebook_.cluster_centers_))
