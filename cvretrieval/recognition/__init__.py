"""Recognition: exact histogram kernels, the generative classifier, and classifiers as files.

The rest is scikit-learn's, on the vectors of an encoder: ``SVC``, ``LinearSVC``, ``CalibratedClassifierCV`` and
``GridSearchCV`` over the whole line. Naive Bayes with Laplace smoothing is ``MultinomialNB(alpha=1)`` on counts:
``make_pipeline(SIFT(), BagOfWords(norm=None), MultinomialNB())``.
"""

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
