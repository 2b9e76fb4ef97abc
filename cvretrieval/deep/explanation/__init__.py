"""Which places of two images made their descriptors similar."""

from cvretrieval.deep.explanation.cluster_maps import ClusterMap, cluster_map
from cvretrieval.deep.explanation.region_shares import RegionShares, explain_regions
from cvretrieval.deep.explanation.similarity_maps import SimilarityMaps, explain_similarity

__all__ = ["ClusterMap", "RegionShares", "SimilarityMaps", "cluster_map", "explain_regions", "explain_similarity"]
