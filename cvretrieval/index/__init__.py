"""Index engines: vectors under integer keys, searched by similarity."""

from cvretrieval.index.base import VectorIndex
from cvretrieval.index.binary import BinaryIndex
from cvretrieval.index.dense import DenseIndex
from cvretrieval.index.faiss_index import FaissIndex
from cvretrieval.index.inverted import InvertedIndex
from cvretrieval.index.milvus_index import MilvusIndex
from cvretrieval.index.product_quantized import PQIndex

__all__ = ["BinaryIndex", "DenseIndex", "FaissIndex", "InvertedIndex", "MilvusIndex", "PQIndex", "VectorIndex"]
