"""Features in chunks: one door, one pass, and samples that do not depend on where the chunks are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA

from cvretrieval import VLAD, BagOfWords, KMajorityCodebook, KMeansCodebook, LocalFeatures, PerDescriptor
from cvretrieval._state import get_state
from cvretrieval.feature_chunks import check_feature_chunks, sample_descriptors

LENGTHS = [3, 0, 40, 7, 0, 0, 25, 1, 30]


def numbered(lengths=LENGTHS, dtype=np.float32):
    """Descriptors that tell their row."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return LocalFeatures(np.repeat(np.arange(offsets[-1])[:, None], 2, axis=1).astype(dtype), offsets)


def cut(X, bounds):
    bounds = [0, *sorted(bounds), len(X)]
    return [X[a:b] for a, b in itertools.pairwise(bounds)]


def draw(X, size, seed=0):
    return sample_descriptors(X, size, np.random.RandomState(seed))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 120), st.lists(st.integers(0, len(LENGTHS)), max_size=6), st.integers(0, 5))
def test_a_sample_does_not_depend_on_the_cuts(size, bounds, seed):
    X = numbered()
    whole = draw(X, size, seed)
    assert len(whole) == min(size, X.n_descriptors) and (np.diff(whole[:, 0]) > 0).all()
    np.testing.assert_array_equal(draw(iter(cut(X, bounds)), size, seed), whole)
    np.testing.assert_array_equal(draw(cut(X, bounds), size, seed), whole)


def test_every_row_is_drawn_equally_often():
    X, counts = numbered(), np.zeros(sum(LENGTHS))
    for seed in range(3000):
        counts[draw(cut(X, [2, 5]), 20, seed)[:, 0].astype(int)] += 1
    share = 20 / len(counts)
    expected = 3000 * share
    chi2 = ((counts - expected) ** 2).sum() / (expected * (1 - share))
    # The statistic has about 105 degrees of freedom and a standard deviation of 14.5.
    assert abs(chi2 - len(counts)) < 4 * np.sqrt(2 * len(counts))
    assert not np.array_equal(draw(X, 20, 0), draw(X, 20, 1))


def test_the_random_state_is_drawn_from_only_when_there_is_something_to_leave_out():
    states = [np.random.RandomState(0) for _ in range(3)]
    sample_descriptors(cut(numbered(), [3]), 106, states[0])
    sample_descriptors(numbered(), 105, states[1])
    assert states[0].random_sample() == np.random.RandomState(0).random_sample()
    assert states[1].random_sample() == np.random.RandomState(0).random_sample(107)[106]


