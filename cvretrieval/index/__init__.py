"""Index engines: vectors under integer keys, searched by similarity."""

from cvretrieval.index.base import VectorIndex
from cvretrieval.index.binary import BinaryIndex
from cvretrieval.index.dense import DenseIndex
from cvretrieval.index.inverted import InvertedIndex

__all__ = ["BinaryIndex", "DenseIndex", "InvertedIndex", "VectorIndex"]
