"""Encoders: the local features of each image → one vector, or its visual words."""

from cvretrieval.encoders.asmk import ASMK
from cvretrieval.encoders.bag_of_words import BagOfWords
from cvretrieval.encoders.fisher import FisherVector
from cvretrieval.encoders.hamming_embedding import HammingEmbedding
from cvretrieval.encoders.multiple_vocabularies import MultipleVocabularies
from cvretrieval.encoders.spatial_pyramid import SpatialPyramid
from cvretrieval.encoders.vlad import VLAD
from cvretrieval.encoders.word_votes import WordVotes

__all__ = [
    "ASMK",
    "VLAD",
    "BagOfWords",
    "FisherVector",
    "HammingEmbedding",
    "MultipleVocabularies",
    "SpatialPyramid",
    "WordVotes",
]
