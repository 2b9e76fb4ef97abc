"""The main job: index, search, verify; the store on disk."""

from cvretrieval.retrieval.evaluation import evaluate_retriever
from cvretrieval.retrieval.ingestion import IndexingReport
from cvretrieval.retrieval.result import Hit, QueryResult, SearchResult
from cvretrieval.retrieval.retriever import ImageRetriever

__all__ = ["Hit", "ImageRetriever", "IndexingReport", "QueryResult", "SearchResult", "evaluate_retriever"]
