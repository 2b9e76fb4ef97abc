"""Several vocabularies side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import hstack, issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvretrieval._base import LocalFeaturesInputMixin
from cvretrieval._validation import check_number
from cvretrieval.feature_chunks import check_feature_chunks
from cvretrieval.local_features import check_local_features


class MultipleVocabularies(LocalFeaturesInputMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode with several codebooks that differ in their seed, and concatenate (Jégou & Chum 2012).

    Parameters
    ----------
    encoder : encoder
        `VLAD`, `BagOfWords` or any other with a ``random_state`` that learns its codebook. Clones of it, each with a
        seed of its own, are fitted on the same features.
    n_vocabularies : int, default=4
        Number of codebooks.
    random_state : int, RandomState or None, default=None
        Where the seeds come from; the ``random_state`` of `encoder` is not used.

    Attributes
    ----------
    encoders_ : list of encoders
        The fitted clones.
    n_dims_ : int
        Dimension of the descriptors.

    Notes
    -----
    The vector is that of the first vocabulary, then that of the second, and so on, each normalised as the encoder does
    it. They say much the same of an image, so the concatenation is meant to be reduced and whitened jointly, which
    takes the correlation between vocabularies into account: a `PCAWhitening` after it, as in the example, with fewer
    components than there are images to learn from.

    This is what both papers below call multiple vocabularies. "MultiVLAD" in "All about VLAD" is something else: a
    vector for each of several regions of an image.

    References
    ----------
    .. [1] H. Jégou and O. Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
       whitening", ECCV 2012, section 4 (multiple vocabularies).
    .. [2] R. Arandjelović and A. Zisserman, "All about VLAD", CVPR 2013, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from cvretrieval import VLAD, MultipleVocabularies, PCAWhitening
    >>> X = list(np.random.default_rng(0).normal(size=(20, 50, 8)))
    >>> several = MultipleVocabularies(VLAD(n_words=3, power=None, intra_norm=True), n_vocabularies=2, random_state=0)
    >>> several.fit_transform(X).shape
    (20, 48)
    >>> make_pipeline(several, PCAWhitening(10)).fit_transform(X).shape
    (20, 10)
    """

    def __init__(self, encoder: Any, n_vocabularies: int = 4, *, random_state: Any = None) -> None:
        self.encoder = encoder
        self.n_vocabularies = n_vocabularies
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> MultipleVocabularies:
        """Fit a clone of the encoder for each vocabulary.

        `X` is LocalFeatures, a list of 2-D arrays, or an iterable of LocalFeatures: chunks. Every vocabulary passes
        over it anew, which an iterator does not allow.
        """
        check_number(self, "n_vocabularies", self.n_vocabularies, low=1, integer=True)
        parameters = self.encoder.get_params(deep=False)
        if "random_state" not in parameters or parameters.get("codebook", parameters.get("gmm")) is not None:
            raise ValueError(
                "The 'encoder' parameter of MultipleVocabularies must learn a codebook from a random_state: with "
                f"{type(self.encoder).__name__} as given, all vocabularies would be the same."
            )
        chunks = check_feature_chunks(X, estimator=self)
        if chunks.is_empty:
            raise ValueError("MultipleVocabularies cannot be fitted: none of the images has any descriptor.")
        random_state = check_random_state(self.random_state)
        seeds = random_state.randint(np.iinfo(np.int32).max, size=int(self.n_vocabularies)).tolist()
        self.encoders_ = [clone(self.encoder).set_params(random_state=seed).fit(chunks, y) for seed in seeds]
        self.n_dims_ = chunks.n_dims
        return self

    def transform(self, X: Any) -> Any:
        """Encode images.

        Parameters
        ----------
        X : LocalFeatures or list of 2-D arrays
            With descriptors of the dimension seen at fit.

        Returns
        -------
        ndarray or CSR matrix of shape (n_images, n_vocabularies * n_encoder_features)
            As the encoder returns.
        """
        check_is_fitted(self, "encoders_")
        X = check_local_features(X, n_dims=self.n_dims_, estimator=self)
        vectors = [encoder.transform(X) for encoder in self.encoders_]
        return hstack(vectors, format="csr") if issparse(vectors[0]) else np.concatenate(vectors, axis=1)

    @property
    def _n_features_out(self) -> int:
        return sum(len(encoder.get_feature_names_out()) for encoder in self.encoders_)
