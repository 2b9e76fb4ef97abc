"""Running a network over images: batches of one size, devices, and what is done when memory runs out."""

from cvretrieval.deep.inference.devices import resolve_device
from cvretrieval.deep.inference.estimator import NetworkEstimator
from cvretrieval.deep.inference.network import NetworkCache, PreparedNetwork, network_key, prepare_network
from cvretrieval.deep.inference.runner import Batch, run_images

__all__ = [
    "Batch",
    "NetworkCache",
    "NetworkEstimator",
    "PreparedNetwork",
    "network_key",
    "prepare_network",
    "resolve_device",
    "run_images",
]
