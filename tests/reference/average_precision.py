"""Slow twins of the ranking figures: the definitions, walked item by item."""

from __future__ import annotations


def walk_trapezoid(ranking, relevant, junk=()):
    """Follow the precision-recall curve from (0, 1), one trapezoid per item of the list, junk skipped."""
    old_recall, old_precision, area = 0.0, 1.0, 0.0
    n_found = n_seen = 0
    for item in ranking:
        if item in junk:
            continue
        n_seen += 1
        n_found += item in relevant
        recall, precision = n_found / len(relevant), n_found / n_seen
        area += (recall - old_recall) * (old_precision + precision) / 2.0
        old_recall, old_precision = recall, precision
    return area


def walk_finite_sum(ranking, relevant, junk=()):
    """Sum the precision at each relevant item."""
    total, n_found, n_seen = 0.0, 0, 0
    for item in ranking:
        if item in junk:
            continue
        n_seen += 1
        if item in relevant:
            n_found += 1
            total += n_found / n_seen
    return total / len(relevant)


def count_hits(ranking, relevant, k, junk=()):
    """Count relevant items among the first k that are not junk."""
    kept = [item for item in ranking if item not in junk]
    return sum(item in relevant for item in kept[:k])
