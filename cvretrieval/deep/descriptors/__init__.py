"""Estimators: images → one vector each, by pooling the feature map of a network."""

from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.descriptors.crow import CroW
from cvretrieval.deep.descriptors.ensemble import Ensemble
from cvretrieval.deep.descriptors.gem import GeM
from cvretrieval.deep.descriptors.mac import MAC
from cvretrieval.deep.descriptors.multi_scale_rmac import MultiScaleRMAC
from cvretrieval.deep.descriptors.netvlad import NetVLAD
from cvretrieval.deep.descriptors.neural_codes import NeuralCodes
from cvretrieval.deep.descriptors.rmac import RMAC
from cvretrieval.deep.descriptors.spoc import SPoC
from cvretrieval.deep.descriptors.weighted_gem import WeightedGeM

__all__ = [
    "MAC",
    "RMAC",
    "CroW",
    "Ensemble",
    "GeM",
    "MapDescriptor",
    "MultiScaleRMAC",
    "NetVLAD",
    "NeuralCodes",
    "SPoC",
    "WeightedGeM",
]
