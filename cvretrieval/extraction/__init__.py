"""Local features: images in, `LocalFeatures` out."""

from cvretrieval.extraction.dense import DenseSIFT
from cvretrieval.extraction.per_descriptor import PerDescriptor
from cvretrieval.extraction.sift import SIFT
from cvretrieval.extraction.spatial_coordinates import SpatialCoordinates
from cvretrieval.extraction.surf import SURF, SURFFeatures

__all__ = ["SIFT", "SURF", "DenseSIFT", "PerDescriptor", "SURFFeatures", "SpatialCoordinates"]
