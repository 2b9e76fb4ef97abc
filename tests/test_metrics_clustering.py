"""Normalised mutual information of clusters against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from cvretrieval.metrics import clustering_nmi


def nmi(clusters, classes):
    """Mutual information over the mean entropy, from the joint table."""
    joint = np.array([[np.mean((clusters == a) & (classes == b)) for b in np.unique(classes)] for a in set(clusters)])
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    seen = joint > 0
    information = (joint[seen] * np.log(joint[seen] / (rows * columns)[seen])).sum()
    return information / (-(rows * np.log(rows)).sum() / 2 - (columns * np.log(columns)).sum() / 2)


def test_it_is_mutual_information_over_the_mean_entropy(rng):
    classes = rng.integers(0, 5, 90)
    vectors = np.eye(5)[classes] + rng.normal(size=(90, 5)) * 0.5
    clusters = KMeans(5, n_init=1, random_state=3).fit_predict(vectors)
    found = clustering_nmi(vectors, classes, random_state=3)
    np.testing.assert_allclose(found, nmi(clusters, classes), rtol=1e-12)
    assert 0.2 < found < 0.99


def test_separate_classes_are_one_and_chance_is_about_zero(rng):
    classes = np.repeat(["a", "b", "c"], 200)
    far = rng.normal(size=(600, 4)) + 50 * np.repeat(np.eye(3, 4), 200, axis=0)
    assert clustering_nmi(far, classes, random_state=0) > 0.999
    assert clustering_nmi(rng.normal(size=(600, 4)), classes, random_state=0) < 0.02


@pytest.mark.parametrize(("vectors", "labels"), [([[1.0]], [0, 1]), (np.empty((0, 3)), []), ([1.0, 2.0], [0, 1])])
def test_bad_input(vectors, labels):
    with pytest.raises(ValueError, match="takes vectors"):
        clustering_nmi(vectors, labels)
