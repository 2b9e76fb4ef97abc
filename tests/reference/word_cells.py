"""The nearest word in a few cells, in float64 and one pair at a time."""

from __future__ import annotations

import numpy as np


def squared_distances_naive(x, words):
    """Return the squared distance of one descriptor to each word."""
    return np.array([sum((float(a) - float(b)) ** 2 for a, b in zip(x, c, strict=True)) for c in words])


def nearest_words_naive(rows, words):
    """Return the nearest of all words and its squared distance, ties to the lowest."""
    distances = [squared_distances_naive(x, words) for x in rows]
    return np.array([int(d.argmin()) for d in distances]), np.array([d.min() for d in distances])


def rank_naive(x, origin, basis, groups, cells, bounds, n_groups, n_cells):
    """Return the nearest cells of the nearest groups by distance in the subspace, nearest first, ties to the lowest."""
    basis = np.asarray(basis, dtype=np.float64)
    x = basis @ (np.asarray(x, dtype=np.float64) - origin)
    distances = [((x - basis @ (np.asarray(c, dtype=np.float64) - origin)) ** 2).sum() for c in cells]
    far = [((x - basis @ (np.asarray(c, dtype=np.float64) - origin)) ** 2).sum() for c in groups]
    near = sorted(range(len(groups)), key=lambda k: (far[k], k))[:n_groups]
    inside = [k for group in near for k in range(bounds[group], bounds[group + 1])]
    return sorted(inside, key=lambda k: (distances[k], k))[:n_cells]


def search_naive(x, words, cell_of_word, ranked):
    """Return the nearest word in the given cells and its squared distance."""
    inside = [k for k in range(len(words)) if cell_of_word[k] in ranked]
    if not inside:
        return -1, np.inf
    distances = squared_distances_naive(x, [words[k] for k in inside])
    return inside[int(distances.argmin())], float(distances.min())


def upper_bound_naive(x, c, origin, basis):
    """Return ⟨x', c'⟩ + ‖x_r‖ ‖c_r‖ − ½‖c − o‖², which no ½‖x − o‖² − ½‖x − c‖² exceeds."""
    basis = np.asarray(basis, dtype=np.float64)
    x, c = np.asarray(x, dtype=np.float64) - origin, np.asarray(c, dtype=np.float64) - origin
    kept_x, kept_c = basis @ x, basis @ c
    rest = np.sqrt(max(x @ x - kept_x @ kept_x, 0)) * np.sqrt(max(c @ c - kept_c @ kept_c, 0))
    return kept_x @ kept_c + rest - 0.5 * c @ c


def means_naive(rows, words, centers):
    """Return the mean of the rows of each word; a word without any stays where it is."""
    return np.array(
        [rows[words == k].astype(np.float64).mean(axis=0) if (words == k).any() else c for k, c in enumerate(centers)]
    )
