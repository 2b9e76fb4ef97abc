"""Place recognition: tuples by position, and NetVLAD trained on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.nn import functional as F

from cvretrieval.deep import FineTuned, GeM, NetVLAD, losses
from cvretrieval.deep.training import PlaceSampler
from cvretrieval.deep.training import trainer as training_loop
from cvretrieval.deep.training.estimator import TrainedParts
from cvretrieval.deep.training.evaluation import recall_at_1
from cvretrieval.deep.training.places import classes_as_positions
from tests.deep.test_training import Small, tuned


@pytest.fixture
def places(rng):
    """Four images at each of three places 100 m apart, some 12 m from each other: stripes of a place, in noise."""
    images, positions = [], []
    for i, width in enumerate((2, 4, 8)):
        stripes = (np.arange(40) // width % 2 * 120)[:, None, None]
        for east in (0.0, 4.0, 8.0, 12.0):
            images.append((0.5 * stripes + rng.integers(0, 150, (40, 40, 3))).astype(np.uint8))
            positions.append((500_000 + 100.0 * i + east, 4_000_000.0))
    return images, np.array(positions)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("pool_size", [1000, 40, 3])
def test_tuples_are_query_best_potential_positive_and_hard_negatives(rng, pool_size):
    positions = rng.uniform(0, 150, (120, 2))
    vectors = unit(rng.normal(size=(120, 5)))
    asked = []

    def describe(images):
        asked.append(images)
        return vectors[images]

    sampler = PlaceSampler(positions, describe, n_tuples=3, n_negatives=4, pool_size=pool_size, seed=1)
    batches = sampler.batches(2)
    assert sampler.tuple_size == 6 and len(batches) == sampler.n_batches == round(120 / 18) and len(asked) == 1
    between = np.linalg.norm(positions[:, None] - positions, axis=2)
    products = vectors @ vectors.T
    queries = np.concatenate(batches).reshape(-1, 6)[:, 0]
    for query, positive, *negatives in np.concatenate(batches).reshape(-1, 6):
        potential = [i for i in range(120) if i != query and between[query, i] <= 10]
        assert positive == max(potential, key=lambda i: products[query, i])
        assert len(set(negatives)) == 4 and (between[query, negatives] > 25).all()
        if pool_size == 1000:
            far = [i for i in range(120) if between[query, i] > 25]
            assert negatives == sorted(far, key=lambda i: -products[query, i])[:4]
    assert len(set(queries)) == len(queries)
    again = PlaceSampler(positions, describe, n_tuples=3, n_negatives=4, pool_size=pool_size, seed=1)
    np.testing.assert_array_equal(again.batches(2), batches)
    assert not np.array_equal(again.batches(3), batches)


def test_queries_have_both_and_the_limits_count_as_near():
    describe = np.eye(5).__getitem__
    # 10 m is near; 25 m is not far; the last one has no other near it.
    sampler = PlaceSampler([[0, 0], [10, 0], [25, 0], [60, 0], [90, 0]], describe, n_tuples=2, n_negatives=9)
    assert sampler.n_negatives == 2
    assert {tuple(t[:2]) for e in range(4) for b in sampler.batches(e) for t in b.reshape(-1, 4)} == {(0, 1), (1, 0)}
    with pytest.raises(ValueError, match="None of 3 images has another within 10 m and one farther away than 25 m"):
        PlaceSampler([[0, 0], [1, 0], [2, 0]], describe)
    with pytest.raises(ValueError, match=r"Got shape \(3, 3\)"):
        PlaceSampler(np.zeros((3, 3)), describe)
    with pytest.raises(ValueError, match="NaN or infinite"):
        PlaceSampler([[0, np.nan], [1, 1]], describe)
    with pytest.raises(ValueError, match="'negative_radius' parameter of PlaceSampler"):
        PlaceSampler([[0, 0], [1, 0]], describe, negative_radius=5)


def test_classes_become_places(rng):
    classes = rng.integers(0, 7, 40)
    for radius in (0.0, 25.0, 1e4):
        positions = classes_as_positions(classes, radius)
        between = np.linalg.norm(positions[:, None] - positions, axis=2)
        np.testing.assert_array_equal(between > radius, classes[:, None] != classes)
        assert (between[classes[:, None] == classes] == 0).all()


def test_the_loss_of_a_batch_is_the_mean_of_its_tuples(places):
    images, positions = places
    vlad = NetVLAD(Small(), n_clusters=2, descriptors_per_image=20, random_state=0, image_size=40)
    model = tuned(vlad, ranking_loss="weakly_supervised", n_negatives=3, classes_per_batch=2, margin=0.3)
    sampler = PlaceSampler(positions, lambda chosen: np.eye(12)[chosen], n_tuples=2, n_negatives=3)
    model.descriptor_ = clone(vlad).fit(images)
    maps = torch.rand(10, 12, 4, 4)

    parts = TrainedParts(torch.nn.Identity(), model.descriptor_._make_pooling(12), None, "float32")
    found = model._loss_terms(sampler)(parts, maps, torch.zeros(10))["ranking"]
    v = F.normalize(parts.head(maps), dim=1)
    d = ((v[:, None] - v[None]) ** 2).sum(2)
    expected = (
        sum(F.relu(d[start, start + 1] + 0.3 - d[start, start + 2 + j]) for start in (0, 5) for j in range(3)) / 2
    )
    torch.testing.assert_close(found, expected)


def test_netvlad_learns_places_and_is_resumed(places, tmp_path, monkeypatch):
    images, positions = places
    network = Small()
    network.steps[3].p = 0.0  # tuples of hard negatives alone are learned badly with dropout
    vlad = NetVLAD(network, n_clusters=3, descriptors_per_image=20, random_state=0, image_size=40)
    model = tuned(vlad, ranking_loss="weakly_supervised", n_negatives=4, classes_per_batch=2, n_epochs=20,
                  learning_rate=3e-4, margin=0.5)  # fmt: skip
    between = np.linalg.norm(positions[:, None] - positions, axis=2)

    def violations(vectors):
        """Mean of equation 7 over all queries, with all their negatives."""
        d = ((vectors[:, None] - vectors) ** 2).sum(2)
        best = np.where((between <= 10) & ~np.eye(12, dtype=bool), d, np.inf).min(1)
        return (np.maximum(best[:, None] + 0.5 - d, 0) * (between > 25)).sum(1).mean()

    last = clone(model).fit(images, positions)
    assert last.history_["loss"][-1] < 0.7 * last.history_["loss"][0]
    assert violations(last.transform(images)) < 0.5 * violations(clone(vlad).fit(images).transform(images))
    fit = {"validation": (images, positions)}
    whole = clone(model).fit(images, positions, **fit)
    assert whole.score(images, positions) == whole.history_["recall_at_1"][whole.best_epoch_ - 1]
    assert whole.classes_.shape == (0,)
    original = training_loop.Trainer._epoch

    def interrupted(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_epoch", interrupted)
        with pytest.warns(UserWarning, match="interrupted after epoch 2 of 20"):
            clone(model).fit(images, positions, checkpoint_to=tmp_path, **fit)
    resumed = clone(model).fit(images, positions, resume_from=tmp_path, **fit)
    np.testing.assert_array_equal(resumed.weights_, whole.weights_)


def test_classes_serve_as_places(places):
    images, _ = places
    labels = np.repeat(["a", "b", "c"], 4)
    model = tuned(GeM(Small(), image_size=40, norm=None), ranking_loss="weakly_supervised", n_negatives=2, n_epochs=1)
    model.fit(images, labels)
    assert model.classes_.tolist() == ["a", "b", "c"] and np.isfinite(model.history_["loss"]).all()


def test_recall_of_places_is_within_the_radius(rng):
    vectors, positions = unit(rng.normal(size=(50, 3))).astype(np.float32), rng.uniform(0, 60, (50, 2))
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    between = np.linalg.norm(positions[products.argmax(1)] - positions, axis=1)
    assert recall_at_1(vectors, positions, 25.0) == (between <= 25).mean()


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({"ranking_loss": "contrastive"}, np.zeros((12, 2)), r"Got y of shape \(12, 2\); positions need"),
        ({"n_negatives": 0}, np.zeros((12, 2)), "'n_negatives' parameter of FineTuned"),
        ({}, np.zeros((11, 2)), "Got 12 images, 11"),
        ({}, np.zeros((12, 3)), r"Got shape \(12, 3\)"),
        ({}, np.zeros((12, 2)), "None of 12 images has another within 10 m"),
        ({"negative_radius": 5}, np.zeros((12, 2)), "'negative_radius' parameter of FineTuned"),
        ({"margin": -1}, np.zeros((12, 2)), "'margin' parameter of WeaklySupervisedRanking"),
        ({}, None, r"fit\(X, y\)"),
    ],
)  # fmt: skip
def test_bad_positions(places, params, y, message):
    options = {"ranking_loss": "weakly_supervised", "n_negatives": 2, **params}
    with pytest.raises(ValueError, match=message):
        FineTuned(GeM(Small()), resize_to=36, input_size=32, **options).fit(places[0], y)


def test_the_loss_by_name_is_of_fine_tuning():
    assert isinstance(FineTuned(GeM(), ranking_loss="weakly_supervised")._weak_loss(), losses.WeaklySupervisedRanking)
    with pytest.raises(ValueError, match="'ranking_loss' parameter of FineTuned must be one of .*'weakly_supervised'"):
        FineTuned(GeM(), ranking_loss="weak").fit([], [])
