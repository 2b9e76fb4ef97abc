"""Codebooks: visual words learned from local descriptors."""

from cvretrieval.codebooks.assignment import NearestWord, NearestWords, WordGaps
from cvretrieval.codebooks.k_majority import KMajorityCodebook
from cvretrieval.codebooks.kmeans import KMeansCodebook, resolve_codebook
from cvretrieval.codebooks.resolution import has_euclidean_words, resolve_words

__all__ = [
    "KMajorityCodebook",
    "KMeansCodebook",
    "NearestWord",
    "NearestWords",
    "WordGaps",
    "has_euclidean_words",
    "resolve_codebook",
    "resolve_words",
]
