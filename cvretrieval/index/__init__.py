"""Index engines: vectors under integer keys, searched by similarity."""

from cvretrieval.index.base import VectorIndex
from cvretrieval.index.dense import DenseIndex

__all__ = ["DenseIndex", "VectorIndex"]
