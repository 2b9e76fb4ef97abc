"""Reranking: from a ranked list to a better one, by expanding queries, augmenting the database, or its graph."""

from cvretrieval.reranking.base import Reranker
from cvretrieval.reranking.database_augmentation import DatabaseAugmentation
from cvretrieval.reranking.diffusion import Diffusion
from cvretrieval.reranking.discriminative_query_expansion import DiscriminativeQueryExpansion
from cvretrieval.reranking.k_reciprocal import KReciprocal
from cvretrieval.reranking.pipeline import RerankingPipeline
from cvretrieval.reranking.query_expansion import AlphaQueryExpansion, AverageQueryExpansion
from cvretrieval.reranking.ranking import VerifiedMatches
from cvretrieval.reranking.spatial_query_expansion import SpatialQueryExpansion

__all__ = [
    "AlphaQueryExpansion",
    "AverageQueryExpansion",
    "DatabaseAugmentation",
    "Diffusion",
    "DiscriminativeQueryExpansion",
    "KReciprocal",
    "Reranker",
    "RerankingPipeline",
    "SpatialQueryExpansion",
    "VerifiedMatches",
]
