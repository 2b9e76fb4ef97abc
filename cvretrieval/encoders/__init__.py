"""Encoders: the local features of each image → one vector."""

from cvretrieval.encoders.vlad import VLAD

__all__ = ["VLAD"]
