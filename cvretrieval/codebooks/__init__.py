"""Codebooks: visual words learned from local descriptors."""

from cvretrieval.codebooks.assignment import NearestWord, NearestWords
from cvretrieval.codebooks.kmeans import KMeansCodebook, resolve_codebook
from cvretrieval.codebooks.resolution import has_euclidean_words, resolve_words

__all__ = ["KMeansCodebook", "NearestWord", "NearestWords", "has_euclidean_words", "resolve_codebook", "resolve_words"]
