"""Geometric verification: one-to-one matches, and a transform that explains them."""

from cvretrieval.verification.matching import match_descriptors
from cvretrieval.verification.spatial import SpatialVerifier
from cvretrieval.verification.verification import Verification

__all__ = ["SpatialVerifier", "Verification", "match_descriptors"]
