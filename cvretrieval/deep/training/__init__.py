"""Training networks as descriptors: batches, augmentation, the loop, checkpoints, and the estimators behind `fit`."""

from cvretrieval.deep.training.cgd import CGD
from cvretrieval.deep.training.fine_tuned import FineTuned
from cvretrieval.deep.training.hard_negatives import HardNegativeSampler
from cvretrieval.deep.training.places import PlaceSampler
from cvretrieval.deep.training.sampling import ClassBalancedSampler

__all__ = ["CGD", "ClassBalancedSampler", "FineTuned", "HardNegativeSampler", "PlaceSampler"]
