"""Bits of vectors: the definition, and that the learned rotation is worth learning."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import ITQ, BinaryIndex, DenseIndex, load_model


@pytest.fixture
def vectors(rng):
    """Clusters, with variances that fall as after PCA."""
    centers = rng.normal(size=(40, 32)) * 0.9 ** np.arange(32)
    return (3 + centers[rng.integers(0, 40, 2000)] + 0.15 * rng.normal(size=(2000, 32))).astype(np.float32)


@pytest.mark.parametrize("rotation", ["itq", "random", None])
@pytest.mark.parametrize("n_bits", [1, 12, 32])
def test_bits_are_sides_of_orthogonal_hyperplanes(rotation, n_bits, vectors):
    itq = ITQ(n_bits, rotation=rotation, random_state=0).fit(vectors)
    np.testing.assert_allclose(itq.hyperplanes_ @ itq.hyperplanes_.T, np.eye(n_bits), atol=1e-5)
    codes = itq.transform(vectors)
    assert codes.dtype == np.uint8 and codes.shape == (2000, -(-n_bits // 8))
    bits = (vectors.astype(np.float64) - vectors.mean(axis=0)) @ itq.hyperplanes_.T.astype(np.float64)
    sure = np.abs(bits) > 1e-5
    found = np.unpackbits(codes, axis=1)
    np.testing.assert_array_equal(found[:, :n_bits][sure], (bits > 0)[sure])
    assert not found[:, n_bits:].any()


def test_hyperplanes_span_the_principal_directions(vectors):
    itq = ITQ(10, random_state=0).fit(vectors)
    _, _, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    overlap = itq.hyperplanes_ @ directions[:10].T
    np.testing.assert_allclose(overlap @ overlap.T, np.eye(10), atol=1e-4)


def test_learning_lowers_the_error_and_finds_more(vectors):
    """Isotropic normal components err by 2 − 2 √(2/π)."""
    exact = DenseIndex("l2").add(np.arange(2000), vectors).search(vectors[:200], 20)[0]
    errors, recalls = {}, {}
    for rotation in ("itq", "random", None):
        itq = ITQ(32, rotation=rotation, random_state=0).fit(vectors)
        codes = itq.transform(vectors)
        found = BinaryIndex().add(np.arange(2000), codes).search(codes[:200], 20)[0]
        errors[rotation] = itq.error_
        recalls[rotation] = np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])
    assert errors["itq"] < errors["random"] < errors[None]
    assert recalls["itq"] > recalls[None]
    normal = np.random.default_rng(0).normal(size=(20_000, 16))
    assert ITQ(rotation="random", random_state=0).fit(normal).error_ == pytest.approx(
        2 - 2 * np.sqrt(2 / np.pi), rel=0.02
    )


def test_seed_sample_and_saving(vectors, tmp_path):
    itq = ITQ(16, max_samples=500, random_state=1).fit(vectors)
    np.testing.assert_array_equal(
        itq.transform(vectors), ITQ(16, max_samples=500, random_state=1).fit_transform(vectors)
    )
    assert not np.array_equal(itq.hyperplanes_, ITQ(16, max_samples=500, random_state=2).fit(vectors).hyperplanes_)
    np.testing.assert_array_equal(load_model(itq.save(tmp_path / "itq.cvm")).transform(vectors), itq.transform(vectors))


def test_equal_vectors_and_too_many_bits(vectors):
    itq = ITQ(4, random_state=0).fit(np.ones((9, 6)))
    assert itq.error_ >= 0 and len(np.unique(itq.transform(np.ones((3, 6))), axis=0)) == 1
    for rows, message in (
        (vectors, "n_samples=2000 and n_features=32"),
        (vectors[:20], "n_samples=20 and n_features=32"),
    ):
        with pytest.raises(ValueError, match=f"n_bits=33 of ITQ is more than .*: X has {message}. Use at most"):
            ITQ(33).fit(rows)
