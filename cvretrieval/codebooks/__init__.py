"""Codebooks: visual words learned from local descriptors."""

from cvretrieval.codebooks.approximate_words import ApproximateWords
from cvretrieval.codebooks.assignment import NearestWord, NearestWords
from cvretrieval.codebooks.given_mixture import gmm_parameters, resolve_gmm
from cvretrieval.codebooks.gmm import GMMCodebook
from cvretrieval.codebooks.hierarchical import VocabularyTree
from cvretrieval.codebooks.k_majority import KMajorityCodebook
from cvretrieval.codebooks.kmeans import KMeansCodebook, resolve_codebook
from cvretrieval.codebooks.posteriors import GaussianPosteriors, MixtureStatistics
from cvretrieval.codebooks.product_quantizer import ProductQuantizer
from cvretrieval.codebooks.resolution import has_euclidean_words, resolve_words
from cvretrieval.codebooks.soft_assignment import AllWords, SoftWords, learn_sigma

__all__ = [
    "AllWords",
    "ApproximateWords",
    "GMMCodebook",
    "GaussianPosteriors",
    "KMajorityCodebook",
    "KMeansCodebook",
    "MixtureStatistics",
    "NearestWord",
    "NearestWords",
    "ProductQuantizer",
    "SoftWords",
    "VocabularyTree",
    "gmm_parameters",
    "has_euclidean_words",
    "learn_sigma",
    "resolve_codebook",
    "resolve_gmm",
    "resolve_words",
]
