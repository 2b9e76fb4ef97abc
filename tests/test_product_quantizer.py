"""Product quantisation against its definition, and what rotations are for."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import ProductQuantizer, load_model
from cvretrieval.codebooks.optimized_rotation import balanced_directions, random_rotation
from tests.reference.product_codes import decode, encode


@pytest.fixture
def vectors(rng):
    """Correlated, with variances that fall as after PCA."""
    return (rng.normal(size=(2000, 24)) * 0.85 ** np.arange(24) @ np.eye(24)).astype(np.float32)


@pytest.mark.parametrize("n_subvectors", [1, 5, 8, 24])
def test_codes_equal_the_definition(n_subvectors, vectors):
    """5 sub-vectors of 24 dimensions are of unequal length."""
    quantizer = ProductQuantizer(n_subvectors, n_codewords=20, random_state=0).fit(vectors)
    lengths = np.diff(quantizer.bounds_)
    assert len(lengths) == n_subvectors and lengths.max() - lengths.min() <= 1 and quantizer.bounds_[-1] == 24
    codes = quantizer.transform(vectors)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, encode(vectors, quantizer.codewords_, quantizer.bounds_))
    decoded = quantizer.inverse_transform(codes)
    np.testing.assert_array_equal(decoded, decode(codes, quantizer.codewords_, quantizer.bounds_))
    assert quantizer.error_ == pytest.approx(((vectors - decoded) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_codewords_are_the_means_of_their_sub_vectors(vectors):
    quantizer = ProductQuantizer(4, n_codewords=8, max_iter=200, random_state=0).fit(vectors)
    codes = quantizer.transform(vectors)
    for m, c in np.ndindex(4, 8):
        part = slice(quantizer.bounds_[m], quantizer.bounds_[m + 1])
        own = vectors[codes[:, m] == c][:, part]
        np.testing.assert_allclose(quantizer.codewords_[c, part], own.mean(axis=0), atol=0.02)


def test_more_bytes_lose_less(vectors):
    errors = [ProductQuantizer(m, n_codewords=32, random_state=0).fit(vectors).error_ for m in (2, 4, 8, 24)]
    assert np.all(np.diff(errors) < 0)


def test_few_vectors_are_kept_exactly(vectors):
    quantizer = ProductQuantizer(3, random_state=0).fit(vectors[:40])
    np.testing.assert_array_equal(quantizer.inverse_transform(quantizer.transform(vectors[:40])), vectors[:40])
    assert quantizer.error_ == 0 and quantizer.codewords_.shape == (256, 24)


def test_rotations_are_orthogonal_and_help_after_pca(vectors):
    """Without one, the first of three sub-vectors has nearly all the variance."""
    errors = {}
    for rotation in (None, "random", "opq"):
        quantizer = ProductQuantizer(3, n_codewords=32, rotation=rotation, random_state=0).fit(vectors)
        errors[rotation] = quantizer.error_
        codes = quantizer.transform(vectors)
        decoded = quantizer.inverse_transform(codes)
        assert ((vectors - decoded) ** 2).sum(axis=1).mean() == pytest.approx(quantizer.error_, rel=1e-4)
        if rotation is None:
            assert not hasattr(quantizer, "rotation_")
            continue
        np.testing.assert_allclose(quantizer.rotation_ @ quantizer.rotation_.T, np.eye(24), atol=1e-5)
        rotated = vectors @ quantizer.rotation_
        np.testing.assert_array_equal(codes, encode(rotated, quantizer.codewords_, quantizer.bounds_))
    assert errors["opq"] < 0.97 * errors["random"] < 0.97 * errors[None]


def test_a_fit_without_rotation_forgets_the_old_one(vectors):
    quantizer = ProductQuantizer(3, n_codewords=8, rotation="random", random_state=0).fit(vectors)
    assert not hasattr(quantizer.set_params(rotation=None).fit(vectors), "rotation_")


def test_directions_are_dealt_evenly(rng):
    rows = (rng.normal(size=(5000, 8)) * [9, 8, 7, 6, 0.4, 0.3, 0.2, 0.1] @ random_rotation(8, np.random)).astype("f4")
    rotation = balanced_directions(rows, np.array([0, 4, 8]))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(8), atol=1e-5)
    logs = np.log((rows @ rotation).var(axis=0))
    assert abs(logs[:4].sum() - logs[4:].sum()) < 1  # sorted by variance it would be 24


def test_random_rotation_is_uniform():
    rotations = np.stack([random_rotation(3, np.random.RandomState(i)) for i in range(4000)])
    np.testing.assert_allclose(rotations.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.02)


@pytest.mark.parametrize("rotation", [None, "opq"])
def test_seed_threads_and_sample(rotation, vectors):
    options = {"n_codewords": 16, "rotation": rotation, "max_samples": 1000, "random_state": 3}
    one = ProductQuantizer(4, **options).fit(vectors)
    two = ProductQuantizer(4, **options, n_jobs=2).fit(vectors)
    np.testing.assert_array_equal(one.codewords_, two.codewords_)
    np.testing.assert_array_equal(one.transform(vectors), two.transform(vectors))
    other = ProductQuantizer(4, **{**options, "random_state": 4}).fit(vectors)
    assert not np.array_equal(one.codewords_, other.codewords_)


@pytest.mark.parametrize("rotation", [None, "opq"])
def test_saved_and_loaded_it_codes_the_same(rotation, vectors, tmp_path):
    quantizer = ProductQuantizer(4, n_codewords=16, rotation=rotation, random_state=0).fit(vectors)
    loaded = load_model(quantizer.save(tmp_path / "pq.cvm"))
    np.testing.assert_array_equal(loaded.transform(vectors), quantizer.transform(vectors))
    codes = quantizer.transform(vectors)
    np.testing.assert_array_equal(loaded.inverse_transform(codes), quantizer.inverse_transform(codes))


def test_wrong_parameters_and_codes_say_what_is_wrong(vectors):
    with pytest.raises(ValueError, match=r"n_subvectors=25 .* more than there are dimensions \(n_features=24\)"):
        ProductQuantizer(25).fit(vectors)
    with pytest.raises(ValueError, match=r"'n_codewords' parameter .* integer in \[2, 256\]. Got 257"):
        ProductQuantizer(n_codewords=257).fit(vectors)
    with pytest.raises(ValueError, match="'rotation' parameter .* one of None, 'random', 'opq'"):
        ProductQuantizer(rotation="pca").fit(vectors)
    quantizer = ProductQuantizer(4, n_codewords=16, random_state=0).fit(vectors)
    with pytest.raises(ValueError, match="X has codes of 3 sub-vectors, but ProductQuantizer has 4"):
        quantizer.inverse_transform(np.zeros((2, 3), dtype=np.uint8))
    for wrong in (np.full((1, 4), 16), np.full((1, 4), -1), np.zeros((1, 4))):
        with pytest.raises(ValueError, match="Codes must be integers from 0 to 15"):
            quantizer.inverse_transform(wrong)
    assert quantizer.inverse_transform(np.empty((0, 4), dtype=np.uint8)).shape == (0, 24)
