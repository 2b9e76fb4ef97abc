"""Query expansion, augmentation and diffusion in one chain, tuned by grid search like any other model.

python examples/tune_reranking.py
"""

from __future__ import annotations

from sklearn.model_selection import GridSearchCV, StratifiedKFold

from cvretrieval import SIFT, VLAD, AlphaQueryExpansion, DatabaseAugmentation, Diffusion, RerankingPipeline
from cvretrieval.datasets import make_scenes


def main() -> None:
    scenes = make_scenes(n_scenes=12, n_views=6, random_state=0)
    features = SIFT(root=True, max_features=200, n_jobs=-1).fit_transform(scenes.images)
    vectors = VLAD(n_words=16, random_state=0).fit_transform(features)
    chain = RerankingPipeline([("dba", DatabaseAugmentation()), ("last", AlphaQueryExpansion())])
    grid = {
        "dba__n_neighbors": [0, 2],
        "last": [AlphaQueryExpansion(0), AlphaQueryExpansion(2), Diffusion(5, 2), Diffusion(5, 1)],
    }
    # Of each split, the training part is the database, and the test part are the queries.
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(chain, grid, cv=folds).fit(vectors, scenes.labels)
    for score, parameters in zip(search.cv_results_["mean_test_score"], search.cv_results_["params"], strict=True):
        print(f"mAP {score:.4f}  DBA of {parameters['dba__n_neighbors']}, then {parameters['last']}")


if __name__ == "__main__":
    main()
