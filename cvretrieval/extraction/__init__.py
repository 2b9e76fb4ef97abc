"""Local features: images in, `LocalFeatures` out."""

from cvretrieval.extraction.dense import DenseSIFT
from cvretrieval.extraction.opencv_features import OpenCVFeatures
from cvretrieval.extraction.patches import Patches
from cvretrieval.extraction.per_descriptor import PerDescriptor
from cvretrieval.extraction.sift import SIFT
from cvretrieval.extraction.spatial_coordinates import SpatialCoordinates
from cvretrieval.extraction.surf import SURF, SURFFeatures

__all__ = [
    "SIFT",
    "SURF",
    "DenseSIFT",
    "OpenCVFeatures",
    "Patches",
    "PerDescriptor",
    "SURFFeatures",
    "SpatialCoordinates",
]
