"""
Bags of words and an SVM, tuned by grid search
==============================================

Recognition with scikit-learn's own tools: every stage is an estimator, so the whole line is tuned as one.
"""

# %%
# Photos of six made-up objects, eight of each. Features do not depend on what is tuned, so they are extracted once;
# :class:`~cvretrieval.LocalFeatures` is split into folds like an array, by images.

import matplotlib.pyplot as plt
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from cvretrieval import SIFT, BagOfWords
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_confusion
from cvretrieval.recognition import histogram_intersection

scenes = make_scenes(n_scenes=6, n_views=8, image_size=(200, 150), difficulty=0.7, random_state=0)
features = SIFT(root=True, max_features=60).fit_transform(scenes.images)
train, test, y_train, y_test = train_test_split(
    features, scenes.labels, test_size=0.5, stratify=scenes.labels, random_state=0
)

# %%
# The words are learned anew in each fold, from its training part alone: a codebook that has seen the photos it is
# judged on would be a leak. Histograms are compared by their intersection, the sum of the smaller counts.

model = make_pipeline(BagOfWords(norm="l1", random_state=0), SVC(kernel=histogram_intersection))
grid = {"bagofwords__n_words": [5, 20, 80, 320], "bagofwords__assignment": ["hard", "soft"], "svc__C": [1, 10]}
search = GridSearchCV(model, grid, cv=3).fit(train, y_train)
print(f"best of {len(search.cv_results_['params'])}: {search.best_params_}")
print(
    f"accuracy in cross-validation {search.best_score_:.2f}, on photos it has not seen {search.score(test, y_test):.2f}"
)

# %%
# The best C of each number of words. Sixty features a photo can fill few words, yet here more words are better up to
# the last: the objects are known by details, which few words cannot tell apart. With the most words
# hard assignment is ahead of soft.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
results = search.cv_results_
for assignment in grid["bagofwords__assignment"]:
    best = [
        max(
            score
            for score, parameters in zip(results["mean_test_score"], results["params"], strict=True)
            if parameters["bagofwords__n_words"] == n_words and parameters["bagofwords__assignment"] == assignment
        )
        for n_words in grid["bagofwords__n_words"]
    ]
    print(assignment, [f"{score:.2f}" for score in best])
    axes[0].semilogx(grid["bagofwords__n_words"], best, marker="o", label=f"{assignment} assignment")
axes[0].set(xlabel="words", ylabel="accuracy in cross-validation")
axes[0].legend()
predicted = search.predict(test)
plot_confusion(confusion_matrix(y_test, predicted), scenes.kinds, title="photos it has not seen", ax=axes[1])
plt.show()
