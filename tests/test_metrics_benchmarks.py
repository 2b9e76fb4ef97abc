"""The protocols of the published benchmarks: their rules, their names, their figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvretrieval.metrics import (
    BENCHMARKS,
    PROTOCOL_GROUPS,
    EvaluationProtocol,
    PlaceRecall,
    Relevance,
    evaluate_rankings,
    get_protocol,
    get_protocols,
)
from tests.parity import agree
from tests.reference.average_precision import walk_trapezoid

DATA = Path(__file__).parent / "data" / "metrics.npz"


@pytest.fixture(scope="module")
def data():
    with np.load(DATA) as file:
        return dict(file)


def test_oxford5k_program(data):
    """Against the output of the Oxford program, query by query."""
    ranks, labels = data["oxford/ranks"], data["oxford/labels"]
    truth = {
        query: Relevance(np.flatnonzero((row == 1) | (row == 2)).tolist(), np.flatnonzero(row == 3).tolist())
        for query, row in enumerate(labels)
    }
    rankings = [row[row >= 0] for row in ranks]
    result = evaluate_rankings(truth, rankings, "oxford5k")
    (label,) = result.figures
    assert label == "mAP (Oxford5k)"
    values = result.per_query[label]
    assert len(values) == len(truth) - len(result.skipped.get("oxford5k", ()))
    for query, value in values.items():
        agree("oxford-ap", value, data["oxford/ap_float64"][query], 1e-12)
        assert value == pytest.approx(data["oxford/ap_cpp"][query], abs=1e-6)


def test_roxford_program(data):
    truth = {
        query: Relevance(
            np.flatnonzero((labels == 1) | (labels == 2)).tolist(),
            np.flatnonzero(labels == 3).tolist(),
            np.flatnonzero(labels == 2).tolist(),
        )
        for query, labels in enumerate(data["revisited/labels"])
    }
    result = evaluate_rankings(truth, list(data["revisited/ranks"].T), "roxford")
    assert result.protocols == ("roxford-easy", "roxford-medium", "roxford-hard")
    for difficulty, letter in (("easy", "E"), ("medium", "M"), ("hard", "H")):
        figure = result.figures[f"mAP (ROxford {difficulty})"]
        agree("revisited", figure, data[f"revisited/{letter}_map"], 1e-12)
        for k, expected in zip((1, 5, 10), data[f"revisited/{letter}_mpk"], strict=True):
            assert result.figures[f"mP@{k} (ROxford {difficulty})"] == pytest.approx(float(expected), abs=1e-12)


def test_holidays_ignores_the_query():
    """The query is ranked somewhere, is neither right nor wrong, and moves nobody."""
    generator = np.random.default_rng(3)
    truth = {"q": Relevance({"q1", "q2", "q3"}, {"q"}, own_id="q")}
    others = ["q1", "q2", "q3", *(f"x{i}" for i in range(20))]
    for _ in range(10):
        ranking = list(generator.permutation(others))
        expected = walk_trapezoid(ranking, {"q1", "q2", "q3"}, set())
        ranking.insert(int(generator.integers(len(ranking))), "q")
        for name in ("holidays", "holidays-upright"):
            (value,) = evaluate_rankings(truth, [ranking], name).figures.values()
            assert value == pytest.approx(expected, abs=1e-12)


def test_ukbench_program(data):
    truth = {q: Relevance([i for i in range(80) if i // 4 == q // 4 and i != q], [q], own_id=q) for q in range(80)}
    result = evaluate_rankings(truth, data["ukbench/rankings"], "ukbench")
    assert list(result.figures) == ["N-S (UKB, max 4)"]
    agree("ukbench", *result.figures.values(), data["ukbench/ns"], 1e-12)


def place_recall_by_hand(ranking, relevant, n, panorama_of=None):
    seen, first = set(), []
    for item in ranking:
        place = item if panorama_of is None else panorama_of[item]
        if place not in seen:
            seen.add(place)
            first.append(item)
    return float(any(item in relevant for item in first[:n]))


@pytest.mark.parametrize("name", ["vpr-25m", "tokyo247"])
def test_place_recognition(name):
    generator = np.random.default_rng(0)
    panorama_of = {i: i // 12 for i in range(240)} if name == "tokyo247" else None
    rankings = {q: generator.permutation(240).tolist() for q in range(40)}
    truth = {
        q: Relevance(set(generator.choice(240, 4, replace=False).tolist()), panorama_of=panorama_of or {})
        for q in rankings
    }
    truth[40], rankings[40] = Relevance((), panorama_of=panorama_of or {}), rankings[0]
    result = evaluate_rankings(truth, rankings, name)
    assert len(result.figures) == 4
    for n, (label, figure) in zip((1, 5, 10, 20), result.figures.items(), strict=True):
        assert label.startswith(f"R@{n} (")
        assert "25 m" in label or "25m" in label
        expected = [place_recall_by_hand(rankings[q], truth[q].relevant, n, panorama_of) for q in truth]
        assert figure == pytest.approx(np.mean(expected))
        assert list(result.per_query[label].values()) == expected
    # 60 items hold at least five panoramas but not surely twenty, so twelve times N are needed.
    short = {q: ranking[:60] for q, ranking in rankings.items()}
    assert (
        evaluate_rankings(truth, short, f"{name}@5").figures[f"R@5 ({label.partition('(')[2]}"]
        == (result.figures[f"R@5 ({label.partition('(')[2]}"])
    )
    if panorama_of:
        assert evaluate_rankings(truth, {q: r[:12] for q, r in rankings.items()}, "tokyo247@12").n_truncated > 0


def test_panoramas_must_be_known():
    with pytest.raises(ValueError, match=r"Query 'q': .*which panorama 'a' was cut out of"):
        evaluate_rankings({"q": Relevance({"a"})}, [["a"]], "tokyo247")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_fixes_its_rules_and_names_itself(name):
    protocol = get_protocol(name)
    assert protocol.name == name
    assert protocol.crop in ("box", "full")
    assert protocol.exif in ("apply", "ignore")
    assert protocol.form
    title = BENCHMARKS[name].title
    assert all(label.endswith(f"({title})") for label in protocol.labels)
    assert ("mAP" in protocol.labels[0]) == (protocol.convention is not None)
    assert set(protocol.rules) == set(EvaluationProtocol().rules)


def test_no_two_benchmarks_share_a_label():
    labels = [label for name in BENCHMARKS for label in get_protocol(name).labels]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("name", "crop", "exif", "convention", "junk", "without"),
    [
        ("oxford5k", "box", "ignore", "trapezoid", "removed", "left out"),
        ("oxford5k-full", "full", "ignore", "trapezoid", "removed", "left out"),
        ("rparis-hard", "box", "ignore", "trapezoid", "easy items are junk too", "left out"),
        ("roxford-easy+1m", "box", "ignore", "trapezoid", "hard items are junk too", "left out"),
        ("holidays", "full", "ignore", "trapezoid", "removed", "left out"),
        ("holidays-upright", "full", "apply", "trapezoid", "removed", "left out"),
        ("ukbench", "full", "ignore", None, "the query itself counts", "left out"),
        ("cub200-cropped", "box", "ignore", None, "the query itself are removed", "count 0"),
        ("inshop", "full", "ignore", None, "the query itself are removed", "count 0"),
        ("tokyo247", "full", "ignore", None, "of each panorama only the first", "count 0"),
        ("smvs-map", "full", "ignore", "finite_sum", "removed", "left out"),
        ("copydays-strong", "full", "ignore", "trapezoid", "removed", "left out"),
    ],
)
def test_rules(name, crop, exif, convention, junk, without):
    protocol = get_protocol(name)
    assert (protocol.crop, protocol.exif, protocol.convention) == (crop, exif, convention)
    assert junk in protocol.rules["junk"]
    assert protocol.rules["queries without relevant items"] == without


def test_the_rules_are_in_the_output():
    truth = {"q": Relevance({"a"})}
    form = json.loads(json.dumps(evaluate_rankings(truth, [["a"]], ["oxford5k", "recall@1"]).to_dict()))
    assert form["rules"]["oxford5k"] == {
        "query image": "the region of the ground truth",
        "EXIF orientation": "ignored",
        "average precision": "trapezoid",
        "junk": "junk is removed before ranks are counted; the query counts as the ground truth says",
        "queries without relevant items": "left out",
    }
    assert form["rules"]["recall@1"]["EXIF orientation"] == "as the reader is set"
    assert form["rules"]["recall@1"]["queries without relevant items"] == "count 0"


def test_cut_offs_of_benchmarks():
    protocol = get_protocol("sop@1,10")
    assert protocol.labels == ("R@1 (SOP)", "R@10 (SOP)")
    assert protocol.name == "sop@1,10"
    assert get_protocol(protocol.name) == protocol
    assert get_protocol("sop@1,10,100,1000").name == "sop"
    with pytest.raises(ValueError, match="'oxford5k' has no k to choose"):
        get_protocol("oxford5k@5")


def test_groups():
    assert [p.name for p in get_protocols("rparis+1m")] == [f"rparis-{d}+1m" for d in ("easy", "medium", "hard")]
    assert len(get_protocols("copydays")) == 19
    assert [p.name for p in get_protocols(["roxford", PlaceRecall()])][-1] == "vpr-25m@1,5,10,20"
    for names in PROTOCOL_GROUPS.values():
        assert all(name in BENCHMARKS for name in names)
    with pytest.raises(ValueError, match="'roxford' stands for roxford-easy, roxford-medium, roxford-hard"):
        get_protocol("roxford")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ks": ()}, "tuple of distinct k"),
        ({"radius": -1.0}, "'radius' parameter of PlaceRecall"),
        ({"radius": 2.5, "unit": "frames"}, "must be an integer"),
        ({"unit": "miles"}, "must be one of 'metres', 'frames'"),
        ({"one_per_panorama": 1}, "True or False"),
    ],
)
def test_place_recall_checks_its_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        PlaceRecall(**arguments)
