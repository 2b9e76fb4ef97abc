"""Poolings as torch modules: a feature map (B, C, H, W) of any H × W becomes a vector per image, (B, n_features).

float16 and bfloat16 maps are pooled, and the vectors returned, in float32, as autocast does for sums, powers and norms.
"""

from cvretrieval.deep.layers.combined import CombinedDescriptors
from cvretrieval.deep.layers.crow import CroW
from cvretrieval.deep.layers.gem import GeM
from cvretrieval.deep.layers.mac import MAC
from cvretrieval.deep.layers.netvlad import NetVLAD
from cvretrieval.deep.layers.rmac import RMAC
from cvretrieval.deep.layers.spatial_weights import SpatialWeights
from cvretrieval.deep.layers.spoc import SPoC
from cvretrieval.deep.layers.weighted_gem import WeightedGeM
from cvretrieval.deep.layers.weighted_sum import WeightedSumPool
from cvretrieval.deep.layers.whitening import Whitening

__all__ = [
    "MAC",
    "RMAC",
    "CombinedDescriptors",
    "CroW",
    "GeM",
    "NetVLAD",
    "SPoC",
    "SpatialWeights",
    "WeightedGeM",
    "WeightedSumPool",
    "Whitening",
]
