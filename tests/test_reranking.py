"""Properties of the rerankers: their limits, chains, and expansion by local features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval import (
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    Diffusion,
    DiscriminativeQueryExpansion,
    KReciprocal,
    LocalFeatures,
    RerankingPipeline,
    SpatialQueryExpansion,
    Verification,
)
from cvretrieval.local_features import ImageFeatures
from cvretrieval.reranking import VerifiedMatches
from cvretrieval.reranking.back_projection import project_keypoints
from tests.reference.reranking import project_naive


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture
def db(rng):
    return unit(rng.normal(size=(60, 12)))


@pytest.fixture
def queries(rng):
    return unit(rng.normal(size=(5, 12)))


def by_cosine(db, queries):
    return np.argsort(-(queries @ db.T), axis=1)


# -- limits


@pytest.mark.parametrize(
    "reranker",
    [
        AverageQueryExpansion(0),
        AlphaQueryExpansion(0),
        AlphaQueryExpansion(10, 1e4),
        DatabaseAugmentation(0),
        DatabaseAugmentation(5, 1e4),
        KReciprocal(5, 3, 1.0),
        RerankingPipeline([("qe", AverageQueryExpansion(0)), ("dba", DatabaseAugmentation(0))]),
    ],
    ids=lambda reranker: repr(reranker).replace("\n", "")[:60],
)
def test_nothing_added_is_the_first_ranking(reranker, db, queries):
    np.testing.assert_array_equal(reranker.fit(db).rerank(queries)[0], by_cosine(db, queries))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(2, 30))
def test_alpha_zero_is_the_average(seed, n_neighbors, n_images):
    rng = np.random.default_rng(seed)
    X, queries = rng.normal(size=(n_images, 6)), rng.normal(size=(3, 6))
    expected = AverageQueryExpansion(n_neighbors).fit(X).rerank(queries)
    found = AlphaQueryExpansion(n_neighbors, 0).fit(X).rerank(queries)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_expansion_with_all_images_forgets_the_order(db, queries):
    """With alpha 0 and every image, only the query itself distinguishes the queries."""
    _, scores = AverageQueryExpansion(60).fit(db).rerank(queries)
    total = db.sum(axis=0)
    expected = np.sort(unit(queries + total) @ db.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_diffusion_without_spreading_ranks_by_the_neighbours(db, queries):
    """alpha 0: f = y."""
    indices, scores = Diffusion(8, 6, alpha=0).fit(db).rerank(queries)
    order = by_cosine(db, queries)
    np.testing.assert_array_equal(indices, order)
    similarities = np.take_along_axis(queries @ db.T, order, axis=1)
    np.testing.assert_allclose(scores[:, :6], similarities[:, :6] ** 3, atol=1e-6)
    np.testing.assert_allclose(scores[:, 6:], similarities[:, 6:] - 1, atol=1e-6)


def test_diffusion_truncated_to_everything_is_the_whole(db, queries):
    whole = Diffusion(8, 3, n_truncate=None).fit(db).rerank(queries)
    same = Diffusion(8, 3, n_truncate=60).fit(db).rerank(queries)
    nearly = Diffusion(8, 3, n_truncate=59).fit(db).rerank(queries)
    np.testing.assert_array_equal(same[0], whole[0])
    assert np.mean(nearly[0][:, :5] == whole[0][:, :5]) > 0.8


def test_diffusion_follows_a_manifold(rng):
    """Two half circles: the far end of the query's own comes before the nearer images of the other one."""
    t = np.linspace(0, np.pi, 80)
    own = np.column_stack([np.cos(t), np.sin(t), np.full(80, 0.15)])
    other = np.column_stack([np.cos(t), np.sin(t), np.full(80, -0.15)])
    X = np.vstack([own, other]) + 0.002 * rng.normal(size=(160, 3))
    by_distance = AverageQueryExpansion(0).fit(X).rerank(own[:1], k=80)[0]
    by_diffusion = Diffusion(6, 2, max_iter=500, tol=1e-10).fit(X).rerank(own[:1], k=80)[0]
    assert (by_distance < 80).mean() < 0.6
    assert (by_diffusion < 80).all()


def test_k_reciprocal_candidates_only(db, queries):
    """What is behind the candidates stays there, in its order."""
    order = by_cosine(db, queries)
    indices, scores = KReciprocal(5, 3, n_candidates=20).fit(db).rerank(queries)
    np.testing.assert_array_equal(indices[:, 20:], order[:, 20:])
    np.testing.assert_array_equal(np.sort(indices[:, :20]), np.sort(order[:, :20]))
    assert (indices[:, :20] != order[:, :20]).any()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_k_reciprocal_alone_and_jointly(db, queries):
    """A single query has no others to count."""
    alone = KReciprocal(5, 3).fit(db).rerank(queries[:1])
    jointly = KReciprocal(5, 3, joint_queries=True).fit(db).rerank(queries[:1])
    np.testing.assert_array_equal(jointly[1], alone[1])
    twice = np.repeat(queries[:1], 2, axis=0)
    assert (KReciprocal(5, 3, joint_queries=True).fit(db).rerank(twice)[1][0] != alone[1][0]).any()


