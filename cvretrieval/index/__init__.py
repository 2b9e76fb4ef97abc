"""Index engines: vectors under integer keys, searched by similarity."""

from cvretrieval.index.dense import DenseIndex

__all__ = ["DenseIndex"]
