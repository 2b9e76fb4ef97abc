"""The main job: index, search, verify; the store on disk."""

from cvretrieval.retrieval.comparison import MethodComparison, compare_methods
from cvretrieval.retrieval.duplicates import DuplicateGroup, DuplicatePair, find_duplicates
from cvretrieval.retrieval.evaluation import MethodEvaluation, evaluate_method, evaluate_retriever
from cvretrieval.retrieval.outcomes import IndexingReport
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from cvretrieval.retrieval.retriever import ImageRetriever

__all__ = [
    "DuplicateGroup",
    "DuplicatePair",
    "Hit",
    "ImageRetriever",
    "IndexingReport",
    "MethodComparison",
    "MethodEvaluation",
    "QueryResult",
    "SearchResult",
    "compare_methods",
    "evaluate_method",
    "evaluate_retriever",
    "find_duplicates",
]
