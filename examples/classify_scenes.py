"""Recognition with scikit-learn's own tools: SIFT, VLAD and a linear SVM, tuned by grid search.

The features are extracted once; the grid search then runs on the ragged container.

    python examples/classify_scenes.py
"""

from __future__ import annotations

from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import SIFT, VLAD
from cvretrieval.datasets import make_scenes


def main() -> None:
    scenes = make_scenes(n_scenes=5, n_views=8, random_state=0)
    features = SIFT(root=True, max_features=500, n_jobs=-1).fit_transform(scenes.images)
    train, test, y_train, y_test = train_test_split(
        features, scenes.labels, test_size=0.25, stratify=scenes.labels, random_state=0
    )
    model = make_pipeline(VLAD(random_state=0), LinearSVC())
    search = GridSearchCV(model, {"vlad__n_words": [4, 16]}, cv=3).fit(train, y_train)
    print(f"best: {search.best_params_}, accuracy on unseen views: {search.score(test, y_test):.2f}")


if __name__ == "__main__":
    main()