def test_discriminative_expansion_without_negatives_is_the_average(db, queries):
    found = DiscriminativeQueryExpansion(10, 3).fit(db[:8]).rerank(queries)
    expected = AverageQueryExpansion(8).fit(db[:8]).rerank(queries)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


# -- verification


@pytest.mark.parametrize("kind", [AverageQueryExpansion, AlphaQueryExpansion, DiscriminativeQueryExpansion])
def test_only_verified_images_are_positive(kind, db, queries):
    """Verified images alone in a shorter list give the same; none verified leaves the query alone."""
    order = by_cosine(db, queries)[:, :10]
    verified = np.zeros(order.shape, dtype=bool)
    verified[:, [1, 4, 7]] = True
    found = kind(2, verified_only=True).fit(db).rerank(queries, order, verified=verified, k=60)
    expected = kind(2).fit(db).rerank(queries, order[:, [1, 4]], k=60)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-12)
    nothing = kind(2, verified_only=True).fit(db).rerank(queries, order, verified=verified & False, k=60)
    np.testing.assert_array_equal(nothing[0], kind(0).fit(db).rerank(queries, k=60)[0])


def test_the_mask_follows_its_images(db, queries):
    """In a chain, the second step finds the verified images where the first one has put them."""
    order = by_cosine(db, queries)
    verified = np.zeros(order.shape, dtype=bool)
    verified[:, 3] = True
    steps = [("dba", DatabaseAugmentation(4)), ("qe", AverageQueryExpansion(1, verified_only=True))]
    found = RerankingPipeline(steps).fit(db).rerank(queries, order, verified=verified)
    augmented = DatabaseAugmentation(4).fit(db).vectors_.astype(np.float64)
    expected = np.argsort(-unit(queries + augmented[order[:, 3]]) @ augmented.T, axis=1)
    np.testing.assert_array_equal(found[0], expected)


# -- chains


def test_a_chain_of_one_is_that_one(db, queries):
    for reranker in (AlphaQueryExpansion(4), DatabaseAugmentation(4), KReciprocal(5, 3), Diffusion(6, 3)):
        expected = reranker.fit(db).rerank(queries, k=9)
        found = RerankingPipeline([("only", reranker)]).fit(db).rerank(queries, k=9)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_expansion_before_diffusion_changes_its_query(db, queries):
    chain = RerankingPipeline([("qe", AverageQueryExpansion(5)), ("diffusion", Diffusion(8, 4))]).fit(db)
    nearest = by_cosine(db, queries)[:, :5]
    expanded = unit(queries + db[nearest].sum(axis=1))
    expected = Diffusion(8, 4).fit(db).rerank(expanded, k=12)
    found = chain.rerank(queries, k=12)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)


def test_chain_parameters(db):
    chain = RerankingPipeline([("qe", AlphaQueryExpansion()), ("diffusion", Diffusion())])
    assert {"qe", "qe__alpha", "diffusion__n_neighbors", "steps", "n_jobs"} <= set(chain.get_params())
    chain.set_params(qe__alpha=1.5, diffusion=KReciprocal())
    assert chain.steps[0][1].alpha == 1.5 and isinstance(chain.steps[1][1], KReciprocal)
    with pytest.raises(ValueError, match="nonsense"):
        chain.set_params(nonsense=1)


def test_chain_needs_verification_if_a_step_does():
    chain = RerankingPipeline([("a", Diffusion()), ("b", AverageQueryExpansion(verified_only=True))])
    assert chain.needs_verification
    assert not RerankingPipeline([("a", Diffusion()), ("b", AverageQueryExpansion())]).needs_verification


# -- local features


