"""Reranking on full matrices, straight from the definitions, in float64."""

import numpy as np


def expand_naive(query, images, alpha):
    """Return the normalised sum of a query and images, each weighted by max(similarity, 0)^alpha."""
    total = np.array(query, dtype=np.float64)
    for image in np.asarray(images, dtype=np.float64):
        total = total + max(float(np.dot(query, image)), 0.0) ** alpha * image
    return total / np.sqrt((total**2).sum())


def nearest_naive(similarities, i, k):
    """Return i and its k - 1 nearest by a row of similarities, among equals the lower number first."""
    others = sorted((-similarities[j], j) for j in range(len(similarities)) if j != i)
    return [i, *(j for _, j in others[: k - 1])]


def mutual_affinities_naive(similarities, k, gamma):
    """Return A: max(s, 0)^gamma between mutual neighbours, the k nearest counting the point itself."""
    n = len(similarities)
    lists = [nearest_naive(similarities[i], i, k) for i in range(n)]
    affinities = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and i in lists[j] and j in lists[i]:
                affinities[i, j] = max(similarities[i, j], 0.0) ** gamma
    return affinities


def transitions_naive(affinities):
    """Return D^-1/2 A D^-1/2; rows without neighbours stay zero."""
    result = np.zeros_like(affinities)
    degrees = affinities.sum(axis=1)
    for i in range(len(degrees)):
        for j in range(len(degrees)):
            if affinities[i, j] > 0:
                result[i, j] = affinities[i, j] / np.sqrt(degrees[i] * degrees[j])
    return result


def conjugate_gradient_naive(matrix, y, max_iter, tol):
    """Return the solution of matrix f = y after some steps of conjugate gradients from zero, and their number."""
    f, residual = np.zeros_like(y), np.array(y)
    direction, n_steps = np.array(y), 0
    while n_steps < max_iter and np.sqrt(residual @ residual) > tol * np.sqrt(y @ y):
        product = matrix @ direction
        step = (residual @ residual) / (direction @ product)
        f = f + step * direction
        new = residual - step * product
        direction = new + (new @ new) / (residual @ residual) * direction
        residual = new
        n_steps += 1
    return f, n_steps


def reciprocal_naive(lists, i, k):
    """Return R(i, k) as a set; lists hold each node and its nearest."""
    return {j for j in lists[i][: k + 1] if i in lists[j][: k + 1]}


def expanded_reciprocal_naive(lists, i, k):
    """Return R*(i, k) as a set."""
    own = reciprocal_naive(lists, i, k)
    expanded = set(own)
    for j in own:
        other = reciprocal_naive(lists, j, int(np.around(k / 2)))
        if len(own & other) > 2 / 3 * len(other):
            expanded |= other
    return expanded


def k_reciprocal_naive(similarities, k1, k2, distance_weight):
    """Return d* between all nodes of a graph, from their cosines."""
    n = len(similarities)
    squares = np.maximum(2 - 2 * np.asarray(similarities, dtype=np.float64), 0)
    scaled = squares / squares.max(axis=1, keepdims=True)
    lists = [nearest_naive(similarities[i], i, n) for i in range(n)]
    encodings = np.zeros((n, n))
    for i in range(n):
        for j in expanded_reciprocal_naive(lists, i, k1):
            encodings[i, j] = np.exp(-scaled[i, j])
        encodings[i] /= encodings[i].sum()
    encodings = np.stack([encodings[lists[i][:k2]].mean(axis=0) for i in range(n)])
    jaccard = np.ones((n, n))
    for i in range(n):
        for j in range(n):
            jaccard[i, j] = (
                1 - np.minimum(encodings[i], encodings[j]).sum() / np.maximum(encodings[i], encodings[j]).sum()
            )
    return (1 - distance_weight) * jaccard + distance_weight * scaled


def project_naive(keypoint, transform, step=1e-5):
    """Move one keypoint by a transform: its scale and angle from where two short arrows at it end up."""

    def move(x, y):
        u, v, w = transform @ [x, y, 1.0]
        return np.array([u / w, v / w])

    x, y, scale, angle = (float(value) for value in keypoint)
    place = move(x, y)
    along = (move(x + step * np.cos(angle), y + step * np.sin(angle)) - place) / step
    right, down = (move(x + step, y) - place) / step, (move(x, y + step) - place) / step
    area = abs(right[0] * down[1] - right[1] * down[0])
    return np.array([*place, scale * np.sqrt(area), np.arctan2(along[1], along[0]) % (2 * np.pi)])
