"""Rerankers against the numbers of other programs and slow twins; see tests/data/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from cvretrieval import (
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    Diffusion,
    DiscriminativeQueryExpansion,
    KReciprocal,
    RerankingPipeline,
)
from cvretrieval.reranking.diffusion import normalized, solve
from tests.parity import agree
from tests.reference.reranking import (
    conjugate_gradient_naive,
    expand_naive,
    k_reciprocal_naive,
    mutual_affinities_naive,
    transitions_naive,
)

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def reference():
    return dict(np.load(DATA / "reranking.npz"))


@pytest.fixture(scope="module")
def diffusion():
    return dict(np.load(DATA / "diffusion.npz"))


def by_image(indices, scores):
    """Scores in the order of the images."""
    result = np.empty_like(scores)
    np.put_along_axis(result, indices, scores, axis=1)
    return result


@pytest.mark.parametrize("k", [1, 5, 10, 20])
@pytest.mark.parametrize("alpha", [0, 1, 3])
def test_query_expansion(reference, k, alpha):
    db, queries, expected = reference["db"], reference["queries"], reference[f"dir_qe_k{k}_alpha{alpha}"]
    rerankers = [AlphaQueryExpansion(k, alpha)] + ([AverageQueryExpansion(k)] if alpha == 0 else [])
    for reranker in rerankers:
        indices, scores = reranker.fit(db).rerank(queries)
        agree("query-expansion", by_image(indices, scores), expected @ db.T, 3e-7)
        np.testing.assert_array_equal(indices, np.argsort(-expected @ db.T, axis=1))


@pytest.mark.parametrize("k,alpha", [(5, 3), (10, 0), (10, 1), (10, 3)])
def test_database_augmentation(reference, k, alpha):
    expected = reference[f"dir_dba_k{k}_alpha{alpha}"]
    reranker = DatabaseAugmentation(k, alpha).fit(reference["db"])
    agree("database-augmentation", reranker.vectors_, expected, 2e-7)
    indices, scores = reranker.rerank(reference["queries"])
    np.testing.assert_allclose(by_image(indices, scores), reference["queries"] @ expected.T, atol=4e-7)


def test_augmentation_then_expansion(reference):
    chain = RerankingPipeline([("dba", DatabaseAugmentation(10, 3)), ("qe", AlphaQueryExpansion(10, 3))])
    indices, scores = chain.fit(reference["db"]).rerank(reference["queries"])
    expected = reference["dir_dba_then_qe_k10_alpha3"] @ reference["dir_dba_k10_alpha3"].T
    np.testing.assert_allclose(by_image(indices, scores), expected, atol=5e-7)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (20, 1, 0.3), (7, 3, 0.0), (20, 6, 1.0)])
def test_k_reciprocal(reference, k1, k2, weight):
    expected = reference[f"kreciprocal_k1_{k1}_k2_{k2}_lam{weight}/euclid_dist"]
    reranker = KReciprocal(k1, k2, weight, n_candidates=None, joint_queries=True).fit(reference["db"])
    indices, scores = reranker.rerank(reference["queries"])
    agree("k-reciprocal", by_image(indices, -scores), expected, 1e-5)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 4, 0.0), (3, 1, 0.5)])
def test_k_reciprocal_of_single_queries(reference, k1, k2, weight):
    """Each query alone with the database: the definition on n + 1 nodes."""
    db, queries = reference["db"], reference["queries"][:3]
    indices, scores = KReciprocal(k1, k2, weight, n_candidates=None).fit(db).rerank(queries)
    for query, distances in zip(queries, by_image(indices, -scores), strict=True):
        nodes = np.vstack([db, query])
        expected = k_reciprocal_naive(nodes @ nodes.T, k1, k2, weight)[-1, :-1]
        np.testing.assert_allclose(distances, expected, atol=1e-6)


CASES = {
    "k15_kq5_gamma3_alpha0.99": (15, 5, 3, 0.99),
    "k8_kq3_gamma3_alpha0.99": (8, 3, 3, 0.99),
    "k15_kq5_gamma1_alpha0.9": (15, 5, 1, 0.9),
    "k50_kq10_gamma3_alpha0.99": (50, 10, 3, 0.99),
}


@pytest.mark.parametrize("case", CASES)
def test_diffusion_graph_and_solver(diffusion, case):
    k, k_query, gamma, alpha = CASES[case]
    reranker = Diffusion(k, k_query, gamma=gamma, alpha=alpha).fit(diffusion["db"])
    affinity = diffusion[f"{case}/affinity"]
    np.testing.assert_allclose(reranker.graph_.toarray(), affinity, atol=2e-7)
    transitions = normalized(sparse.csr_array(affinity.astype(np.float64)))
    # Only one affinity is given in float64.
    exact, few = (1e-10, 1e-8) if affinity.dtype == np.float64 else (3e-7, 3e-7)
    solutions, n_iter = solve(transitions, diffusion[f"{case}/y"], alpha, 20, 1e-6)
    agree("diffusion", solutions, diffusion[f"{case}/f_cg20"], few)
    np.testing.assert_array_equal(n_iter, diffusion[f"{case}/cg_iterations"])
    solutions, _ = solve(transitions, diffusion[f"{case}/y"], alpha, 1000, 1e-14)
    np.testing.assert_allclose(solutions, diffusion[f"{case}/f_exact"], atol=exact)


@pytest.mark.parametrize("case", CASES)
def test_diffusion_ranking(diffusion, case):
    k, k_query, gamma, alpha = CASES[case]
    reranker = Diffusion(k, k_query, gamma=gamma, alpha=alpha).fit(diffusion["db"])
    expected = diffusion[f"{case}/f_cg20"].T
    scores = by_image(*reranker.rerank(diffusion["queries"]))
    reached = expected > 1e-5
    assert reached.mean() > 0.3
    np.testing.assert_allclose(scores[reached], expected[reached], atol=3e-6)
    indices, _ = reranker.set_params(max_iter=1000, tol=1e-12).rerank(diffusion["queries"], k=20)
    np.testing.assert_array_equal(indices, diffusion[f"{case}/rank_exact_top20"])


def test_truncated_diffusion(diffusion):
    """The graph of the nearest images alone, normalised anew, and solved as the whole one."""
    db, queries, n_truncate = diffusion["db"], diffusion["queries"], 40
    reranker = Diffusion(15, 5, n_truncate=n_truncate).fit(db)
    scores = by_image(*reranker.rerank(queries))
    A = mutual_affinities_naive(db @ db.T, 15, 3.0)
    for query, found in zip(queries, scores, strict=True):
        order = np.argsort(-db @ query)
        nodes = order[:n_truncate]
        y = np.zeros(n_truncate)
        y[:5] = np.maximum(db[nodes[:5]] @ query, 0) ** 3
        f, _ = conjugate_gradient_naive(
            np.eye(n_truncate) - 0.99 * transitions_naive(A[np.ix_(nodes, nodes)]), y, 20, 1e-6
        )
        reached = f > 1e-5
        np.testing.assert_allclose(found[nodes[reached]], f[reached], atol=3e-6)
        # What is not reached follows by cosine.
        rest = order[n_truncate:]
        np.testing.assert_allclose(found[rest], db[rest] @ query - 1, atol=1e-6)


def test_expansion_twin(reference):
    db, query = reference["db"], reference["queries"][0]
    nearest = np.argsort(-db @ query)[:7]
    _, scores = AlphaQueryExpansion(7, 2.5).fit(db).rerank([query])
    expected = np.sort(db @ expand_naive(query, db[nearest], 2.5))[::-1]
    np.testing.assert_allclose(scores[0], expected, atol=3e-7)


def test_discriminative_expansion_minimises_its_objective(reference):
    """The direction is that of the minimum of the squared hinge loss, found by plain gradient descent."""
    db, query = reference["db"], reference["queries"][0]
    order = np.argsort(-db @ query)
    X = np.vstack([query, db[order[:5]], db[order[-20:]]])
    y = np.where(np.arange(26) < 6, 1.0, -1.0)
    Z = np.column_stack([X, np.ones(26)])
    w = np.zeros(25)
    for _ in range(20_000):
        slack = np.maximum(0, 1 - y * (Z @ w))
        w -= 0.005 * (w - 2 * Z.T @ (y * slack))
    indices, scores = DiscriminativeQueryExpansion(5, 20).fit(db).rerank([query])
    expected = db @ (w[:-1] / np.linalg.norm(w[:-1]))
    np.testing.assert_allclose(by_image(indices, scores)[0], expected, atol=1e-3)
