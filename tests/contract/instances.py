"""The one table of small instances that the contract suite runs on: a new estimator adds a line here."""

from __future__ import annotations

from sklearn.decomposition import PCA

from cvretrieval import (
    ASMK,
    ITQ,
    SIFT,
    SURF,
    VLAD,
    ApproximateWords,
    BagOfWords,
    ClassConditionalGMM,
    DenseSIFT,
    FisherVector,
    GMMCodebook,
    HammingEmbedding,
    HomogeneousKernelMap,
    KMajorityCodebook,
    KMeansCodebook,
    LearnedWhitening,
    MultipleVocabularies,
    OpenCVFeatures,
    Patches,
    PCAWhitening,
    PerDescriptor,
    PowerNormalizer,
    ProductQuantizer,
    SpatialCoordinates,
    SpatialPyramid,
    TfIdf,
    VocabularyTree,
    ZCAWhitening,
)

#: images → LocalFeatures
EXTRACTORS = {
    "SIFT": SIFT(max_features=60),
    "SIFT-root": SIFT(max_features=60, root=True),
    "SIFT-upright": SIFT(max_features=60, upright=True),
    "SURF": SURF(max_features=60),
    "SURF-extended": SURF(max_features=60, extended=True),
    "SURF-upright": SURF(max_features=60, upright=True),
    "DenseSIFT": DenseSIFT(),
    "OpenCVFeatures": OpenCVFeatures("AKAZE", options=(("threshold", 0.0005),)),
    "OpenCVFeatures-ORB": OpenCVFeatures("ORB", detector="FAST", max_features=60),
    "Patches": Patches(step=8),
    "Patches-random": Patches("random", n_patches=20, random_state=1),
    "Patches-keypoints": Patches("keypoints", extractor=SIFT(max_features=30)),
    "DenseSIFT-scales": DenseSIFT(step=5, scales=(1.0, 1.5), root=True, window="flat"),
}

#: LocalFeatures → LocalFeatures, by `transform`
PER_DESCRIPTOR = {
    "PerDescriptor": PerDescriptor(PCA(6, random_state=0), random_state=0),
    "SpatialCoordinates": SpatialCoordinates(weight=0.5),
}

#: LocalFeatures → one word per descriptor, by `predict`
CODEBOOKS = {
    "KMeansCodebook": KMeansCodebook(n_words=5, random_state=0),
    "KMeansCodebook-lloyd": KMeansCodebook(n_words=5, algorithm="lloyd", random_state=0),
    "KMeansCodebook-approximate": KMeansCodebook(
        n_words=5, algorithm="approximate", assignment="approximate", random_state=0
    ),
    "ApproximateWords": ApproximateWords(KMeansCodebook(n_words=5, random_state=0), random_state=0),
    "VocabularyTree": VocabularyTree(branching=5, depth=1, random_state=0),
    "VocabularyTree-deep": VocabularyTree(branching=5, depth=2, max_samples=100, random_state=0),
    "GMMCodebook": GMMCodebook(n_components=5, random_state=0),
    "GMMCodebook-random": GMMCodebook(n_components=5, init_params="random_from_data", n_init=2, random_state=0),
}

#: LocalFeatures of bytes → one word per descriptor, by `predict`
BINARY_CODEBOOKS = {"KMajorityCodebook": KMajorityCodebook(n_words=5, random_state=0)}