TRANSFORMS = {
    "similarity": np.array([[0.5, -1.2, 30], [1.2, 0.5, -8], [0, 0, 1]]),
    "affine": np.array([[1.4, 0.3, 3], [-0.2, 0.7, 11], [0, 0, 1]]),
    "mirror": np.array([[-1.0, 0.1, 90], [0, 1, 0], [0, 0, 1]]),
    "homography": np.array([[1.1, 0.2, 5], [-0.1, 0.9, 7], [1.5e-3, -1e-3, 1]]),
    "homography of other sign": -np.array([[1.1, 0.2, 5], [-0.1, 0.9, 7], [1.5e-3, -1e-3, 1]]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_projection_of_keypoints(rng, name):
    keypoints = (rng.uniform(size=(20, 4)) * [200, 100, 8, 2 * np.pi]).astype(np.float32)
    moved = project_keypoints(keypoints, TRANSFORMS[name], np.array([50.0, 50.0]))
    expected = np.array([project_naive(keypoint, TRANSFORMS[name]) for keypoint in keypoints])
    np.testing.assert_allclose(moved[:, :3], expected[:, :3], rtol=1e-4, atol=1e-3)
    assert (np.abs(np.angle(np.exp(1j * (moved[:, 3] - expected[:, 3])))) < 1e-3).all()
    assert (moved[:, 3] >= 0).all()


def test_projection_beyond_the_horizon():
    T = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])
    keypoints = np.array([[50, 10, 1, 0], [150, 10, 1, 0], [100, 10, 1, 0]], dtype=np.float32)
    moved = project_keypoints(keypoints, T, np.array([0.0, 0.0]))
    np.testing.assert_allclose(moved[0, :2], [100, 20])
    assert np.isnan(moved[1:]).all()


def match(rng, n_query=6, n_result=9):
    """A query, a result twice as large, and their verification by three inliers of four matches."""
    places = rng.uniform(10, 60, (n_query, 4)).astype(np.float32)
    query = ImageFeatures(rng.normal(size=(n_query, 8)).astype(np.float32), places, (100, 80))
    others = (rng.uniform(10, 60, (n_result, 4)) * 2).astype(np.float32)
    others[:3, :2] = 2 * places[:3, :2]
    others[7, :2] = 500  # outside of the query
    result = ImageFeatures(rng.normal(size=(n_result, 8)).astype(np.float32), others, (600, 600))
    pairs = np.array([[0, 0], [1, 1], [2, 2], [3, 5]])
    verification = Verification(3, pairs, np.array([True, True, True, False]), np.diag([2.0, 2.0, 1.0]))
    return query, result, verification


def test_spatial_expansion_adds_inliers(rng):
    query, result, verification = match(rng)
    expanded = SpatialQueryExpansion().expand(query, [(result, verification)])
    assert len(expanded.descriptors) == 6 + 3 and expanded.image_size == (100, 80)
    np.testing.assert_array_equal(expanded.descriptors[:6], query.descriptors)
    np.testing.assert_array_equal(expanded.descriptors[6:], result.descriptors[:3])
    np.testing.assert_allclose(expanded.keypoints[6:, :2], query.keypoints[:3, :2], rtol=1e-6)
    np.testing.assert_allclose(expanded.keypoints[6:, 2], result.keypoints[:3, 2] / 2, rtol=1e-6)


def test_spatial_expansion_by_region(rng):
    query, result, verification = match(rng)
    expanded = SpatialQueryExpansion(features="region").expand(query, [(result, verification)])
    np.testing.assert_array_equal(expanded.descriptors[6:], np.delete(result.descriptors, 7, axis=0))
    unsized = query._replace(image_size=None)
    fewer = SpatialQueryExpansion(features="region").expand(unsized, [(result, verification)])
    assert 6 + 3 <= len(fewer.descriptors) <= len(expanded.descriptors)


def test_spatial_expansion_leaves_out_what_was_rejected(rng):
    query, result, verification = match(rng)
    rejected = Verification(3, verification.matches, verification.inliers, verification.transform, reason="too few")
    same = SpatialQueryExpansion().expand(query, [(result, rejected)])
    np.testing.assert_array_equal(same.descriptors, query.descriptors)
    one = SpatialQueryExpansion(1).expand(query, [(result, rejected), (result, verification), (result, verification)])
    assert len(one.descriptors) == 6 + 3
    with pytest.raises(ValueError, match="keypoints"):
        SpatialQueryExpansion().expand(query._replace(keypoints=None), [(result, verification)])


def test_spatial_expansion_ranks_by_the_new_vector(rng):
    """With the mean of the descriptors as encoder, the new query is the mean with those of the result."""
    query, result, verification = match(rng)
    db = rng.normal(size=(20, 8))

    def encode(features: LocalFeatures):
        return np.stack([image.descriptors.mean(axis=0) for image in features])

    vector = query.descriptors.mean(axis=0, keepdims=True)
    order = by_cosine(unit(db), vector)
    third = int(order[0, 2])
    known = VerifiedMatches([query, None], [{third: (result, verification)}, {}], encode)
    reranker = SpatialQueryExpansion().fit(db)
    found, _ = reranker.rerank(np.repeat(vector, 2, axis=0), np.repeat(order, 2, axis=0), verified=known)
    new = np.concatenate([query.descriptors, result.descriptors[:3]]).mean(axis=0, keepdims=True)
    np.testing.assert_array_equal(found[0], by_cosine(unit(db), new)[0])
    np.testing.assert_array_equal(found[1], order[0])
    with pytest.raises(ValueError, match="VerifiedMatches"):
        reranker.rerank(vector, order, verified=np.ones(order.shape, dtype=bool))
