"""Losses of metric learning, as torch modules: vectors (B, D) and class numbers (B,) become one number.

Any other callable of vectors and class numbers can take their place, such as a loss of pytorch-metric-learning; `Mined`
puts one of its miners before it. The losses here need torch alone. Batch-hard triplet and multi-similarity are equal to
its own; smooth AP is not: there each query is ranked, too.
"""

from cvretrieval.deep.losses.contrastive import Contrastive
from cvretrieval.deep.losses.cross_entropy import CrossEntropy
from cvretrieval.deep.losses.mined import Mined
from cvretrieval.deep.losses.multi_similarity import MultiSimilarity
from cvretrieval.deep.losses.smooth_ap import SmoothAP
from cvretrieval.deep.losses.triplet import BatchHardTriplet, SemiHardTriplet
from cvretrieval.deep.losses.weak_ranking import WeaklySupervisedRanking

__all__ = [
    "BatchHardTriplet",
    "Contrastive",
    "CrossEntropy",
    "Mined",
    "MultiSimilarity",
    "SemiHardTriplet",
    "SmoothAP",
    "WeaklySupervisedRanking",
]
