"""Evaluation protocols: what counts as relevant, what is junk, and the name that stands beside every figure."""

from cvretrieval.metrics.protocols.at_k import PrecisionAtK, RecallAtK
from cvretrieval.metrics.protocols.at_r import MAPAtR, RPrecision
from cvretrieval.metrics.protocols.average_precision import AveragePrecision
from cvretrieval.metrics.protocols.base import EvaluationProtocol
from cvretrieval.metrics.protocols.benchmark import Benchmark, BenchmarkProtocol
from cvretrieval.metrics.protocols.benchmarks import BENCHMARKS, PROTOCOL_GROUPS
from cvretrieval.metrics.protocols.names import PROTOCOL_NAMES, get_protocol, get_protocols
from cvretrieval.metrics.protocols.ns_score import NSScore
from cvretrieval.metrics.protocols.place_recognition import PlaceRecall
from cvretrieval.metrics.protocols.revisited import Revisited
from cvretrieval.metrics.protocols.truth import QueryTruth, Relevance

__all__ = [
    "BENCHMARKS",
    "PROTOCOL_GROUPS",
    "PROTOCOL_NAMES",
    "AveragePrecision",
    "Benchmark",
    "BenchmarkProtocol",
    "EvaluationProtocol",
    "MAPAtR",
    "NSScore",
    "PlaceRecall",
    "PrecisionAtK",
    "QueryTruth",
    "RPrecision",
    "RecallAtK",
    "Relevance",
    "Revisited",
    "get_protocol",
    "get_protocols",
]