def test_a_container_that_is_taken_whole_is_not_copied(tmp_path):
    X = numbered()
    assert draw(X, 106) is X.descriptors
    np.save(tmp_path / "x.npy", X.descriptors)
    mapped = X.with_descriptors(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert np.shares_memory(draw(mapped, None), mapped.descriptors)
    np.testing.assert_array_equal(draw(mapped, 50), draw(X, 50))


def test_memory_is_bounded_by_the_sample():
    import tracemalloc

    def chunks():
        for i in range(200):
            yield LocalFeatures(np.full((5000, 16), i, np.float32), np.array([0, 5000]))

    tracemalloc.start()
    rows = draw(chunks(), 5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(rows)) > 190
    assert peak < 12 * rows.nbytes  # all chunks are 200 times as much


def test_bytes_stay_bytes_and_mixed_chunks_become_floats():
    X = numbered(dtype=np.uint8)
    assert draw(X, 30).dtype == draw(cut(X, [3]), 30).dtype == draw(cut(X, [3]), None).dtype == np.uint8
    parts = cut(X, [3])
    mixed = [parts[0], parts[1].with_descriptors(parts[1].descriptors.astype(np.float32))]
    for size in (10, 50, None):
        for chunks in (mixed, mixed[::-1]):
            rows = draw(chunks, size)
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(
                rows, draw([c.with_descriptors(c.descriptors.astype("f4")) for c in chunks], size)
            )


def test_images_and_chunks_go_through_the_same_door():
    images = [np.ones((2, 3)), None, np.zeros((1, 3))]
    for X in (images, iter(images), LocalFeatures.from_images(images), [LocalFeatures.from_images(images)]):
        chunks = check_feature_chunks(X)
        assert chunks.n_dims == 3 and not chunks.is_empty
        assert [chunk.n_descriptors for chunk in chunks] == [3]
    again = check_feature_chunks(check_feature_chunks(images))
    assert [len(chunk) for chunk in again] == [len(chunk) for chunk in again] == [3]
    for nothing in ([], iter([]), [None], [LocalFeatures.from_images([None])]):
        assert check_feature_chunks(nothing).is_empty


def test_an_iterator_is_passed_over_once():
    chunks = check_feature_chunks(iter(cut(numbered(), [4])), estimator=VLAD())
    assert sum(len(chunk) for chunk in chunks) == len(LENGTHS)
    with pytest.raises(ValueError, match="VLAD passes over the features more than once.*Give a list"):
        list(chunks)


def test_wrong_chunks_are_refused():
    X = numbered()
    with pytest.raises(TypeError, match="VLAD was given chunks of images: each must be LocalFeatures. Got ndarray"):
        list(check_feature_chunks([X, np.ones((2, 2))], estimator=VLAD()))
    other = LocalFeatures(np.ones((2, 5)), [0, 2])
    with pytest.raises(ValueError, match="chunks given to VLAD have descriptors of different dimensions: 2 and 5"):
        list(check_feature_chunks([X, other], estimator=VLAD()))
    with pytest.raises(ValueError, match="X has 2-d descriptors, but VLAD was fitted with 5-d"):
        check_feature_chunks([X], n_dims=5, estimator=VLAD())
    with pytest.raises(TypeError, match="VLAD expects LocalFeatures or a list of 2-D arrays. Got int"):
        check_feature_chunks(3, estimator=VLAD())


@pytest.mark.parametrize("size", [None, 90])
def test_a_descriptor_that_is_not_finite_names_its_image_through_all_chunks(size):
    X = numbered()
    X.descriptors[X.offsets[6] : X.offsets[7], 1] = np.nan
    with pytest.raises(ValueError, match="got descriptors of image 6 that are NaN"):
        draw(iter(cut(X, [2, 5])), size)


def state_arrays(estimator):
    return get_state(estimator)[0]


@pytest.mark.parametrize(
    "estimator",
    [
        KMeansCodebook(5, max_samples=60, random_state=0),
        KMeansCodebook(5, algorithm="minibatch", random_state=0),
        VLAD(n_words=5, max_samples=60, random_state=0),
        BagOfWords(n_words=5, max_samples=60, random_state=0),
        BagOfWords(n_words=5, assignment="soft", random_state=0),
        PerDescriptor(PCA(3, random_state=0), max_samples=60, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_fitting_on_chunks_is_fitting_on_all(estimator, rng):
    X = LocalFeatures.from_images([rng.normal(size=(n, 6)) for n in LENGTHS], n_dims=6)
    whole = clone(estimator).fit(X)
    sources = [cut(X, [1, 4])]
    if getattr(estimator, "assignment", "hard") != "soft":
        sources.append(part for part in cut(X, [0, 6, 8]))
    for source in sources:
        chunked = clone(estimator).fit(source)
        assert state_arrays(whole).keys() == state_arrays(chunked).keys()
        for name, array in state_arrays(whole).items():
            np.testing.assert_array_equal(array, state_arrays(chunked)[name])


def test_binary_codebook_on_chunks(rng):
    X = LocalFeatures.from_images([rng.integers(0, 256, (n, 4), dtype=np.uint8) for n in LENGTHS], n_dims=4)
    fitted = [KMajorityCodebook(4, max_samples=50, random_state=0).fit(source) for source in (X, iter(cut(X, [3, 6])))]
    np.testing.assert_array_equal(fitted[0].cluster_centers_, fitted[1].cluster_centers_)


def test_soft_assignment_learns_sigma_in_a_second_pass(rng):
    X = LocalFeatures.from_images([rng.normal(size=(20, 6)) for _ in range(4)])
    with pytest.raises(ValueError, match="BagOfWords passes over the features more than once"):
        BagOfWords(n_words=3, assignment="soft", random_state=0).fit(iter([X]))
    BagOfWords(n_words=3, assignment="soft", sigma=1.0, random_state=0).fit(iter([X]))


def test_empty_streams_are_refused_by_name():
    for X in ([], iter([]), [LocalFeatures.from_images([None])]):
        with pytest.raises(ValueError, match="KMeansCodebook cannot be fitted: none of the images has any descriptor"):
            KMeansCodebook(2).fit(X)
