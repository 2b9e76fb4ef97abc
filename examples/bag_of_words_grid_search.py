"""Bag of visual words and an SVM with the histogram-intersection kernel, the whole line tuned by grid search.

python examples/bag_of_words_grid_search.py
"""

from __future__ import annotations

from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from cvretrieval import SIFT, BagOfWords
from cvretrieval.datasets import make_scenes
from cvretrieval.recognition import histogram_intersection


def main() -> None:
    scenes = make_scenes(n_scenes=5, n_views=8, random_state=0)
    # Features do not depend on what is tuned, so they are extracted once.
    features = SIFT(root=True, max_features=500, n_jobs=-1).fit_transform(scenes.images)
    train, test, y_train, y_test = train_test_split(
        features, scenes.labels, test_size=0.25, stratify=scenes.labels, random_state=0
    )
    model = make_pipeline(BagOfWords(norm="l1", random_state=0), SVC(kernel=histogram_intersection))
    grid = {"bagofwords__n_words": [20, 100], "bagofwords__assignment": ["hard", "soft"], "svc__C": [1, 10]}
    search = GridSearchCV(model, grid, cv=3).fit(train, y_train)
    print(f"best of {len(search.cv_results_['params'])}: {search.best_params_}")
    print(f"accuracy on unseen views: {search.score(test, y_test):.2f}")


if __name__ == "__main__":
    main()
