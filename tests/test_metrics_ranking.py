"""Average precision, precision and recall at k against their definitions and other programs' numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvretrieval.metrics import (
    average_precision,
    judge_ranking,
    mean_average_precision,
    precision_at_k,
    recall_at_k,
)
from tests.reference.average_precision import count_hits, walk_finite_sum, walk_trapezoid

DATA = Path(__file__).parent / "data" / "metrics.npz"
CONVENTIONS = ("trapezoid", "finite_sum")
PROPERTY = settings(deadline=None, derandomize=True)


@st.composite
def judged_lists(draw):
    """A ranking (perhaps cut off), relevant and junk ids; at least one relevant."""
    n_items = draw(st.integers(1, 30))
    roles = draw(st.lists(st.sampled_from("rjn"), min_size=n_items, max_size=n_items))
    roles[draw(st.integers(0, n_items - 1))] = "r"
    ranking = draw(st.permutations(range(n_items)))[: draw(st.integers(0, n_items))]
    relevant = {item for item, role in enumerate(roles) if role == "r"}
    junk = {item for item, role in enumerate(roles) if role == "j"}
    return ranking, relevant, junk


@pytest.mark.parametrize(
    ("ranks", "n_relevant", "trapezoid", "finite_sum"),
    [((0, 2, 5), 3, 0.677778, 0.722222), ((0, 2, 5), 4, 0.508333, 0.541667), ((1,), 1, 0.25, 0.5)],
)
def test_known_values(ranks, n_relevant, trapezoid, finite_sum):
    relevant = {*ranks, *range(100, 100 + n_relevant - len(ranks))}
    assert average_precision(np.arange(8), relevant) == pytest.approx(trapezoid, abs=1e-6)
    assert average_precision(np.arange(8), relevant, convention="finite_sum") == pytest.approx(finite_sum, abs=1e-6)


@PROPERTY
@given(judged_lists())
def test_average_precision_equals_its_definition(case):
    assert average_precision(*case) == pytest.approx(walk_trapezoid(*case), abs=1e-12)
    assert average_precision(*case, convention="finite_sum") == pytest.approx(walk_finite_sum(*case), abs=1e-12)


@PROPERTY
@given(judged_lists())
def test_average_precision_is_bounded_and_the_trapezoid_is_the_smaller(case):
    trapezoid, finite_sum = (average_precision(*case, convention=convention) for convention in CONVENTIONS)
    assert 0.0 <= trapezoid <= finite_sum + 1e-15
    assert finite_sum <= 1.0 + 1e-15


@PROPERTY
@given(judged_lists(), st.sampled_from(CONVENTIONS))
def test_junk_changes_nothing(case, convention):
    ranking, relevant, junk = case
    without = [item for item in ranking if item not in junk]
    assert average_precision(ranking, relevant, junk, convention=convention) == average_precision(
        without, relevant, convention=convention
    )


@PROPERTY
@given(judged_lists(), st.sampled_from(CONVENTIONS))
def test_perfect_ranking_is_one_and_moving_a_hit_up_never_hurts(case, convention):
    ranking, relevant, junk = case
    rest = [item for item in ranking if item not in relevant]
    perfect = average_precision([*relevant, *rest], relevant, junk, convention=convention)
    assert perfect == pytest.approx(1.0, abs=1e-15)
    for place in range(1, len(ranking)):
        if ranking[place] in relevant and ranking[place - 1] not in relevant:
            swapped = [*ranking[: place - 1], ranking[place], ranking[place - 1], *ranking[place + 1 :]]
            better = average_precision(swapped, relevant, junk, convention=convention)
            assert better >= average_precision(ranking, relevant, junk, convention=convention) - 1e-15


@PROPERTY
@given(judged_lists(), st.integers(1, 40))
def test_hits_at_k_equal_their_definition(case, k):
    ranking, relevant, junk = case
    hits = count_hits(ranking, relevant, k, junk)
    assert precision_at_k(ranking, relevant, k, junk) == hits / k
    assert recall_at_k(ranking, relevant, k, junk) == float(hits > 0)


@PROPERTY
@given(judged_lists(), st.sampled_from(CONVENTIONS))
def test_strings_arrays_and_lists_are_alike(case, convention):
    ranking, relevant, junk = case
    expected = average_precision(ranking, relevant, junk, convention=convention)
    as_array = average_precision(
        np.array(ranking, dtype=np.int32), np.array(list(relevant)), list(junk), convention=convention
    )
    as_strings = average_precision(
        [str(i) for i in ranking], {str(i) for i in relevant}, {str(i) for i in junk}, convention=convention
    )
    as_objects = average_precision(
        np.array([str(i) for i in ranking], dtype=object), {str(i) for i in relevant}, {str(i) for i in junk},
        convention=convention,
    )  # fmt: skip
    assert expected == as_array == as_strings == as_objects


def test_oxford_program():
    """200 lists, every fourth cut off, judged by the C++ program of the Oxford buildings."""
    with np.load(DATA) as data:
        ranks, n_ranked, labels = data["oxford/ranks"], data["oxford/n_ranked"], data["oxford/labels"]
        printed, exact = data["oxford/ap_cpp"], data["oxford/ap_float64"]
    ours = np.array(
        [
            average_precision(row[:n], np.flatnonzero((label == 1) | (label == 2)), np.flatnonzero(label == 3))
            for row, n, label in zip(ranks, n_ranked, labels, strict=True)
        ]
    )
    assert len(ours) == 200
    np.testing.assert_allclose(ours, exact, atol=1e-12)
    np.testing.assert_allclose(ours, printed, atol=1e-6)


def test_mean_leaves_out_queries_without_relevant_items():
    rankings, relevant = [[1, 2], [2, 1], [1, 2]], [{1}, {1}, set()]
    assert np.isnan(average_precision(rankings[2], relevant[2]))
    assert mean_average_precision(rankings, relevant) == 0.625
    assert mean_average_precision(rankings, relevant, convention="finite_sum") == 0.75
    assert mean_average_precision(rankings, relevant, [(), {2}, ()]) == 1.0
    with pytest.raises(ValueError, match="None of the 1 queries has a relevant item"):
        mean_average_precision([[1]], [[]])
    with pytest.raises(ValueError, match="have 1, 2 and 1 entries"):
        mean_average_precision([[1]], [[1], [2]])


def test_empty_ranking_finds_nothing():
    assert average_precision([], {1, 2}) == 0.0
    assert average_precision([], {"a"}) == 0.0
    assert precision_at_k([], {1}, 5) == recall_at_k([], {1}, 5) == 0.0


def test_inputs_are_not_changed():
    ranking = np.array([3, 1, 2])
    ranking.flags.writeable = False
    relevant, junk = {1}, {3}
    judged = judge_ranking(ranking, relevant, junk)
    assert judged.positions.tolist() == [0]
    assert (judged.n_relevant, judged.n_ranked) == (1, 2)
    assert relevant == {1}
    assert junk == {3}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: average_precision([1, 2, 1], {1}), ValueError, "1 is more than once in the ranking"),
        (lambda: average_precision([1, 2], {1}, {1}), ValueError, "1 is both relevant and junk"),
        (lambda: average_precision([1, 2], {"1"}), TypeError, "ids must be of one kind"),
        (lambda: average_precision(["1"], {"1"}, [1]), TypeError, "'junk' is an array of int64"),
        (lambda: average_precision("abc", {"a"}), TypeError, "the single string 'abc'; wrap it in a list"),
        (lambda: average_precision(["a"], "a"), TypeError, "'relevant' must be a collection of ids"),
        (lambda: average_precision([True, False], {1}), TypeError, "must hold ids, integers or strings"),
        (lambda: average_precision([0.5], {1}), TypeError, "must hold ids"),
        (lambda: average_precision([Path("a")], {"a"}), TypeError, "must hold ids"),
        (lambda: average_precision(np.ones((2, 2), dtype=int), {1}), ValueError, "must be one-dimensional"),
        (
            lambda: average_precision([1], {1}, convention="area"),
            ValueError,
            "must be one of 'trapezoid', 'finite_sum'",
        ),
        (lambda: precision_at_k([1], {1}, 0), ValueError, "'k' parameter"),
        (lambda: recall_at_k([1], {1}, 1.5), ValueError, "must be an integer"),
    ],
)
def test_errors_say_what_arrived(call, error, message):
    with pytest.raises(error, match=message):
        call()
