"""Where in an image the object of a query is, by the maximum activations of regions."""

from cvretrieval.deep.localization.max_pooling_localizer import AML, RegionRanking

__all__ = ["AML", "RegionRanking"]
