"""Vocabulary trees, one descriptor and one node at a time, in float64."""

import numpy as np


def nearest_center_naive(rows, centers):
    """Return the nearest centre of each row, ties to the lowest, and ⟨c, x⟩ − ½‖c‖² of it."""
    words, scores = [], []
    for x in np.asarray(rows, dtype=np.float64):
        products = [float(c @ x - 0.5 * c @ c) for c in np.asarray(centers, dtype=np.float64)]
        words.append(max(range(len(products)), key=lambda k: (products[k], -k)))
        scores.append(products[words[-1]])
    return np.array(words, dtype=np.int64), np.array(scores)


def descend_naive(x, centers, children):
    """Return the nodes on the way from the root to a leaf."""
    path, place = [], 0
    while children[place][0] < children[place][1]:
        first, stop = children[place]
        (k,), _ = nearest_center_naive([x], centers[first:stop])
        path.append(first + int(k))
        place = path[-1] + 1
    return path


def leaves_naive(children):
    """Return the leaves from left to right."""
    found = []

    def visit(place):
        first, stop = children[place]
        if first == stop:
            found.append(place - 1)
        for node in range(first, stop):
            visit(node + 1)

    visit(0)
    return found


def distinct_rows_naive(rows, n_wanted):
    """Return the first rows of which none equals another."""
    chosen = []
    for i, row in enumerate(rows):
        if len(chosen) < n_wanted and not any(np.array_equal(row, rows[j]) for j in chosen):
            chosen.append(i)
    return chosen


def cluster_naive(rows, n_centers, max_iter):
    """Lloyd's k-means from the first distinct rows; a centre without rows goes to the row farthest from its own."""
    rows = np.asarray(rows, dtype=np.float64)
    centers = rows[distinct_rows_naive(rows, n_centers)]
    previous = None
    for _ in range(max_iter):
        words, _ = nearest_center_naive(rows, centers)
        if previous is not None and np.array_equal(words, previous):
            break
        distances = ((rows - centers[words]) ** 2).sum(axis=1)
        centers = np.array([rows[words == k].mean(axis=0) if (words == k).any() else c for k, c in enumerate(centers)])
        for k in range(len(centers)):
            if not (words == k).any() and distances.max() > 0:
                far = int(distances.argmax())
                centers[k], distances[far] = rows[far], 0
        previous = words
    return centers
