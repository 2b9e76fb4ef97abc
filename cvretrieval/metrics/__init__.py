"""Retrieval and recognition figures; none is printed without the name of its protocol."""

from cvretrieval.metrics.evaluation import EvaluationResult, evaluate_rankings
from cvretrieval.metrics.protocols import (
    PROTOCOL_NAMES,
    AveragePrecision,
    EvaluationProtocol,
    NSScore,
    PrecisionAtK,
    QueryTruth,
    RecallAtK,
    Relevance,
    Revisited,
    get_protocol,
)
from cvretrieval.metrics.ranking import (
    JudgedRanking,
    average_precision,
    judge_ranking,
    mean_average_precision,
    precision_at_k,
    recall_at_k,
)

__all__ = [
    "PROTOCOL_NAMES",
    "AveragePrecision",
    "EvaluationProtocol",
    "EvaluationResult",
    "JudgedRanking",
    "NSScore",
    "PrecisionAtK",
    "QueryTruth",
    "RecallAtK",
    "Relevance",
    "Revisited",
    "average_precision",
    "evaluate_rankings",
    "get_protocol",
    "judge_ranking",
    "mean_average_precision",
    "precision_at_k",
    "recall_at_k",
]