#: LocalFeatures → (n_images, n_features), by `transform`
ENCODERS = {
    "VLAD": VLAD(n_words=5, random_state=0),
    "VLAD-intra": VLAD(n_words=5, intra_norm=True, random_state=0),
    "VLAD-residual": VLAD(n_words=5, residual_norm=True, power=0.2, random_state=0),
    "VLAD-soft": VLAD(n_words=5, assignment="soft", n_nearest=2, random_state=0),
    "VLAD-soft-all": VLAD(n_words=5, assignment="soft", n_nearest=5, sigma=2.0, random_state=0),
    "VLAD-posterior": VLAD(n_words=5, assignment="posterior", mass_norm=True, random_state=0),
    "VLAD-local": VLAD(n_words=5, residual_norm=True, local_coordinates=True, power=0.2, random_state=0),
    "VLAD-adapted": VLAD(n_words=5, assignment="soft", adapt_centers=True, random_state=0),
    "VLAD-mass-plain": VLAD(n_words=5, mass_norm=True, power=None, norm=None, random_state=0),
    "MultipleVocabularies": MultipleVocabularies(VLAD(n_words=5), n_vocabularies=3, random_state=0),
    "MultipleVocabularies-sparse": MultipleVocabularies(BagOfWords(n_words=5, sparse=True), random_state=0),
    "BagOfWords": BagOfWords(n_words=5, random_state=0),
    "BagOfWords-soft": BagOfWords(n_words=5, assignment="soft", norm="l1", random_state=0),
    "BagOfWords-multiple-sparse": BagOfWords(
        n_words=5, assignment="multiple", n_nearest=2, norm=None, sparse=True, random_state=0
    ),
    "FisherVector": FisherVector(n_components=5, random_state=0),
    "FisherVector-skimage-plain": FisherVector(n_components=5, layout="skimage", power=None, norm=None, random_state=0),
    "FisherVector-fast-means": FisherVector(n_components=5, gradients=("means",), fast=True, random_state=0),
    "SpatialPyramid-BagOfWords": SpatialPyramid(BagOfWords(n_words=5, norm=None, random_state=0), norm="l1"),
    "SpatialPyramid-sparse": SpatialPyramid(BagOfWords(n_words=5, sparse=True, random_state=0), weights=None),
    "SpatialPyramid-VLAD": SpatialPyramid(VLAD(n_words=5, random_state=0), levels=((1, 1), (3, 1)), weights=(1, 0.5)),
}

#: LocalFeatures → VisualWords, by `transform`
WORD_ENCODERS = {
    "HammingEmbedding": HammingEmbedding(n_words=5, n_bits=12, random_state=0),
    "HammingEmbedding-plain": HammingEmbedding(n_words=5, n_bits=16, projection=None, random_state=0),
    "ASMK": ASMK(n_words=5, random_state=0),
    "ASMK-binary": ASMK(n_words=5, binary=True, n_query_words=2, random_state=0),
}

#: stages that need keypoints and image sizes
NEED_GEOMETRY = (SpatialCoordinates, SpatialPyramid)

#: plain 2-D transformers, which also run scikit-learn's own suite, some of it on two features
VECTOR_TRANSFORMERS = {
    "HomogeneousKernelMap": HomogeneousKernelMap(),
    "HomogeneousKernelMap-chi2": HomogeneousKernelMap("chi2", order=3, gamma=0.5, window="uniform"),
    "PowerNormalizer": PowerNormalizer(),
    "PCAWhitening": PCAWhitening(n_components=2),
    "ZCAWhitening": ZCAWhitening(),
    "LearnedWhitening": LearnedWhitening(n_components=2),
    "LearnedWhitening-shrunk": LearnedWhitening(shrinkage=0.1, norm=None),
    "PCAWhitening-shrunk": PCAWhitening(n_components=2, power=0.25, shrinkage=0.1, norm=None),
    "ProductQuantizer": ProductQuantizer(2, n_codewords=4, random_state=0),
    "ProductQuantizer-opq": ProductQuantizer(2, n_codewords=4, rotation="opq", random_state=0),
    "ITQ": ITQ(2, random_state=0),
    "TfIdf": TfIdf(),
    "TfIdf-stopped": TfIdf(term_frequency="count", norm=None, min_df=0.1, stop_top=0.05, stop_bottom=0.1),
}

#: LocalFeatures → one class per image, by `predict`
CLASSIFIERS = {
    "ClassConditionalGMM": ClassConditionalGMM(n_components=3, random_state=0),
    "ClassConditionalGMM-sum": ClassConditionalGMM(n_components=2, aggregation="sum", max_samples=50, random_state=0),
}
