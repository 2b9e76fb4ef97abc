"""What is special about search by faiss's structures: the recall that is promised, and what they must not change."""

from __future__ import annotations

import sys
import warnings
from functools import partial

import numpy as np
import pytest

from cvretrieval import BinaryIndex, DenseIndex, FaissIndex, StoreError
from cvretrieval.index.faiss_structure import BINARY, DENSE, Effort, Structure
from cvretrieval.index.faiss_tuning import Measured, effort_for, share_found, tune
from tests.parity import agree

N, N_DIMS = 12_000, 24
KEYS = np.arange(N) * 3

METRICS = ("cosine", "inner_product", "l2")


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(400, N_DIMS))
    rows = (centers[rng.integers(0, 400, N)] + 0.4 * rng.normal(size=(N, N_DIMS))).astype(np.float32)
    rows.setflags(write=False)
    return rows


@pytest.fixture(scope="module")
def built(vectors):
    """Indexes by structure and metric, each built once; tests that change one copy it first."""
    known = {}

    def build(structure, metric="cosine"):
        if (structure, metric) not in known:
            index = FaissIndex(metric, structure=structure, n_train=10_000)
            known[structure, metric] = index.add(KEYS, vectors)
        return known[structure, metric]

    return build


def recall(found, exact):
    """Share of the best scores that were reached."""
    return (found[1] >= exact[1][:, -1:]).mean()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("structure", ["ivf_flat", "ivf_sq", "hnsw"])
def test_the_promised_recall_is_kept_on_other_queries_than_it_was_measured_with(structure, metric, vectors, built):
    index, exact = built(structure, metric), DenseIndex(metric).add(KEYS, vectors)
    assert 0.95 <= index.recall_ <= 1
    queries = np.random.default_rng(6).permutation(vectors)[:400]
    for k in (10, 60):
        best = exact.search(queries, k)
        found = index.search(queries, k)
        assert recall(found, best) >= 0.93
        # Every score is the exact one.
        for keys, scores, right in zip(*found, map(dict, map(zip, *best)), strict=True):
            assert all(right.get(key, score) == score for key, score in zip(keys, scores, strict=True))


def test_product_codes_reach_the_recall_as_their_candidates_are_ranked_anew(vectors, built):
    index = built("ivf_pq", "l2")
    assert index.recall_ >= 0.95
    queries = vectors[:300] + 0.01
    assert recall(index.search(queries, 10), DenseIndex("l2").add(KEYS, vectors).search(queries, 10)) >= 0.92
    np.testing.assert_array_equal(index.reconstruct(KEYS[:9]), vectors[:9])


def test_a_higher_recall_takes_more_effort(vectors):
    index = FaissIndex("l2", structure="ivf_flat", n_train=10_000, recall=0.5).add(KEYS, vectors)
    low = index.measured_
    high = index.set_params(recall=0.999).tune().measured_
    assert low[0].effort.n_probes < high[0].effort.n_probes
    assert 0.5 <= low[0].recall < high[0].recall >= 0.999


def test_efforts_are_for_the_length_of_the_list(built):
    index = built("ivf_sq", "l2")
    assert [each.depth for each in index.measured_] == [10, 100]
    assert index.measured_[0].effort.n_probes <= index.measured_[1].effort.n_probes
    measured = (Measured(10, Effort(2, 1), 1.0), Measured(100, Effort(9, 1), 1.0))
    assert [effort_for(measured, depth) for depth in (1, 10, 11, 100, 101)] == [
        measured[0].effort, measured[0].effort, measured[1].effort, measured[1].effort, None,
    ]  # fmt: skip


@pytest.mark.parametrize("metric", [*METRICS, "hamming"])
def test_the_flat_structure_is_exact_also_where_many_scores_are_equal(metric, rng):
    """Small integers, zero vectors among them; and one vector of a thousand copies."""
    if metric == "hamming":
        vectors = rng.integers(0, 4, (4000, 4)).astype(np.uint8)
        exact = BinaryIndex()
    else:
        vectors = rng.integers(-1, 2, (4000, 6)).astype(np.float32)
        exact = DenseIndex(metric)
    vectors[1000:2000] = vectors[0]
    keys = rng.permutation(4000)
    index = FaissIndex(metric, structure="flat", n_train=100).add(keys, vectors)
    assert index.exact and index.recall_ == 1 and index.stats()["structure"] == "flat"
    queries = np.concatenate([vectors[:40], 0 * vectors[:1]])
    exact.add(keys, vectors)
    for k in (1, 10, 150):
        for ours, theirs in zip(index.search(queries, k), exact.search(queries, k), strict=True):
            agree("faiss-flat", ours, theirs, 0)


