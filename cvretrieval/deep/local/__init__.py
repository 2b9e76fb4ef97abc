"""Local features from a network: the pixels of a feature map, with their places in the image."""

from cvretrieval.deep.local.deep_local_features import DeepLocalFeatures

__all__ = ["DeepLocalFeatures"]
