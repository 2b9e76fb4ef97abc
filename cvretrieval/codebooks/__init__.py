"""Codebooks: visual words learned from local descriptors."""

from cvretrieval.codebooks.assignment import NearestWord
from cvretrieval.codebooks.kmeans import KMeansCodebook, resolve_codebook

__all__ = ["KMeansCodebook", "NearestWord", "resolve_codebook"]
