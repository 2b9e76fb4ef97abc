"""Rerankers by name, for the option ``--rerank``."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Rerank(str, Enum):
    """What `make_reranker` knows."""

    none = "none"
    aqe = "aqe"
    alpha_qe = "alpha-qe"
    verified_qe = "verified-qe"
    spatial_qe = "spatial-qe"
    dqe = "dqe"
    dba = "dba"
    k_reciprocal = "k-reciprocal"
    diffusion = "diffusion"


def make_reranker(names: list[str]) -> Any:
    """Return a reranker with its default parameters, a chain of several, or None for ``["none"]``."""
    from cvretrieval import reranking

    if "none" in names:
        if len(names) > 1:
            raise ValueError("--rerank none stands alone: it means no reranking.")
        return None
    kinds: dict[str, Any] = {
        "aqe": reranking.AverageQueryExpansion(),
        "alpha-qe": reranking.AlphaQueryExpansion(),
        "verified-qe": reranking.AverageQueryExpansion(verified_only=True),
        "spatial-qe": reranking.SpatialQueryExpansion(),
        "dqe": reranking.DiscriminativeQueryExpansion(),
        "dba": reranking.DatabaseAugmentation(),
        "k-reciprocal": reranking.KReciprocal(),
        "diffusion": reranking.Diffusion(),
    }
    if len(set(names)) < len(names):
        raise ValueError(f"Each --rerank may be given once. Got {', '.join(names)}.")
    if len(names) == 1:
        return kinds[names[0]]
    return reranking.RerankingPipeline([(name, kinds[name]) for name in names])
