"""What training is made of: the sampler, crops, checkpoints, packed weights, the learning rate."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

from cvretrieval import ImageReader, StoreError
from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from cvretrieval.deep.training import ClassBalancedSampler, HardNegativeSampler
from cvretrieval.deep.training.augmentation import CropReader
from cvretrieval.deep.training.checkpoints import CheckpointFolder
from cvretrieval.deep.training.evaluation import recall_at_1
from cvretrieval.deep.training.schedule import step_decay
from cvretrieval.deep.training.weights import pack_weights, unpack_weights


@pytest.mark.parametrize(("n_classes", "n_per_class"), [(32, 4), (5, 3), (40, 2), (7, 1)])
def test_batches_are_exactly_p_classes_of_k_images(rng, n_classes, n_per_class):
    labels = rng.integers(0, 40, 700)
    labels[:40] = np.arange(40)
    sampler = ClassBalancedSampler(labels, n_classes=n_classes, n_per_class=n_per_class, seed=3)
    batches = sampler.batches(0)
    assert len(batches) == sampler.n_batches == round(700 / (n_classes * n_per_class))
    for batch in batches:
        classes, counts = np.unique(labels[batch], return_counts=True)
        assert len(classes) == n_classes and (counts == n_per_class).all()
        # No image comes twice in a class that has enough of them.
        for one in classes:
            if (labels == one).sum() >= 2 * n_per_class:
                drawn = batch[labels[batch] == one]
                assert len(np.unique(drawn)) >= n_per_class - 1


def test_classes_and_images_come_equally_often():
    labels = np.repeat(np.arange(10), 12)
    sampler = ClassBalancedSampler(labels, n_classes=4, n_per_class=3)
    batches = sampler.batches(0)
    times = np.bincount(labels[np.concatenate(batches)])
    assert times.max() - times.min() <= 2 * 3
    one_epoch = ClassBalancedSampler(labels, n_classes=10, n_per_class=3).batches(0)
    assert sorted(np.concatenate(one_epoch)) == list(range(120))


def test_batches_follow_from_seed_and_epoch():
    labels = list("aabbbcccc") * 5

    def first(seed, epoch):
        return ClassBalancedSampler(labels, n_classes=2, n_per_class=3, seed=seed).batches(epoch)[0].tolist()

    assert first(0, 2) == first(0, 2)
    assert len({tuple(first(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_small_classes_repeat_images_and_few_classes_make_small_batches():
    sampler = ClassBalancedSampler(["one", "two", "two"], n_classes=32, n_per_class=4)
    (batch,) = sampler.batches(0)
    assert sorted(batch) == [0, 0, 0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="no images to draw from"):
        ClassBalancedSampler([])


def test_hard_negatives_are_the_most_similar_of_distinct_other_classes(rng):
    labels = rng.integers(0, 9, 200)
    labels[0] = 20  # alone in its class
    vectors = rng.normal(size=(200, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = []

    def describe(images):
        asked.append(images)
        return vectors[images]

    sampler = HardNegativeSampler(labels, describe, n_tuples=6, n_negatives=4, seed=1)
    batches = sampler.batches(2)
    assert len(batches) == sampler.n_batches == round(200 / 36) and len(asked) == 1
    seen = np.concatenate(batches).reshape(-1, 6)
    for query, positive, *negatives in seen:
        assert positive != query and labels[positive] == labels[query]
        best = {}
        for i in np.argsort(-(vectors @ vectors[query]), kind="stable"):
            if labels[i] != labels[query]:
                best.setdefault(labels[i], i)
        assert negatives == list(best.values())[:4]
    assert 0 not in seen[:, 0] and len(np.unique(seen[:, 0])) == len(seen)
    again = HardNegativeSampler(labels, describe, n_tuples=6, n_negatives=4, seed=1)
    np.testing.assert_array_equal(again.batches(2), batches)
    assert not np.array_equal(again.batches(3), batches)


def test_hard_negatives_of_a_pool_and_of_few_classes(rng):
    labels, vectors = np.arange(60) % 3, rng.normal(size=(60, 4))
    sampler = HardNegativeSampler(labels, lambda images: vectors[images], n_tuples=2, n_negatives=9, pool_size=10)
    batches = sampler.batches(0)
    assert all(len(batch) == 2 * (2 + 2) for batch in batches)  # two other classes
    assert len({int(i) for batch in batches for part in batch.reshape(2, 4) for i in part[2:]}) <= 10
    for bad in ([0, 1, 2], [0, 0, 0]):
        with pytest.raises(ValueError, match="two classes at least, one of them with two images"):
            HardNegativeSampler(bad, lambda images: vectors[images])


def test_crops_are_parts_of_the_square_and_mirrored_half_the_time(rng, tmp_path):
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    square = FixedSizeReader(ImageReader(), 40, "squash").read(image).pixels
    places, n_flipped = set(), 0
    for seed in range(60):
        crop = CropReader(ImageReader(), 40, 32, True).read(tmp_path / "a.png", np.random.default_rng(seed))
        assert crop.shape == (32, 32, 3)
        found = [
            (top, left, flipped)
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            if np.array_equal(square[top : top + 32, left : left + 32][:, :: -1 if flipped else 1], crop)
        ]
        assert len(found) == 1
        places.add(found[0][:2])
        n_flipped += found[0][2]
    assert len(places) > 20 and 15 < n_flipped < 45
    plain = CropReader(ImageReader(), 32, 32, False).read(image, rng)
    np.testing.assert_array_equal(plain, FixedSizeReader(ImageReader(), 32, "squash").read(image).pixels)


def test_weights_of_all_types_come_back(rng):
    weights = {
        "a.weight": torch.tensor(rng.normal(size=(3, 4)), dtype=torch.float32),
        "a.count": torch.tensor(7),
        "b": torch.zeros(0, 2, dtype=torch.float64),
        "c": torch.tensor([True, False, True]),
        "d": torch.tensor([1.5], dtype=torch.float16),
    }
    packed, layout = pack_weights(weights)
    again = unpack_weights(packed, layout)
    assert list(again) == list(weights)
    for name, value in weights.items():
        assert again[name].dtype == value.dtype and torch.equal(again[name], value)
    with pytest.raises(ValueError, match="has|have"):
        unpack_weights(np.append(packed, np.uint8(0)), layout)


def test_checkpoints_are_replaced_whole_and_never_run_code(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path / "a" / "b")
    folder.create()
    with pytest.raises(StoreError, match=r"holds no checkpoint \(last.pt does not exist\)"):
        folder.read_last()
    folder.write({"epoch": 1, "module": {"w": torch.ones(2)}}, {"epoch": 1})
    folder.write({"epoch": 2, "module": {"w": torch.ones(2)}}, None)
    assert (folder.read_last()["epoch"], folder.read_best()["epoch"]) == (2, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StoreError, match=r"last.pt cannot be written \(No space left.*What was there before is kept"
        ):
            folder.write({"epoch": 3}, None)
    assert folder.read_last()["epoch"] == 2 and sorted(os.listdir(folder.path)) == ["best.pt", "last.pt"]
    torch.save({"format": 1, "code": CheckpointFolder}, folder.path / "last.pt")
    with pytest.raises(StoreError, match="last.pt is damaged or no checkpoint"):
        folder.read_last()
    (folder.path / "last.pt").write_bytes(b"no")
    with pytest.raises(StoreError, match="last.pt is damaged or no checkpoint"):
        folder.read_last()
    torch.save({"format": 0}, folder.path / "last.pt")
    with pytest.raises(StoreError, match="no checkpoint of this version"):
        folder.read_last()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        CheckpointFolder(tmp_path / "file" / "c").create()


def test_learning_rate_falls_at_its_shares():
    factors = [step_decay(progress, (0.25, 0.5), 0.1) for progress in (0, 0.24, 0.25, 0.49, 0.5, 1)]
    np.testing.assert_allclose(factors, [1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step_decay(0.9, (), 0.1) == 1


def test_recall_is_the_share_with_a_nearest_other_of_their_class(rng):
    vectors = rng.normal(size=(1100, 3)).astype(np.float32)
    labels = rng.integers(0, 4, 1100)
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    assert recall_at_1(vectors, labels) == (labels[products.argmax(1)] == labels).mean()
    assert recall_at_1(vectors[:1], labels[:1]) == 0
