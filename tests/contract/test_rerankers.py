"""The contract of every reranker; a new one adds a line to the table."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from cvretrieval import (
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    DenseIndex,
    Diffusion,
    DiscriminativeQueryExpansion,
    InvertedIndex,
    KReciprocal,
    RerankingPipeline,
    SpatialQueryExpansion,
    load_model,
    save_model,
)
from cvretrieval._state import from_config, to_config
from cvretrieval.metrics import mean_average_precision
from cvretrieval.reranking import VerifiedMatches

RERANKERS = {
    "AverageQueryExpansion": AverageQueryExpansion(4),
    "AverageQueryExpansion-verified": AverageQueryExpansion(4, verified_only=True),
    "AlphaQueryExpansion": AlphaQueryExpansion(6, 2.0),
    "DiscriminativeQueryExpansion": DiscriminativeQueryExpansion(4, 20),
    "DiscriminativeQueryExpansion-verified": DiscriminativeQueryExpansion(4, 20, verified_only=True),
    "SpatialQueryExpansion": SpatialQueryExpansion(),
    "DatabaseAugmentation": DatabaseAugmentation(3, 2.0),
    "KReciprocal": KReciprocal(6, 3),
    "KReciprocal-few": KReciprocal(6, 3, n_candidates=20),
    "KReciprocal-joint": KReciprocal(6, 3, n_candidates=None, joint_queries=True),
    "Diffusion": Diffusion(8, 3),
    "Diffusion-truncated": Diffusion(8, 3, n_truncate=30),
    "Pipeline": RerankingPipeline(
        [("dba", DatabaseAugmentation(3)), ("qe", AlphaQueryExpansion(4)), ("diffusion", Diffusion(8, 3))]
    ),
    "Pipeline-reorder": RerankingPipeline([("qe", AverageQueryExpansion(2)), ("sets", KReciprocal(6, 3))]),
}

N_IMAGES, N_DIMS = 90, 16


@pytest.fixture(params=RERANKERS.values(), ids=RERANKERS.keys())
def reranker(request):
    return clone(request.param)


@pytest.fixture
def X(rng):
    """Thirty objects, three images each."""
    return (rng.normal(size=(30, N_DIMS)).repeat(3, axis=0) + 0.6 * rng.normal(size=(N_IMAGES, N_DIMS))).astype(
        np.float32
    )


@pytest.fixture
def queries(rng, X):
    return (X[::13] + 0.5 * rng.normal(size=X[::13].shape)).astype(np.float32)


@pytest.fixture
def labels():
    return np.arange(30).repeat(3)


def nothing_verified(n_queries):
    return VerifiedMatches([None] * n_queries, [{}] * n_queries, lambda features: np.empty((0, N_DIMS)))


def rerank(reranker, queries, **arguments):
    """Rerank with what the method needs to know of verification: the second of each list is verified, or none."""
    if reranker.needs_verification:
        indices = arguments.pop("indices", None)
        if indices is None:
            within, k = arguments.get("within"), len(reranker.vectors_)
            indices = AverageQueryExpansion(0).fit(reranker.vectors_).rerank(queries, k=k, within=within)[0]
        verified = np.zeros(indices.shape, dtype=bool)
        verified[:, 1:2] = True
        if isinstance(reranker, SpatialQueryExpansion):
            verified = nothing_verified(len(indices))
        arguments |= {"indices": indices, "verified": verified}
    return reranker.rerank(queries, **arguments)


def assert_lists(indices, scores, n_images):
    """Each image once, padding at the end, scores decreasing."""
    assert indices.dtype == np.int64 and scores.dtype == np.float64
    for row, values in zip(indices, scores, strict=True):
        found = row[row >= 0]
        assert len(np.unique(found)) == len(found) and (found < n_images).all()
        assert (row[len(found) :] == -1).all() and (values[len(found) :] == -np.inf).all()
        assert np.isfinite(values[: len(found)]).all()
        assert (np.diff(values[: len(found)]) <= 0).all()


def test_parameters_and_clone(reranker):
    params = reranker.get_params(deep=False)
    before = dict(params)
    copy = clone(reranker)
    assert repr(copy) == repr(reranker)
    for name, value in params.items():
        if name != "steps":
            assert reranker.set_params(**{name: value}).get_params()[name] == value
    assert reranker.get_params(deep=False) == before


def test_fit_stores_nothing_in_parameters_and_returns_self(reranker, X):
    before = repr(reranker)
    assert reranker.fit(X) is reranker
    assert repr(reranker) == before


def test_not_fitted(reranker, queries):
    with pytest.raises(NotFittedError, match=type(reranker).__name__):
        reranker.rerank(queries)
    with pytest.raises(NotFittedError):
        reranker.score(queries, np.zeros(len(queries)))


def test_ranks_the_whole_database(reranker, X, queries):
    indices, scores = rerank(reranker.fit(X), queries)
    assert indices.shape == scores.shape == (len(queries), N_IMAGES)
    assert_lists(indices, scores, N_IMAGES)
    assert (np.sort(indices, axis=1) == np.arange(N_IMAGES)).all()
    # Images of the query's object are among the first.
    assert np.mean(indices[:, :3] // 3 == np.arange(0, N_IMAGES, 13)[:, None] // 3) > 0.6


def test_a_prefix_of_the_list(reranker, X, queries):
    reranker.fit(X)
    indices, scores = rerank(reranker, queries)
    few, few_scores = rerank(reranker, queries, k=5)
    np.testing.assert_array_equal(few, indices[:, :5])
    np.testing.assert_allclose(few_scores, scores[:, :5], rtol=1e-12)


def test_k_larger_than_the_database(reranker, X, queries):
    indices, scores = rerank(reranker.fit(X[:7]), queries, k=20)
    assert indices.shape == (len(queries), 20)
    assert_lists(indices, scores, 7)
    assert (indices[:, :7] >= 0).all()


@pytest.mark.parametrize("n_images", [1, 2])
def test_hardly_any_images(reranker, X, queries, n_images):
    indices, scores = rerank(reranker.fit(X[:n_images]), queries, k=3)
    assert_lists(indices, scores, n_images)
    assert (np.sort(indices[:, :n_images], axis=1) == np.arange(n_images)).all()


def test_images_without_features_are_never_found(reranker, X, queries):
    X[[0, 40, 89]] = 0
    indices, scores = rerank(reranker.fit(X), queries)
    assert_lists(indices, scores, N_IMAGES)
    assert not np.isin(indices, [0, 40, 89]).any()
    assert (indices >= 0).sum(axis=1).tolist() == [N_IMAGES - 3] * len(queries)


def test_a_query_without_features_finds_nothing(reranker, X, queries):
    reranker.fit(X)
    expected, _ = rerank(reranker, queries[1:])
    queries[0] = 0
    indices, scores = rerank(reranker, queries)
    assert (indices[0] == -1).all() and (scores[0] == -np.inf).all()
    np.testing.assert_array_equal(indices[1:], expected)


def test_all_images_without_features(reranker, X, queries):
    indices, _ = rerank(reranker.fit(np.zeros_like(X)), queries)
    assert (indices == -1).all()


def test_equal_images_come_in_their_order(reranker, X, queries):
    indices, _ = rerank(reranker.fit(np.repeat(X[:1], 9, axis=0)), queries)
    np.testing.assert_array_equal(indices, [range(9)] * len(queries))


def test_input_containers(reranker, X, queries):
    expected = rerank(reranker.fit(X), queries)
    read_only = X.copy()
    read_only.setflags(write=False)
    for same in (X.tolist(), X.astype(np.float64), np.asfortranarray(X), read_only, X[::-1][::-1]):
        found = rerank(clone(reranker).fit(same), queries.tolist())
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_input_is_not_changed(reranker, X, queries):
    copies = X.copy(), queries.copy()
    reranker.fit(X)
    rerank(reranker, queries)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(queries, copies[1])
    X[:] = 0  # nor does what is changed afterwards
    assert (rerank(reranker, queries)[0] >= 0).all()


def test_norms_make_no_difference(reranker, X, queries, rng):
    expected = rerank(reranker.fit(X), queries)
    found = rerank(clone(reranker).fit(X * 2.0 ** rng.integers(-40, 40, (N_IMAGES, 1))), queries * 1024)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_permuting_the_database(reranker, X, queries, rng):
    indices, scores = rerank(reranker.fit(X), queries)
    order = rng.permutation(N_IMAGES)
    found, found_scores = rerank(clone(reranker).fit(X[order]), queries)
    np.testing.assert_allclose(found_scores, scores, atol=1e-6)
    # Rounding may swap images that are alike to the last digits.
    assert np.mean(order[found] == indices) > 0.99


def test_queries_do_not_disturb_each_other(reranker, X, queries):
    if reranker.get_params().get("joint_queries"):
        pytest.skip("ranks the queries of a call jointly, as asked for")
    reranker.fit(X)
    indices, scores = rerank(reranker, queries)
    for i in range(len(queries)):
        alone, alone_scores = rerank(reranker, queries[i : i + 1])
        np.testing.assert_array_equal(alone[0], indices[i])
        np.testing.assert_array_equal(alone_scores[0], scores[i])


def test_threads_do_not_change_a_bit(reranker, X, rng):
    queries = rng.normal(size=(150, N_DIMS)).astype(np.float32)
    many = clone(reranker)
    many.set_params(**{name: 3 for name in many.get_params() if name.endswith("n_jobs")})
    expected = rerank(reranker.fit(X), queries, k=30)
    found = rerank(many.fit(X), queries, k=30)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_fitting_twice_is_fitting_once(reranker, X, queries):
    reranker.fit(X[:20])
    indices, scores = rerank(reranker.fit(X), queries)
    expected = rerank(clone(reranker).fit(X), queries)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(scores, expected[1])


def test_given_lists(reranker, X, queries):
    """The list by cosine, given, is the one that is computed otherwise."""
    reranker.fit(X)
    initial = AverageQueryExpansion(0).fit(X).rerank(queries)[0]
    expected = rerank(reranker, queries)
    found = rerank(reranker, queries, indices=initial)
    assert np.mean(found[0] == expected[0]) > 0.99
    assert rerank(reranker, queries, indices=initial[:, :12])[0].shape == (len(queries), 12)


def test_within(reranker, X, queries, rng):
    reranker.fit(X)
    allowed = rng.permutation(N_IMAGES)[:25]
    indices, scores = rerank(reranker, queries, k=40, within=allowed)
    assert_lists(indices, scores, N_IMAGES)
    assert (indices[:, 25:] == -1).all() and (indices[:, :25] >= 0).all()
    assert np.isin(indices[:, :25], allowed).all()
    # A given list may hold others.
    initial = AverageQueryExpansion(0).fit(X).rerank(queries)[0]
    found, _ = rerank(reranker, queries, indices=initial, within=allowed)
    assert np.isin(found[found >= 0], allowed).all()
    assert (rerank(reranker, queries, k=3, within=[])[0] == -1).all()


def test_an_index_instead_of_an_array(reranker, X, queries):
    if reranker.needs_verification:
        pytest.skip("searches as its sibling without verification does")
    expected = rerank(reranker.fit(X), queries, k=20)
    index = DenseIndex().add(np.arange(50), X[:50]).add(np.arange(50, N_IMAGES), X[50:])
    fitted = clone(reranker).fit(index)
    found = fitted.rerank(queries, k=20)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    assert np.mean(found[0] == expected[0]) > 0.98
    assert fitted.rerank(queries, k=20, within=[3, 4])[0].max() <= 4


def test_index_of_another_metric(reranker, X):
    with pytest.raises(ValueError, match="cosine"):
        reranker.fit(DenseIndex("l2").add(np.arange(len(X)), X))
    with pytest.raises(ValueError, match="empty"):
        reranker.fit(DenseIndex())
    with pytest.raises(ValueError, match=r"dense vectors.*sparse"):
        reranker.fit(InvertedIndex())


def test_index_with_other_keys(X):
    index = DenseIndex().add(np.arange(N_IMAGES) + 5, X)
    with pytest.raises(ValueError, match="keys 0 to n − 1"):
        Diffusion(3).fit(index)


def test_bad_vectors(reranker, X, queries):
    for value in (np.nan, np.inf):
        X[3, 4] = value
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            reranker.fit(X)
    X[3, 4] = 0
    with pytest.raises(ValueError, match="1D array"):
        reranker.fit(X[0])
    with pytest.raises(ValueError, match=r"0 sample"):
        reranker.fit(X[:0])
    with pytest.raises(ValueError, match=r"infinity|large"):
        reranker.fit(np.full((3, N_DIMS), 1e300))
    reranker.fit(X)
    with pytest.raises(ValueError, match=rf"3 features.*{N_DIMS}"):
        rerank(reranker, queries[:, :3], indices=np.zeros((len(queries), 1), dtype=int))
    with pytest.raises(ValueError, match="NaN"):
        reranker.rerank(np.full((1, N_DIMS), np.nan))


def test_bad_lists(reranker, X, queries):
    reranker.fit(X)
    n = len(queries)
    with pytest.raises(ValueError, match=rf"one ranked list for each of {n} queries"):
        reranker.rerank(queries, np.zeros((n + 1, 3), dtype=int))
    with pytest.raises(ValueError, match=r"in \[-1, 89\].*90"):
        reranker.rerank(queries, np.full((n, 1), 90))
    with pytest.raises(ValueError, match="integers"):
        reranker.rerank(queries, np.zeros((n, 1)))
    with pytest.raises(ValueError, match="at most once"):
        reranker.rerank(queries, np.zeros((n, 2), dtype=int))
    with pytest.raises(ValueError, match=r"in \[0, 89\]"):
        reranker.rerank(queries, within=[-1])
    with pytest.raises(ValueError, match="'k'"):
        reranker.rerank(queries, k=0)
    with pytest.raises(ValueError, match="give indices"):
        reranker.rerank(queries, verified=np.ones((n, 2), dtype=bool))
    lists = np.tile(np.arange(2), (n, 1))
    with pytest.raises(ValueError, match=rf"bool of shape \({n}, 2\)"):
        reranker.rerank(queries, lists, verified=np.ones((n, 3), dtype=bool))
    with pytest.raises(ValueError, match=f"1 queries, but there are {n}"):
        reranker.rerank(queries, lists, verified=nothing_verified(1))
    if reranker.needs_verification:
        with pytest.raises(ValueError, match="verified"):
            reranker.rerank(queries)


def test_no_queries(reranker, X):
    reranker.fit(X)
    indices, scores = rerank(reranker, np.empty((0, N_DIMS)), k=4, indices=np.empty((0, 3), dtype=int))
    assert indices.shape == scores.shape == (0, 4)


def test_score_is_the_mean_average_precision(reranker, X, queries, labels):
    reranker.fit(X, labels)
    truth = labels[::13]
    if reranker.needs_verification:
        with pytest.raises(ValueError, match="verified"):
            reranker.score(queries, truth)
        return
    relevant = [np.flatnonzero(labels == label) for label in truth]
    expected = mean_average_precision(reranker.rerank(queries)[0], relevant, convention="finite_sum")
    assert reranker.score(queries, truth) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="one label for each"):
        reranker.score(queries, truth[:-1])
    with pytest.raises(ValueError, match="undefined"):
        reranker.score(queries, np.full(len(queries), -5))
    with pytest.raises(ValueError, match="without labels"):
        reranker.fit(X).score(queries, truth)
    with pytest.raises(ValueError, match="one label for each of 90 images"):
        reranker.fit(X, labels[:5])


def test_grid_search_in_a_pipeline(reranker, X, labels):
    if reranker.needs_verification:
        pytest.skip("nothing is verified in a cross-validation of vectors")
    name = next(key for key in reranker.get_params() if key.endswith(("n_neighbors", "n_positives")))
    line = make_pipeline(Normalizer(), reranker)
    grid = {f"{type(reranker).__name__.lower()}__{name}": [2, 3]}
    search = GridSearchCV(line, grid, cv=KFold(3, shuffle=True, random_state=0)).fit(X, labels)
    assert 0.3 < search.best_score_ <= 1
    assert search.best_estimator_.score(X[:5], labels[:5]) > 0.5


@pytest.mark.parametrize("labelled", [False, True])
def test_save_and_load(reranker, X, queries, labels, labelled, tmp_path):
    reranker.fit(X, labels.astype(str) if labelled else None)
    assert repr(from_config(to_config(reranker))) == repr(reranker)
    loaded = load_model(save_model(reranker, tmp_path / "reranker.cvm"))
    assert type(loaded) is type(reranker) and repr(loaded) == repr(reranker)
    expected, found = rerank(reranker, queries), rerank(loaded, queries)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    if labelled:
        assert loaded.labels_.tolist() == labels.astype(str).tolist()
    with pytest.raises(ValueError, match=rf"3 features.*{N_DIMS}"):
        rerank(loaded, queries[:, :3], indices=np.zeros((len(queries), 1), dtype=int))


def test_pickle(reranker, X, queries):
    reranker.fit(X)
    expected = rerank(reranker, queries)
    found = rerank(pickle.loads(pickle.dumps(reranker)), queries)
    np.testing.assert_array_equal(found[0], expected[0])


def test_a_reranker_of_an_index_is_saved_without_it(X, queries, tmp_path):
    reranker = Diffusion(5).fit(DenseIndex().add(np.arange(N_IMAGES), X))
    loaded = load_model(reranker.save(tmp_path / "diffusion.cvm"))
    with pytest.raises(NotFittedError, match="index"):
        loaded.rerank(queries)


BAD = [
    (AverageQueryExpansion(-1), "n_neighbors"),
    (AverageQueryExpansion(2.5), "n_neighbors"),
    (AverageQueryExpansion(verified_only=1), "verified_only"),
    (AlphaQueryExpansion(alpha=-1), "alpha"),
    (AlphaQueryExpansion(alpha=np.inf), "alpha"),
    (DiscriminativeQueryExpansion(n_negatives=0), "n_negatives"),
    (DiscriminativeQueryExpansion(C=0), "C"),
    (SpatialQueryExpansion(features="all"), "features"),
    (DatabaseAugmentation(alpha="3"), "alpha"),
    (KReciprocal(0), "n_neighbors"),
    (KReciprocal(5, 7), "n_expansion"),
    (KReciprocal(distance_weight=1.5), "distance_weight"),
    (KReciprocal(n_candidates=0), "n_candidates"),
    (KReciprocal(joint_queries="yes"), "joint_queries"),
    (Diffusion(0), "n_neighbors"),
    (Diffusion(alpha=1), "alpha"),
    (Diffusion(gamma=0), "gamma"),
    (Diffusion(max_iter=0), "max_iter"),
    (Diffusion(n_truncate=0), "n_truncate"),
    (RerankingPipeline([]), "steps"),
    (RerankingPipeline([("a", DenseIndex())]), "steps"),
    (RerankingPipeline([("a", RerankingPipeline([("b", Diffusion())]))]), "steps"),
    (RerankingPipeline([("a", Diffusion()), ("a", Diffusion())]), "unique"),
    (RerankingPipeline([("a", Diffusion(alpha=2))]), "alpha"),
]


@pytest.mark.parametrize(("reranker", "name"), BAD, ids=[f"{type(r).__name__}-{n}-{i}" for i, (r, n) in enumerate(BAD)])
def test_bad_parameters(reranker, name, X):
    with pytest.raises(ValueError, match=name):
        reranker.fit(X)


def test_nothing_quadratic_is_held(rng):
    """Twenty thousand images: a full float32 matrix alone would be 1.6 GB."""
    X = rng.normal(size=(20_000, 8)).astype(np.float32)
    for reranker in (KReciprocal(10, 4, n_candidates=200), Diffusion(10, n_truncate=500), DatabaseAugmentation(3)):
        reranker.fit(X[:100]).rerank(X[:1], k=5)  # compile
        tracemalloc.start()
        reranker.fit(X).rerank(X[:2], k=5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6


def test_every_reranker_is_in_the_table():
    from cvretrieval import reranking

    public = {name for name in reranking.__all__ if isinstance(getattr(reranking, name), type)}
    tested = {type(reranker).__name__ for reranker in RERANKERS.values()}
    assert public - {"Reranker", "VerifiedMatches"} == tested
