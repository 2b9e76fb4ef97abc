"""Local features: images in, `LocalFeatures` out."""

from cvretrieval.extraction.per_descriptor import PerDescriptor
from cvretrieval.extraction.sift import SIFT

__all__ = ["SIFT", "PerDescriptor"]
