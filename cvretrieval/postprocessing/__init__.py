"""Post-processing of image vectors: plain 2-D scikit-learn transformers."""

from cvretrieval.postprocessing.homogeneous_kernel_map import HomogeneousKernelMap
from cvretrieval.postprocessing.itq import ITQ
from cvretrieval.postprocessing.learned_whitening import LearnedWhitening
from cvretrieval.postprocessing.power_norm import PowerNormalizer
from cvretrieval.postprocessing.tfidf import TfIdf
from cvretrieval.postprocessing.whitening import PCAWhitening
from cvretrieval.postprocessing.zca_whitening import ZCAWhitening

__all__ = [
    "ITQ",
    "HomogeneousKernelMap",
    "LearnedWhitening",
    "PCAWhitening",
    "PowerNormalizer",
    "TfIdf",
    "ZCAWhitening",
]
