"""Protocols and evaluations against the numbers of the reference programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvretrieval.metrics import (
    PROTOCOL_NAMES,
    AveragePrecision,
    MAPAtR,
    NSScore,
    PlaceRecall,
    PrecisionAtK,
    RecallAtK,
    Relevance,
    Revisited,
    RPrecision,
    evaluate_rankings,
    get_protocol,
)
from tests.parity import agree

DATA = Path(__file__).parent / "data" / "metrics.npz"


@pytest.fixture(scope="module")
def data():
    with np.load(DATA) as file:
        return dict(file)


@pytest.mark.parametrize(("difficulty", "letter"), [("easy", "E"), ("medium", "M"), ("hard", "H")])
def test_revisited_program(data, difficulty, letter):
    truth = {
        query: Relevance(
            relevant=np.flatnonzero((labels == 1) | (labels == 2)).tolist(),
            junk=np.flatnonzero(labels == 3).tolist(),
            hard=np.flatnonzero(labels == 2).tolist(),
        )
        for query, labels in enumerate(data["revisited/labels"])
    }
    result = evaluate_rankings(truth, list(data["revisited/ranks"].T), f"revisited-{difficulty}")
    label = f"mAP (revisited {difficulty})"
    assert result.figures[label] == pytest.approx(float(data[f"revisited/{letter}_map"]), abs=1e-12)
    expected = data[f"revisited/{letter}_aps"]
    left_out = set(np.flatnonzero(np.isnan(expected)).tolist())
    assert left_out
    assert set(result.skipped[f"revisited-{difficulty}"]) == left_out
    for query, value in result.per_query[label].items():
        agree("revisited", value, expected[query], 1e-12)
    for column, k in enumerate(data["revisited/kappas"]):
        label = f"mP@{k} (revisited {difficulty})"
        assert result.figures[label] == pytest.approx(float(data[f"revisited/{letter}_mpk"][column]), abs=1e-12)
        for query, value in result.per_query[label].items():
            agree("revisited", value, data[f"revisited/{letter}_pk"][query, column], 1e-12)


@pytest.mark.parametrize("setting", ["same", "split"])
def test_metric_learning_program(data, setting):
    embeddings, labels = data["metric_learning/embeddings"].astype(np.float64), data["metric_learning/labels"]
    distances = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    items = np.arange(len(labels))
    is_query = data["metric_learning/is_query"]
    queries = items if setting == "same" else items[is_query]
    database = items if setting == "same" else items[~is_query]
    truth = {
        int(query): Relevance(
            database[labels[database] == labels[query]].tolist(), own_id=int(query) if setting == "same" else None
        )
        for query in queries
    }
    rankings = {
        int(query): database[np.argsort(distances[query][database], kind="stable")].tolist() for query in queries
    }
    result = evaluate_rankings(truth, rankings, [RecallAtK((1, 2, 4, 8, 16)), "precision@1", "r_precision", "map@r"])
    for k in (1, 2, 4, 8, 16):
        expected = float(data[f"metric_learning/own_{setting}_recall_at_{k}"])
        assert result.figures[f"R@{k}"] == pytest.approx(expected, abs=1e-12)
    # pytorch-metric-learning leaves out queries without a match, as the other figures do here.
    for label, key in (
        ("P@1", "precision_at_1"), ("R-precision", "r_precision"), ("MAP@R", "mean_average_precision_at_r")
    ):  # fmt: skip
        agree("metric-learning", result.figures[label], data[f"metric_learning/{setting}_{key}"], 1e-12)
    assert result.n_truncated == 0
    assert len(result.per_query["R@1"]) == len(queries)


def test_n_s_score(data):
    rankings, expected = data["ukbench/rankings"], data["ukbench/ns_per_query"]
    truth = {q: Relevance([i for i in range(80) if i // 4 == q // 4 and i != q], junk=[q], own_id=q) for q in range(80)}
    result = evaluate_rankings(truth, rankings, "ns")
    assert list(result.figures) == ["N-S (max 4)"]
    assert result.figures["N-S (max 4)"] == pytest.approx(float(data["ukbench/ns"]), abs=1e-12)
    assert list(result.per_query["N-S (max 4)"].values()) == expected.tolist()


def test_the_query_itself():
    """R@k and P@k drop it, N-S counts it, average precision follows the ground truth."""
    ranking = [["q", "a", "x", "b"]]
    listed = {"q": Relevance({"q", "a", "b"}, own_id="q")}
    as_junk = {"q": Relevance({"a", "b"}, junk={"q"}, own_id="q")}
    for truth in (listed, as_junk):
        result = evaluate_rankings(truth, ranking, ["recall@1", "precision@2", "ns"])
        assert result.figures == {"R@1": 1.0, "P@2": 0.5, "N-S (max 4)": 3.0}
    both = [evaluate_rankings(truth, ranking, "finite_sum").figures["mAP (finite sum)"] for truth in (listed, as_junk)]
    assert both == [pytest.approx((1 + 1 + 3 / 4) / 3), pytest.approx((1 + 2 / 3) / 2)]


def test_query_names_and_database_ids_are_apart():
    """The third query is not the third image of the database."""
    truth = {3: Relevance({3, 5})}
    assert evaluate_rankings(truth, [[3, 1, 5]], ["recall@1", "precision@1"]).figures == {"R@1": 1.0, "P@1": 1.0}


def test_lists_cut_off_are_exact_and_stated():
    truth = {"q1": Relevance({1, 2, 3}), "q2": Relevance({4})}
    full = {"q1": [1, 9, 2, 8, 3, 4], "q2": [4, 1, 2, 3, 8, 9]}
    cut = {query: ranking[:3] for query, ranking in full.items()}
    complete = evaluate_rankings(truth, full, "finite_sum", n_database=6)
    assert complete.n_truncated == 0
    assert complete.notes == ()
    result = evaluate_rankings(truth, cut, ["finite_sum", "recall@1"], n_database=6)
    assert result.per_query["mAP (finite sum)"] == {"q1": pytest.approx((1 + 2 / 3) / 3), "q2": 1.0}
    assert result.n_truncated == 1
    assert "1 of 2 do not hold all relevant items" in str(result)
    assert "length 3, 6 images in the database" in str(result)
    # Nothing below the first place changes R@1, so a short list is exact for it.
    assert evaluate_rankings(truth, cut, "recall@1").n_truncated == 0
    assert evaluate_rankings(truth, cut, "recall@4").n_truncated == 1


def test_empty_list_of_a_failed_query_counts_as_nothing_found():
    result = evaluate_rankings({"a": Relevance({1}), "b": Relevance({2})}, {"a": [1], "b": []}, ["oxford", "recall@1"])
    assert result.figures == {"mAP (Oxford trapezoid)": 0.5, "R@1": 0.5}
    assert result.n_truncated == 1
    assert result.list_lengths == (0, 1)


def test_queries_without_relevant_items():
    truth = {"a": Relevance({"x"}), "lonely": Relevance(())}
    result = evaluate_rankings(truth, [["x"], ["x"]], ["oxford", "recall@1"])
    assert result.figures == {"mAP (Oxford trapezoid)": 1.0, "R@1": 0.5}
    assert result.skipped == {"oxford": {"lonely": "no relevant item"}}
    assert "oxford: 1 of 2 queries left out (no relevant item): lonely" in str(result)
    assert "R@1                     0.5000  over 2 queries" in str(result)


def test_json_form():
    truth = {"a": Relevance({"x"}), "b": Relevance(())}
    form = json.loads(json.dumps(evaluate_rankings(truth, [["x", "y"], ["y"]], "oxford", n_database=2).to_dict()))
    assert form["figures"] == {"mAP (Oxford trapezoid)": 1.0}
    assert form["per_query"] == {"mAP (Oxford trapezoid)": {"a": 1.0}}
    assert form["n_evaluated"] == {"mAP (Oxford trapezoid)": 1}
    assert form["skipped"] == {"oxford": {"b": "no relevant item"}}
    assert (form["n_queries"], form["n_database"], form["list_lengths"]) == (2, 2, [1, 2])


def test_every_label_names_its_protocol():
    labels = [label for name in PROTOCOL_NAMES for label in get_protocol(name).labels]
    assert len(set(labels)) == len(labels)
    assert all("(" in label for label in labels if "mAP" in label or "N-S" in label)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("oxford", AveragePrecision("trapezoid")),
        ("finite_sum", AveragePrecision("finite_sum")),
        ("recall", RecallAtK()),
        ("recall@1,10", RecallAtK((1, 10))),
        ("precision@5", PrecisionAtK((5,))),
        ("ns", NSScore(4)),
        ("ns@3", NSScore(3)),
        ("r_precision", RPrecision()),
        ("map@r", MAPAtR()),
        ("vpr-25m", PlaceRecall()),
        ("vpr-12.5m-panorama@1", PlaceRecall((1,), 12.5, one_per_panorama=True)),
        ("vpr-10frames@1,5", PlaceRecall((1, 5), 10, "frames")),
        ("revisited-hard", Revisited("hard")),
        ("revisited-easy@1", Revisited("easy", (1,))),
    ],
)
def test_names(name, protocol):
    assert get_protocol(name) == protocol
    assert get_protocol(get_protocol(name).name).labels[0] == protocol.labels[0]
    assert get_protocol(protocol) is protocol


@pytest.mark.parametrize(
    "name",
    [
        "map",
        "oxford@3",
        "ns@1,2",
        "recall@",
        "recall@,",
        "revisited",
        "revisited-medium@",
        "vpr-10.5frames",
        "map@r@2",
        "r_precision@2",
        "recall@0",
    ],
)
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"There is no protocol .* Known: oxford, finite_sum"):
        get_protocol(name)


TRUTH = {"a": Relevance({"x"}), "b": Relevance({"y"})}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: evaluate_rankings(TRUTH, {"a": ["x"]}), ValueError, "1 of 2 queries have no ranking, 'b' among them"),
        (lambda: evaluate_rankings(TRUTH, [["x"]]), ValueError, "Got 1 rankings for 2 queries"),
        (lambda: evaluate_rankings({}, []), ValueError, "Nothing to evaluate: 0 queries"),
        (lambda: evaluate_rankings(TRUTH, [["x"], ["y"]], []), ValueError, "0 protocols"),
        (lambda: evaluate_rankings(TRUTH, [["x"], ["y", "y"]]), ValueError, "Query 'b': y is more than once"),
        (lambda: evaluate_rankings(TRUTH, [[1], [2]]), TypeError, "Query 'a': .* one kind"),
        (lambda: evaluate_rankings(TRUTH, [["x"], ["y"]], "revisited-hard"), ValueError, "under the protocol 'revisi"),
        (lambda: evaluate_rankings(TRUTH, [["x"], ["y"]], ["oxford", "oxford"]), ValueError, "same figure twice"),
        (lambda: evaluate_rankings(TRUTH, [["x"], ["y"]], n_database=0), ValueError, "'n_database' parameter"),
        (lambda: get_protocol(3), TypeError, "Got int instead"),
        (lambda: RecallAtK((1, 1)), ValueError, "tuple of distinct k"),
        (lambda: RecallAtK((0,)), ValueError, "'ks' parameter of RecallAtK"),
        (lambda: NSScore(0), ValueError, "'n' parameter of NSScore"),
        (lambda: Revisited("harder"), ValueError, "must be one of 'easy', 'medium', 'hard'"),
        (
            lambda: evaluate_rankings({"a": Relevance({"x"}, hard={"z"})}, [["x"]], "revisited-easy"),
            ValueError,
            "'hard' holds ids that are not in 'relevant'",
        ),
    ],
)
def test_errors_name_the_query(call, error, message):
    with pytest.raises(error, match=message):
        call()
