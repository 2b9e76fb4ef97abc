"""Similarity hypotheses, inliers and least-squares transforms by their definitions, one point at a time."""

from __future__ import annotations

import numpy as np


def similarity(first, second):
    """The similarity that maps one keypoint (x, y, scale, angle) to another."""
    scale, turn = second[2] / first[2], second[3] - first[3]
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    transform = np.eye(3)
    transform[:2, :2] = linear
    transform[:2, 2] = np.asarray(second[:2]) - linear @ np.asarray(first[:2])
    return transform


def apply(transform, point):
    x, y, w = transform @ np.array([point[0], point[1], 1.0])
    return np.array([x / w, y / w]), w


def scores(a, b, tolerance_a, tolerance_b, max_log_scale, min_cos):
    """For each correspondence, the number of correspondences that agree with its similarity."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    counts = []
    for i in range(len(a)):
        transform = similarity(a[i], b[i])
        scale, turn = b[i, 2] / a[i, 2], b[i, 3] - a[i, 3]
        count = 0
        for j in range(len(a)):
            error = np.linalg.norm(apply(transform, a[j])[0] - b[j, :2])
            near = error <= min(tolerance_b, scale * tolerance_a)
            same_scale = abs(np.log(b[j, 2] / a[j, 2]) - np.log(scale)) <= max_log_scale
            same_turn = np.cos(b[j, 3] - a[j, 3] - turn) >= min_cos
            count += near and same_scale and same_turn
        counts.append(count)
    return np.array(counts)


def inliers(a, b, transform, tolerance_a, tolerance_b, max_log_scale, min_cos):
    """Which correspondences a transform explains; the Jacobian by central differences."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    inverse = np.linalg.inv(transform)
    marked = np.zeros(len(a), dtype=bool)
    for j in range(len(a)):
        there, w = apply(transform, a[j])
        back, _ = apply(inverse, b[j])
        if w <= 0 or np.linalg.norm(there - b[j, :2]) > tolerance_b or np.linalg.norm(back - a[j, :2]) > tolerance_a:
            continue
        step = 1e-4
        jacobian = np.column_stack(
            [
                (apply(transform, a[j, :2] + d)[0] - apply(transform, a[j, :2] - d)[0]) / (2 * step)
                for d in (np.array([step, 0]), np.array([0, step]))
            ]
        )
        area = np.linalg.det(jacobian)
        if area <= 0 or abs(np.log(b[j, 2] / a[j, 2]) - 0.5 * np.log(area)) > max_log_scale:
            continue
        u, _, v = np.linalg.svd(jacobian)
        rotation = u @ v
        turn = np.arctan2(rotation[1, 0], rotation[0, 0])
        marked[j] = np.cos(b[j, 3] - a[j, 3] - turn) >= min_cos
    return marked


def affine(points, images):
    """Least-squares affine transform."""
    design = np.column_stack([points, np.ones(len(points))])
    transform = np.eye(3)
    transform[:2] = np.linalg.lstsq(design, images, rcond=None)[0].T
    return transform


def fit_similarity(points, images):
    """Least-squares similarity: x' = a x − b y + tx, y' = b x + a y + ty."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, images, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty], [0, 0, 1]])


def transfer_error(transform, points, images):
    """Sum of squared distances in the second image."""
    return sum(np.sum((apply(transform, p)[0] - q) ** 2) for p, q in zip(points, images, strict=True))


def count_places(a, b, apart_a, apart_b):
    """Number of correspondences that lie apart from all counted before, in both images."""
    kept = []
    for p, q in zip(a, b, strict=True):
        if not any(np.abs(p - r).max() < apart_a or np.abs(q - s).max() < apart_b for r, s in kept):
            kept.append((p, q))
    return len(kept)


def fit_translation_scale(points, images):
    """Least-squares scale and translation: x' = a x + tx, y' = a y + ty."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, images, strict=True):
        rows += [[x, 1, 0], [y, 0, 1]]
        values += [u, v]
    a, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, 0, tx], [0, a, ty], [0, 0, 1]])


def fit_upright_affine(points, images):
    """Least squares x' = a x + tx, y' = b x + c y + ty."""
    ones = np.ones(len(points))
    a, tx = np.linalg.lstsq(np.column_stack([points[:, 0], ones]), images[:, 0], rcond=None)[0]
    b, c, ty = np.linalg.lstsq(np.column_stack([points, ones]), images[:, 1], rcond=None)[0]
    return np.array([[a, 0, tx], [b, c, ty], [0, 0, 1]])


def count_cells(points, n_cells):
    """Occupied cells of a grid over the bounding box of the points."""
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    occupied = set()
    for point in points:
        cell = [
            0 if extent[c] == 0 else min(int((point[c] - low[c]) * (n_cells / extent[c])), n_cells - 1) for c in (0, 1)
        ]
        occupied.add(tuple(cell))
    return len(occupied)


def vote(a, b, extent):
    """Cells of similarities: finest cell → [score, voters, (a, b, x, y) of their mean]; see `vote_similarities`.

    Coordinates are taken as they are, the origin of the first image is what moves.
    """
    counts = [{}, {}, {}]
    frames, cells = [], []
    for p, q in zip(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), strict=True):
        moved = similarity(p, q)[:2, 2]
        log_scale, turn = np.log(q[2] / p[2]), q[3] - p[3]
        places = [512 + 64 * m / (2 * extent) + 0.5 for m in moved]
        places.append(32 * (log_scale + np.log(10)) / (2 * np.log(10)) + 0.5)
        finest = [int(np.floor(place)) for place in places]
        frames.append((log_scale, turn, moved))
        if not (0 <= finest[0] < 1024 and 0 <= finest[1] < 1024 and 0 <= finest[2] < 32):
            cells.append(None)
            continue
        turn_cell = int(np.floor(((turn + np.pi) % (2 * np.pi) - np.pi) * 8 / (2 * np.pi) + 2.5)) % 8
        cell = (finest[0] + 2, finest[1] + 2, finest[2] + 2, turn_cell)
        cells.append(cell)
        for level in range(3):
            coarse = tuple(c // 2**level for c in cell)
            counts[level][coarse] = counts[level].get(coarse, 0) + 1
    votes = {}
    for cell in set(cells) - {None}:
        voters = [i for i, other in enumerate(cells) if other == cell]
        score = sum(counts[level][tuple(c // 2**level for c in cell)] / 2**level for level in range(3))
        scale = np.exp(np.mean([frames[i][0] for i in voters]))
        turn = np.arctan2(*(np.sum([f(frames[i][1]) for i in voters]) for f in (np.sin, np.cos)))
        x, y = np.mean([frames[i][2] for i in voters], axis=0)
        votes[cell] = [score, voters, (scale * np.cos(turn), scale * np.sin(turn), x, y)]
    return votes


def normalized_pairs(pairs, weights):
    """Points of unit spread about their weighted mean, in both images, with their weights; mean and spreads."""
    kept = weights > 0
    points, weights = pairs[:, kept].astype(np.float64), weights[kept]
    mean = np.average(points, axis=1, weights=weights)
    centred = points - mean[:, None]
    spreads = [np.sqrt(np.average((centred[s : s + 2] ** 2).sum(axis=0), weights=weights)) for s in (0, 2)]
    return np.vstack([centred[:2] / spreads[0], centred[2:] / spreads[1], weights]), mean, spreads
