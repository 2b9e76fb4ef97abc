"""Vector of locally aggregated descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._kernels.vlad import normalize_vlad, rotate_blocks
from cvretrieval._parallel import block_slices, map_blocks, single_threaded
from cvretrieval._validation import check_choice, check_flag, check_number, dimension_mismatch
from cvretrieval.codebooks import GMMCodebook, KMeansCodebook, learn_sigma, resolve_codebook, resolve_gmm
from cvretrieval.encoders.descriptor_votes import DescriptorVotes, Voter, hard_voter, posterior_voter, soft_voter
from cvretrieval.encoders.local_coordinates import learn_rotations
from cvretrieval.encoders.residual_sums import ResidualSums
from cvretrieval.feature_chunks import FeatureChunks, check_feature_chunks, sample_descriptors
from cvretrieval.local_features import LocalFeatures, check_local_features

_BLOCK_IMAGES = 32


class VLAD(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Vector of locally aggregated descriptors (VLAD, Jégou et al. 2010), with the variants published since.

    Each descriptor is assigned to its nearest word, or to several with weights; the residuals x − c_k of each word are
    added up, normalised and concatenated.

    Parameters
    ----------
    n_words : int, default=64
        Words of the codebook that `fit` learns; ignored if `codebook` is given.
    codebook : fitted clusterer or mixture, optional
        Anything with ``cluster_centers_`` (`KMeansCodebook`, scikit-learn's ``KMeans``); for ``assignment="posterior"``
        a Gaussian mixture with diagonal covariances (`GMMCodebook`, scikit-learn's ``GaussianMixture``). Kept as it is,
        by `fit` and when cross-validation clones the encoder.
    assignment : {"hard", "soft", "posterior"}, default="hard"
        "hard": a descriptor counts 1 for its nearest word. "soft": its `n_nearest` words share the count 1 in
        proportion to exp(−d²/2σ²). "posterior": all words share it, by their posterior probabilities in a Gaussian
        mixture; words are the means.
    n_nearest : int, default=3
        Words of a descriptor in soft assignment; at most as many as the codebook has are used.
    sigma : float or None, default=None
        σ of the soft assignment, in the unit of the descriptors. None learns it at fit, as `BagOfWords` does.
    adapt_centers : bool, default=False
        Subtract, instead of a word, the mean of the descriptors seen by `fit` that are assigned to the word (cluster
        centre adaptation): for a codebook learned on other images than those to be searched.
    residual_norm : bool, default=False
        L2-normalise each residual before it is added (RN).
    local_coordinates : bool, default=False
        Rotate the residuals of each word to the principal directions that its residuals had at fit (local coordinate
        system, LCS). Matters only with a `power`: use 0.2, as the paper does.
    mass_norm : bool, default=False
        Divide the block of each word by its number of descriptors, or the sum of their weights.
    power : float or None, default=0.5
        Signed power sign(z)|z|^power of every component; None or 1 leaves them.
    intra_norm : bool, default=False
        L2-normalise the block of each word (intra-normalisation).
    norm : {"l2", None}, default="l2"
        Normalisation of the whole vector.
    max_samples : int or None, default=100000
        Descriptors the codebook is learned on, and the local coordinates.
    n_jobs : int, optional
        Threads over blocks of images; the number does not change a bit of the result.
    random_state : int, RandomState or None, default=None
        Seed of the codebook and of the sample for the local coordinates.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Attributes
    ----------
    codebook_ : clusterer or mixture
        The learned or given codebook.
    n_dims_ : int
        Dimension of the descriptors.
    sigma_ : float
        σ used by soft assignment; only there.
    centers_ : ndarray of shape (n_words, n_dims)
        What is subtracted, float32; only with `adapt_centers`.
    rotations_ : ndarray of shape (n_words, n_dims, n_dims)
        The directions of each word as rows, by decreasing variance, float32; only with `local_coordinates`.

    Notes
    -----
    With q_ik the share of word k in descriptor i, v_k = Σ_i q_ik (x_i − c_k); the mass of the word is Σ_i q_ik. The
    vector is word-major: component ``k * n_dims + d`` belongs to word k. Options apply in a fixed order: residual
    normalisation, sum, rotation, mass, signed power, per-word L2, global L2; every norm is at least 1e-12. So the power
    comes before the intra-normalisation, as in VLFeat; "All about VLAD" has no power at all (``power=None,
    intra_norm=True``). An image without features is a row of zeros; words without descriptors are blocks of zeros.

    RN + LCS of Delhumeau et al. is ``residual_norm=True, local_coordinates=True, power=0.2``. The directions are those
    of the residuals as they are added, so of unit residuals with `residual_norm`, about their mean, each descriptor
    with its nearest or most probable word. A word with fewer than n_dims descriptors at fit takes the directions of all
    words' residuals together. A rotation is linear, so it is the sums that are rotated: one product of n_dims × n_dims
    for each word that has descriptors, however many these are.

    Cluster centre adaptation is that of "All about VLAD": descriptors stay with the words they are assigned to by the
    codebook; only the points that are subtracted move. Fit on the images to be searched, with a given `codebook`. With
    weights the mean is weighted; a word that no descriptor is assigned to stays. Several codebooks:
    `MultipleVocabularies`.

    float32 throughout: vectors agree with float64 arithmetic to about 1e-6 as long as no descriptor lies between two
    words within rounding. By posteriors and power or intra-normalisation, words
    that are all but improbable for all descriptors of an image get blocks like any other: as in VLFeat, whose
    assignments are cut nowhere.

    References
    ----------
    .. [1] H. Jégou, M. Douze, C. Schmid and P. Pérez, "Aggregating local descriptors into a compact image
       representation", CVPR 2010, equation 1.
    .. [2] R. Arandjelović and A. Zisserman, "All about VLAD", CVPR 2013, sections 3.1 (cluster centre adaptation) and
       3.2 (intra-normalisation).
    .. [3] J. Delhumeau, P.-H. Gosselin, H. Jégou and P. Pérez, "Revisiting the VLAD image representation",
       ACM Multimedia 2013 (residual normalisation, local coordinate system).
    .. [4] J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, "Lost in quantization: improving particular object
       retrieval in large scale image databases", CVPR 2008, section 3.1 (soft assignment).

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import VLAD
    >>> X = list(np.random.default_rng(0).normal(size=(4, 50, 8)))
    >>> VLAD(n_words=3, random_state=0).fit_transform(X).shape
    (4, 24)
    >>> soft = VLAD(n_words=3, assignment="soft", n_nearest=2, random_state=0).fit(X)
    >>> rotated = VLAD(n_words=3, residual_norm=True, local_coordinates=True, power=0.2, random_state=0).fit(X)
    >>> rotated.rotations_.shape
    (3, 8, 8)
    """

    def __init__(
        self,
        n_words: int = 64,
        *,
        codebook: Any = None,
        assignment: str = "hard",
        n_nearest: int = 3,
        sigma: float | None = None,
        adapt_centers: bool = False,
        residual_norm: bool = False,
        local_coordinates: bool = False,
        mass_norm: bool = False,
        power: float | None = 0.5,
        intra_norm: bool = False,
        norm: str | None = "l2",
        max_samples: int | None = 100_000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_words = n_words
        self.codebook = codebook
        self.assignment = assignment
        self.n_nearest = n_nearest
        self.sigma = sigma
        self.adapt_centers = adapt_centers
        self.residual_norm = residual_norm
        self.local_coordinates = local_coordinates
        self.mass_norm = mass_norm
        self.power = power
        self.intra_norm = intra_norm
        self.norm = norm
        self.max_samples = max_samples
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> VLAD:
        """Learn the codebook from `X`, or take the given one; then σ, adapted centres and rotations, as asked.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks, read one after the other.
        Each of the things learned is one pass over it; an iterator allows one.
        """
        self._check_parameters()
        X = check_feature_chunks(X, estimator=self)
        if self.codebook is not None:
            is_mixture = self.assignment == "posterior"
            self.codebook_ = (
                resolve_gmm(self.codebook, self, "codebook") if is_mixture else resolve_codebook(self.codebook, self)
            )
            n_dims = self._words().shape[1]
            if not X.is_empty and X.n_dims != n_dims:
                raise dimension_mismatch("the codebook of VLAD", X.n_dims, n_dims)
        if X.is_empty and (self.codebook is None or self.adapt_centers or self.local_coordinates):
            raise ValueError("VLAD cannot be fitted: none of the images has any descriptor.")
        if self.codebook is None:
            options = {"max_samples": self.max_samples, "random_state": self.random_state}
            make: Any = KMeansCodebook if self.assignment != "posterior" else GMMCodebook
            self.codebook_ = make(self.n_words, **options).fit(X)
        self.n_dims_ = self._words().shape[1]
        if self.assignment == "soft":
            self.sigma_ = float(self.sigma) if self.sigma is not None else learn_sigma(X, self._words(), self)
        if self.adapt_centers:
            self.centers_ = self._adapt(X)
        if self.local_coordinates:
            self.rotations_ = self._learn_rotations(X)
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
        X = self._check(X)
        centers = self._centers()
        vectors = np.zeros((len(X), *centers.shape), dtype=np.float32)

        def encode(block: slice) -> None:
            masses = self._add_residuals(X, block, centers, self.residual_norm, vectors[block])
            self._normalize(vectors[block], masses)

        self._map(encode, len(X))
        return vectors.reshape(len(X), centers.size)

    def assign(self, X: Any) -> DescriptorVotes:
        """Return the descriptors with the words that each votes for, and the weights of these votes.

        `transform` is `pool` of these votes. Whoever needs the vectors of several groupings of the same descriptors,
        such as `SpatialPyramid`, assigns once and pools often.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays

        Returns
        -------
        DescriptorVotes
        """
        X = self._check(X)
        n_words = len(self._words())
        everything = self._votes_for_all(n_words)
        width = 1 if self.assignment == "hard" else n_words if everything else int(self.n_nearest)
        words = None if everything else np.empty((X.n_descriptors, width), dtype=np.int32)
        weights = None if self.assignment == "hard" else np.empty((X.n_descriptors, width), dtype=np.float32)

        def vote(block: slice) -> None:
            voter = self._voter()
            for i in range(block.start, block.stop):
                start = int(X.offsets[i])
                for votes in voter(X.descriptors[start : X.offsets[i + 1]], i):
                    rows = slice(start, start + len(votes.descriptors))
                    if words is not None:
                        words[rows] = votes.words
                    if weights is not None:
                        weights[rows] = votes.weights
                    start = rows.stop

        self._map(vote, len(X))
        return DescriptorVotes(X.descriptors, words, weights)

    def pool(self, votes: DescriptorVotes, offsets: Any) -> NDArray[np.float32]:
        """Return the vectors of groups of votes.

        Parameters
        ----------
        votes : DescriptorVotes
            As `assign` returns, in any order.
        offsets : ndarray of shape (n_groups + 1,)
            Group i owns the votes ``offsets[i]:offsets[i + 1]``.

        Returns
        -------
        ndarray of shape (n_groups, n_words * n_dims)
        """
        check_is_fitted(self, self._learned())
        centers, offsets = self._centers(), np.ascontiguousarray(offsets, dtype=np.int64)
        vectors = np.zeros((len(offsets) - 1, *centers.shape), dtype=np.float32)

        def encode(block: slice) -> None:
            residuals, masses = ResidualSums(centers, self.residual_norm), np.zeros((len(vectors[block]), len(centers)))
            for i in range(block.start, block.stop):
                for part in votes.take(slice(offsets[i], offsets[i + 1])).blocks():
                    residuals.add(part, vectors[i], masses[i - block.start])
            self._normalize(vectors[block], masses)

        self._map(encode, len(vectors))
        return vectors.reshape(len(vectors), centers.size)

    def _check(self, X: Any) -> LocalFeatures:
        check_is_fitted(self, self._learned())
        self._check_parameters()
        return check_local_features(X, n_dims=self.n_dims_, estimator=self)

    def _learned(self) -> list[str]:
        """Names of the attributes that the options need."""
        needed = {"sigma_": self.assignment == "soft", "centers_": self.adapt_centers,
                  "rotations_": self.local_coordinates}  # fmt: skip
        return ["codebook_", *(name for name, is_needed in needed.items() if is_needed)]

    def _map(self, function: Any, n_images: int) -> None:
        blocks = block_slices(n_images, _BLOCK_IMAGES)
        weights = [block.stop - block.start for block in blocks]
        for _ in map_blocks(
            function, blocks, n_jobs=self.n_jobs, weights=weights, description="VLAD", verbose=self.verbose
        ):
            pass

    def _words(self) -> NDArray[np.float32]:
        """Return the words of the codebook: what descriptors are assigned to."""
        words = self.codebook_.means_ if self.assignment == "posterior" else self.codebook_.cluster_centers_
        return np.ascontiguousarray(words, dtype=np.float32)

    def _centers(self) -> NDArray[np.float32]:
        """Return what is subtracted."""
        return self.centers_ if self.adapt_centers else self._words()

    def _votes_for_all(self, n_words: int) -> bool:
        return self.assignment == "posterior" or (self.assignment == "soft" and self.n_nearest >= n_words)

    def _voter(self) -> Voter:
        if self.assignment == "posterior":
            return posterior_voter(self.codebook_, self)
        if self.assignment == "soft":
            return soft_voter(self._words(), int(self.n_nearest), self.sigma_, self)
        return hard_voter(self._words(), self)

    def _add_residuals(
        self, X: LocalFeatures, block: slice, centers: NDArray[Any], unit: bool, sums: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Add up the residuals of a block of images and return the masses; each image is computed from its own rows."""
        voter, residuals = self._voter(), ResidualSums(centers, unit)
        masses = np.zeros((len(sums), len(centers)))
        for i in range(block.start, block.stop):
            for votes in voter(X.descriptors[X.offsets[i] : X.offsets[i + 1]], i):
                residuals.add(votes, sums[i - block.start], masses[i - block.start])
        return masses

    def _normalize(self, vectors: NDArray[np.float32], masses: NDArray[np.float64]) -> None:
        if self.local_coordinates:
            rotate_blocks(self.rotations_, masses, vectors)
        power = 1.0 if self.power is None else float(self.power)
        for vector, mass in zip(vectors, masses, strict=True):
            normalize_vlad(vector, mass, self.mass_norm, power, self.intra_norm, self.norm == "l2")

    def _adapt(self, X: FeatureChunks) -> NDArray[np.float32]:
        """Return the means of the descriptors assigned to each word, over all of `X`."""
        words = self._words()
        sums, masses = np.zeros(words.shape), np.zeros(len(words))
        for chunk in X:

            def add(block: slice, chunk: LocalFeatures = chunk) -> tuple[NDArray[Any], NDArray[Any]]:
                parts = np.zeros((block.stop - block.start, *words.shape), dtype=np.float32)
                part_masses = self._add_residuals(chunk, block, words, False, parts)
                return parts.sum(axis=0, dtype=np.float64), part_masses.sum(axis=0)

            for part, mass in map_blocks(add, block_slices(len(chunk), _BLOCK_IMAGES), n_jobs=self.n_jobs):
                sums += part
                masses += mass
        means = np.divide(sums, masses[:, None], out=np.zeros(words.shape), where=masses[:, None] > 0)
        return (words + means).astype(np.float32)

    def _learn_rotations(self, X: FeatureChunks) -> NDArray[np.float32]:
        rows = sample_descriptors(X, self.max_samples, check_random_state(self.random_state), estimator=self)
        with single_threaded():
            words = np.concatenate([votes.best_words() for votes in self._voter()(rows, 0)])
        return learn_rotations(rows, words, self._centers(), self.residual_norm)

    def _check_parameters(self) -> None:
        check_number(self, "n_words", self.n_words, low=1, integer=True)
        check_choice(self, "assignment", self.assignment, ("hard", "soft", "posterior"))
        check_number(self, "n_nearest", self.n_nearest, low=1, integer=True)
        check_number(self, "sigma", self.sigma, low=0, low_open=True, optional=True)
        check_number(self, "power", self.power, low=0, low_open=True, optional=True)
        check_choice(self, "norm", self.norm, ("l2", None))
        check_number(self, "max_samples", self.max_samples, low=1, integer=True, optional=True)
        for flag in ("adapt_centers", "residual_norm", "local_coordinates", "mass_norm", "intra_norm"):
            check_flag(self, flag, getattr(self, flag))

    def __sklearn_clone__(self) -> VLAD:
        copy: VLAD = super().__sklearn_clone__()
        # scikit-learn would clone the codebook as well, and a clone is not fitted.
        copy.codebook = self.codebook
        return copy

    @property
    def _n_features_out(self) -> int:
        return int(self._words().size)
