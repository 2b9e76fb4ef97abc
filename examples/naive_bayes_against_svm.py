"""Two ways to read the same word counts: naive Bayes (generative) against an SVM (discriminative), as Csurka et al.
compared them in 2004; and a third that needs no words, one Gaussian mixture per class on the descriptors.

    python examples/naive_bayes_against_svm.py
"""

from __future__ import annotations

from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import SIFT, BagOfWords, PowerNormalizer
from cvretrieval.datasets import make_scenes
from cvretrieval.recognition import ClassConditionalGMM


def main() -> None:
    scenes = make_scenes(n_scenes=6, n_views=8, random_state=1)
    # Few features and few training views, else all three are always right on scenes as distinct as these.
    features = SIFT(root=True, max_features=60, n_jobs=-1).fit_transform(scenes.images)
    folds = StratifiedShuffleSplit(n_splits=10, train_size=12, random_state=0)
    # Naive Bayes multiplies probabilities of words: it wants raw counts. The SVM wants normalised histograms.
    counts = BagOfWords(100, norm=None, random_state=0)
    models = {
        "naive Bayes on counts": make_pipeline(counts, MultinomialNB(alpha=1.0)),
        "linear SVM, Hellinger": make_pipeline(counts, PowerNormalizer(0.5), LinearSVC()),
        "one mixture per class": ClassConditionalGMM(n_components=8, random_state=0),
    }
    for name, model in models.items():
        scores = cross_val_score(model, features, scenes.labels, cv=folds)
        print(f"{name:22} {scores.mean():.3f} ± {scores.std():.3f}")


if __name__ == "__main__":
    main()