def test_flat_candidates_that_say_too_little_are_noticed(rng):
    """Distances far above their differences, which float32 loses: faiss's order is not to be trusted."""
    vectors = (1000 + 1e-3 * rng.normal(size=(5000, 16))).astype(np.float32)
    index = FaissIndex("l2", structure="flat", n_train=100).add(np.arange(5000), vectors)
    expected = DenseIndex("l2").add(np.arange(5000), vectors).search(vectors[:60], 10)
    for ours, theirs in zip(index.search(vectors[:60], 10), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("structure", ["ivf_sq", "hnsw"])
@pytest.mark.parametrize("share", [0.7, 0.2, 0.02])
def test_within_and_removal_cost_no_recall(structure, share, vectors):
    rng = np.random.default_rng(1)
    index = FaissIndex("l2", structure=structure, n_train=2_000).add(KEYS, vectors)
    allowed = KEYS[rng.random(N) < share]
    exact = DenseIndex("l2").add(KEYS, vectors)
    queries = vectors[:200] + 0.02
    best = exact.search(queries, 10, within=allowed)
    found = index.search(queries, 10, within=allowed)
    assert np.isin(found[0], allowed).all() and recall(found, best) >= 0.92
    index.remove(np.setdiff1d(KEYS, allowed))
    found = index.search(queries, 10)
    assert np.isin(found[0], allowed).all() and recall(found, best) >= 0.92
    index.compact()
    assert len(index) == index.stats()["n_vectors"] == len(allowed) and index.stats()["n_removed"] == 0
    assert recall(index.search(queries, 10), best) >= 0.92


def test_new_vectors_are_found_before_and_after_the_structure_takes_them_in(vectors):
    index = FaissIndex("l2", structure="ivf_flat", n_train=4000)
    assert index.recall_ == 1 and index.measured_ == ()
    index.add(KEYS[:3999], vectors[:3999])
    assert index.stats()["structure"] is None
    index.add(KEYS[3999:4000], vectors[3999:4000])
    assert index.stats()["structure"] == "ivf_flat" and index.stats()["n_structured"] == 4000
    for stop, structured in ((5000, 4000), (5200, 5200), (5201, 5200), (N, N)):
        index.add(KEYS[len(index) : stop], vectors[len(index) : stop])
        assert index.stats()["n_structured"] == structured
        rows = np.arange(stop - 150, stop)
        keys, scores = index.search(vectors[rows], 1)
        assert (keys[:, 0] == KEYS[rows]).mean() > 0.95 and (scores[keys[:, 0] == KEYS[rows], 0] == 0).all()


def test_it_is_built_anew_when_it_has_grown(vectors):
    index = FaissIndex("l2", structure="ivf_flat", n_train=1000).add(KEYS[:1000], vectors[:1000])
    n_lists = index._state.structure.index.nlist
    index.add(KEYS[1000:3000], vectors[1000:3000])
    assert index._state.structure.index.nlist == n_lists and index._state.n_measured == 3000
    index.add(KEYS[3000:5000], vectors[3000:5000])
    assert index._state.structure.index.nlist > n_lists and index._state.structure.n_learned == 5000


@pytest.mark.parametrize("structure", ["ivf_sq", "hnsw"])
def test_threads_and_repetition_do_not_change_a_bit(structure, vectors):
    def run(n_jobs):
        index = FaissIndex("cosine", structure=structure, n_train=2000, n_jobs=n_jobs)
        for part in np.array_split(np.arange(6000), 3):
            index.add(KEYS[part], vectors[part])
        return index.measured_, index.search(vectors[:300], 10), index._state.structure.to_bytes()

    first = run(1)
    for n_jobs in (1, 2):
        again = run(n_jobs)
        assert again[0] == first[0]
        np.testing.assert_array_equal(again[1][0], first[1][0])
        np.testing.assert_array_equal(again[2], first[2])


def test_tune_measures_with_the_queries_to_come(vectors):
    index = FaissIndex("l2", structure="ivf_flat", n_train=5000).add(KEYS, vectors)
    own = index.measured_
    # Between the clusters everything is equally far, and lies in many cells.
    rng = np.random.default_rng(2)
    queries = (3 * rng.normal(size=(200, N_DIMS))).astype(np.float32)
    index.tune(queries)
    assert index.measured_[0].effort.n_probes > own[0].effort.n_probes and index.recall_ >= 0.95
    best = DenseIndex("l2").add(KEYS, vectors).search(queries, 10)
    assert recall(index.search(queries, 10), best) >= 0.95
    with pytest.raises(ValueError, match="Queries have 3 dimensions"):
        index.tune(np.ones((5, 3)))


def test_a_recall_out_of_reach_is_said():
    """A structure whose candidates are always wrong."""
    truth = np.ones((50, 10), dtype=np.float32)

    class Fake:
        name, most_probes = "ivf_pq", 30
        rows = np.arange(900)

        class index:
            nlist, code_size, d = 30, 4, 8

    chosen = tune(Fake, 0.9, truth, lambda effort, depth: np.full((50, 10), effort.n_probes / 100))
    assert chosen[0].recall == 0 and chosen[0].effort.n_probes == 30
    chosen = tune(Fake, 0.9, truth, lambda effort, depth: np.full((50, 10), 1.0 if effort.n_probes >= 7 else 0.0))
    assert chosen[0] == Measured(10, Effort(7, 2), 1.0)
    assert share_found(np.float32([[3, 2, 1], [3, 0, 0]]), np.float32([[3, 2, 1], [3, 2, 1]]), 3)[0] == pytest.approx(
        2 / 3
    )


def test_a_warning_names_the_recall_that_was_reached(rng, monkeypatch):
    propose = Structure.propose

    def blind(self, queries, n, effort, mask):
        rows, values = propose(self, queries, n, effort, mask)
        return np.where(np.arange(rows.shape[1]) % 2 == 0, rows, -1), values

    monkeypatch.setattr(Structure, "propose", blind)
    vectors = rng.normal(size=(500, 8))
    with pytest.warns(
        UserWarning, match=r"structure='ivf_flat'\) finds 0\.\d+ of the ten best at most, not recall=0.9"
    ):
        FaissIndex(structure="ivf_flat", n_train=100).add(np.arange(500), vectors)


def test_flush_writes_the_structure_only_when_it_has_changed(vectors, tmp_path):
    index = FaissIndex("l2", structure="ivf_sq", n_train=4000).add(KEYS[:5000], vectors[:5000])
    path = index.save(tmp_path / "index")

    def file():
        names = [child.name for child in path.iterdir() if child.name.endswith("-structure.npy")]
        assert len(names) == 1
        return names[0]

    first = file()
    index.remove(KEYS[:3]).flush()
    assert file() == first
    FaissIndex.open(path).remove(KEYS[3:5]).flush()
    assert file() == first
    opened = FaissIndex.open(path)
    opened.add(KEYS[5000:9000], vectors[5000:9000]).flush()
    assert file() != first
    again = FaissIndex.open(path)
    assert again.measured_ == opened.measured_ and again.stats() == opened.stats()
    for ours, theirs in zip(again.search(vectors[:50], 10), opened.search(vectors[:50], 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_damaged_structure_is_noticed_without_verification_of_the_vectors(vectors, tmp_path):
    path = FaissIndex("l2", structure="hnsw", n_train=500).add(KEYS[:600], vectors[:600]).save(tmp_path / "index")
    file = next(path.glob("*-structure.npy"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="structure.npy is damaged .its checksum is wrong"):
        FaissIndex.open(path, verify=False)


def test_binary_vectors(rng):
    centers = rng.integers(0, 256, (100, 16), dtype=np.uint8)
    noise = rng.integers(0, 256, (3, 8000, 16), dtype=np.uint8)
    vectors = centers[rng.integers(0, 100, 8000)] ^ (noise[0] & noise[1] & noise[2])
    keys = rng.permutation(8000)
    index = FaissIndex("hamming", n_train=5000).add(keys, vectors)
    assert index.kind == "binary" and index.stats()["structure"] == "hnsw" and index.recall_ >= 0.95
    best = BinaryIndex().add(keys, vectors).search(vectors[:200], 10)
    assert recall(index.search(vectors[:200], 10), best) >= 0.93
    np.testing.assert_array_equal(index.reconstruct(keys[:4]), vectors[:4])


def test_wrong_use_says_what_is_wrong(vectors):
    with pytest.raises(ValueError, match=r"'structure' parameter .* one of 'auto', 'flat', .*. Got 'lsh'"):
        FaissIndex(structure="lsh").add(KEYS[:1], vectors[:1])
    assert "ivf_sq" in DENSE and "ivf_sq" not in BINARY
    with pytest.raises(ValueError, match="'structure' parameter .* one of 'auto', 'flat', 'hnsw'. Got 'ivf_sq'"):
        FaissIndex("hamming", structure="ivf_sq").add([0], np.zeros((1, 8), dtype=np.uint8))
    for name, value in (("recall", 0), ("recall", 1.1), ("n_train", 0), ("random_state", None)):
        with pytest.raises(ValueError, match=f"'{name}' parameter of FaissIndex"):
            FaissIndex(**{name: value}).add(KEYS[:1], vectors[:1])
    index = FaissIndex("l2", structure="hnsw", n_train=100).add(KEYS[:200], vectors[:200])
    with pytest.raises(ValueError, match=r"built for metric='l2'. Call compact to build one for metric='cosine'"):
        index.set_params(metric="cosine").search(vectors[:1], 1)
    assert index.compact().search(vectors[:1], 1)[0][0, 0] == 0


def test_without_faiss_it_says_how_to_get_it(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = FaissIndex()
    with pytest.raises(ImportError, match=r"FaissIndex needs faiss.*pip install 'cvretrieval\[faiss\]'"):
        index.add(KEYS[:2], vectors[:2])
    assert len(index) == 0 and len(DenseIndex().add(KEYS[:2], vectors[:2])) == 2


def test_few_vectors_of_any_number_of_dimensions_make_a_structure():
    """Cells with one vector each, equal vectors only, dimensions that codes of four do not divide."""
    for build in (partial(FaissIndex, structure=name, n_train=1) for name in ("flat", "ivf_flat", "ivf_sq", "hnsw")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for rows in (np.ones((1, 1)), np.ones((40, 3)), np.zeros((9, 5)), np.eye(7)):
                index = build().add(np.arange(len(rows)), rows)
                assert (index.search(rows, len(rows) + 2)[0] >= 0).sum() == len(rows) ** 2
