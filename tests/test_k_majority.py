"""KMajorityCodebook: votes by the definition, seeds, words that nothing votes for, and bags of its words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from cvretrieval import (
    VLAD,
    BagOfWords,
    ImageRetriever,
    KMajorityCodebook,
    LocalFeatures,
    OpenCVFeatures,
    SpatialVerifier,
)
from cvretrieval._state import from_config, get_state, set_state, to_config
from cvretrieval.datasets import make_scenes
from tests.contract import test_estimators as contract
from tests.contract.instances import BINARY_CODEBOOKS
from tests.reference.hamming import hamming, k_majority

LENGTHS = [30, 0, 12, 45, 1, 7, 20, 33, 0, 26]


def clustered(rng, n, n_modes=6, n_bytes=8, noise=0.1):
    """Descriptors about random modes, each bit flipped with the probability of noise."""
    modes = rng.integers(0, 256, (n_modes, n_bytes), dtype=np.uint8)
    labels = rng.integers(0, n_modes, n)
    flips = np.packbits(rng.uniform(size=(n, 8 * n_bytes)) < noise, axis=1)
    return modes[labels] ^ flips, labels, modes


@pytest.fixture
def X(rng):
    rows = rng.integers(0, 256, (sum(LENGTHS), 16), dtype=np.uint8)
    return LocalFeatures(rows, np.cumsum([0, *LENGTHS]), rng.uniform(1, 9, (len(rows), 4)), [(64, 48)] * len(LENGTHS))


@pytest.mark.parametrize("max_iter", [1, 2, 50])
def test_rounds_equal_the_definition(rng, max_iter):
    rows, _, _ = clustered(rng, 300, noise=0.2)
    codebook = KMajorityCodebook(5, max_iter=max_iter, random_state=3)
    first = codebook._first_words(rows, np.random.RandomState(3))
    centers, words, distances = k_majority(rows, first, max_iter)
    codebook.fit([rows])
    assert codebook.n_empty_words_ == 0
    np.testing.assert_array_equal(codebook.cluster_centers_, centers)
    np.testing.assert_array_equal(codebook.predict([rows]), words)
    assert codebook.inertia_ == distances.sum() and codebook.n_iter_ <= max_iter


def test_modes_are_found(rng):
    rows, labels, modes = clustered(rng, 600, n_modes=4, n_bytes=32)
    fits = [KMajorityCodebook(4, random_state=seed).fit([rows]) for seed in range(5)]
    best = min(fits, key=lambda fit: fit.inertia_)
    assert hamming(modes, best.cluster_centers_).min(axis=1).max() == 0
    words = best.predict([rows])
    assert all(len(np.unique(words[labels == k])) == 1 for k in range(4))


def test_words_without_descriptors_move(rng):
    """Two far groups and first words all in one of them: an empty word must reach the other."""
    rows = np.zeros((40, 16), dtype=np.uint8)
    rows[:20, 0] = np.arange(20)
    rows[20:] = 255
    rows[20:, 1] = np.arange(20)
    for seed in range(10):
        codebook = KMajorityCodebook(6, random_state=seed).fit([rows])
        assert codebook.n_empty_words_ == 0
        words = codebook.predict([rows])
        assert not set(words[:20]) & set(words[20:])


def test_more_words_than_distinct_descriptors():
    rows = np.array([[1], [1], [7], [9]], dtype=np.uint8)
    with pytest.warns(UserWarning, match=r"2 of n_words=5 words stay empty, 2 of them as repetitions.* 4 descriptors"):
        codebook = KMajorityCodebook(5, random_state=0).fit([rows])
    assert codebook.inertia_ == 0 and len(codebook.cluster_centers_) == 5
    assert codebook.n_empty_words_ == codebook.n_duplicate_words_ == 2
    words = codebook.predict([rows])
    assert words[0] == words[1] and len(set(words)) == 3


def test_sample_is_bounded_and_seeded(rng):
    rows, _, _ = clustered(rng, 500)
    fits = [KMajorityCodebook(4, max_samples=100, random_state=seed).fit([rows]) for seed in (0, 0, 1)]
    assert fits[0].n_samples_ == 100
    np.testing.assert_array_equal(fits[0].cluster_centers_, fits[1].cluster_centers_)
    assert not np.array_equal(fits[0].cluster_centers_, fits[2].cluster_centers_)


@pytest.mark.parametrize("estimator", list(BINARY_CODEBOOKS.values()), ids=list(BINARY_CODEBOOKS))
@pytest.mark.parametrize(
    "check",
    [
        contract.test_init_stores_its_parameters_and_nothing_else,
        contract.test_clone_and_params,
        contract.test_fit_returns_self_and_fitted_names_end_in_an_underscore,
        contract.test_unfitted_is_said,
        contract.test_input_is_not_changed_and_may_be_read_only,
        contract.test_permuting_images_permutes_the_output_and_nothing_else,
        contract.test_batches_do_not_change_a_bit,
        contract.test_jobs_do_not_change_a_bit,
        contract.test_one_image_and_only_empty_images,
        contract.test_fitting_on_one_image,
        contract.test_same_seed_same_result,
        contract.test_wrong_dimension_names_both_numbers,
        contract.test_a_bare_matrix_is_refused_by_name,
        contract.test_saved_and_loaded_it_returns_the_same_bits,
        contract.test_its_configuration_is_plain_json,
    ],
    ids=lambda check: check.__name__,
)
def test_contract(estimator, check, X, rng, tmp_path):
    """The contract of codebooks on bytes; the checks on float input are those that do not apply."""
    arguments = {"estimator": estimator, "X": X, "rng": rng, "tmp_path": tmp_path}
    names = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: arguments[name] for name in names})


def test_list_and_container_are_the_same(X):
    arrays = [image.descriptors for image in X]
    fits = [KMajorityCodebook(5, random_state=0).fit(data) for data in (X, arrays)]
    np.testing.assert_array_equal(fits[0].cluster_centers_, fits[1].cluster_centers_)
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(arrays))


def test_numbers_are_refused(rng):
    X = [rng.normal(size=(9, 16))]
    with pytest.raises(ValueError, match="KMajorityCodebook compares descriptors by Hamming.*Got an array of float32"):
        KMajorityCodebook(2).fit(X)
    fitted = KMajorityCodebook(2, random_state=0).fit([rng.integers(0, 256, (9, 16), dtype=np.uint8)])
    with pytest.raises(ValueError, match="needs binary ones"):
        fitted.predict(X)
    assert fitted.predict([None]).shape == (0,)


@pytest.mark.parametrize("parameters", [{"n_words": 0}, {"max_samples": 0}, {"max_iter": 0}])
def test_bad_parameters_are_named(X, parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of KMajorityCodebook"):
        KMajorityCodebook(**parameters).fit(X)


def test_bags_of_binary_words(rng):
    blocks = [np.kron(rng.integers(0, 256, (20, 20)), np.ones((12, 12))).astype(np.uint8) for _ in range(4)]
    features = OpenCVFeatures("ORB").transform([*blocks, np.zeros((80, 80), np.uint8)])
    codebook = KMajorityCodebook(10, random_state=0).fit(features)
    encoder = BagOfWords(codebook=codebook, norm=None).fit(features)
    counts = encoder.transform(features)
    words = np.split(codebook.predict(features), features.offsets[1:-1])
    np.testing.assert_array_equal(counts, [np.bincount(w, minlength=10) for w in words])
    np.testing.assert_array_equal(clone(encoder).fit(features).transform(features), counts)
    restored = set_state(from_config(to_config(encoder)), *get_state(encoder))
    np.testing.assert_array_equal(restored.transform(features), counts)


def test_vlad_refuses_binary_words(X):
    codebook = KMajorityCodebook(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"VLAD subtracts words.*KMajorityCodebook has metric='hamming'; BagOfWords"):
        VLAD(codebook=codebook).fit(X)


def test_binary_features_from_images_to_verified_hits(tmp_path):
    scenes = make_scenes(n_scenes=3, n_views=3, random_state=1)
    extractor = OpenCVFeatures("ORB", max_features=600)
    codebook = KMajorityCodebook(80, random_state=0).fit(extractor.transform(scenes.images))
    retriever = ImageRetriever(
        extractor=extractor,
        encoder=BagOfWords(codebook=codebook),
        verifier=SpatialVerifier(metric="hamming"),
        location=tmp_path / "binary.cvr",
    ).fit(scenes.images, ids=[str(i) for i in range(9)])
    retriever.close()
    result = ImageRetriever.load(tmp_path / "binary.cvr").search(scenes.images, k=3)
    for query, ids in enumerate(result.ids):
        assert [scenes.labels[int(i)] for i in ids] == [scenes.labels[query]] * 3
        assert ids[0] == str(query)
    assert np.median([n for numbers in result.n_inliers for n in numbers]) > 20
