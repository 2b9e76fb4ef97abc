"""Recognition: exact histogram kernels, the generative classifier, and classifiers as files."""

from cvretrieval.recognition.class_conditional_gmm import ClassConditionalGMM
from cvretrieval.recognition.histogram_kernels import (
    additive_chi2_kernel,
    chi2_kernel,
    hellinger_kernel,
    histogram_intersection,
)
from cvretrieval.recognition.model_file import load_classifier, save_classifier, stage_names

__all__ = [
    "ClassConditionalGMM",
    "additive_chi2_kernel",
    "chi2_kernel",
    "hellinger_kernel",
    "histogram_intersection",
    "load_classifier",
    "save_classifier",
    "stage_names",
]
