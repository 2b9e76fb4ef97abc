"""Epipolar geometry by its definitions, one correspondence at a time; and scenes seen by two cameras."""

from __future__ import annotations

import numpy as np


def cross_matrix(t):
    return np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])


def line_distances(f, p, q):
    """Distances of q from the line F p, and of p from the line Fᵀ q."""
    p, q = np.array([p[0], p[1], 1.0]), np.array([q[0], q[1], 1.0])
    there, back = f @ p, f.T @ q
    value = abs(q @ f @ p)
    return value / np.hypot(there[0], there[1]), value / np.hypot(back[0], back[1])


def explained(f, points, images, tolerance_a, tolerance_b):
    """Which correspondences lie near their epipolar lines, on the side of the epipoles where most of them do."""
    epipole = np.linalg.svd(f.T)[2][-1]
    near, side = [], []
    for p, q in zip(points, images, strict=True):
        in_b, in_a = line_distances(f, p, q)
        near.append(in_b <= tolerance_b and in_a <= tolerance_a)
        side.append(np.cross(epipole, [q[0], q[1], 1.0]) @ (f @ [p[0], p[1], 1.0]) > 0)
    near, side = np.array(near), np.array(side)
    majority = (near & side).sum() >= (near & ~side).sum()
    return near & (side == majority)


def normalisation(points):
    """Centre and scale to unit spread."""
    mean = points.mean(axis=0)
    spread = np.sqrt(((points - mean) ** 2).sum() / len(points))
    return np.array([[1 / spread, 0, -mean[0] / spread], [0, 1 / spread, -mean[1] / spread], [0, 0, 1]])


def fit(points, images, steps=3):
    """Eight-point algorithm on normalised points, reweighted to the Sampson error; rank 2, unit norm."""
    to_a, to_b = normalisation(points), normalisation(images)
    p = np.column_stack([points, np.ones(len(points))]) @ to_a.T
    q = np.column_stack([images, np.ones(len(images))]) @ to_b.T
    weights = np.ones(len(p))
    for _ in range(steps):
        rows = np.array([np.sqrt(w) * np.outer(v, u).ravel() for w, u, v in zip(weights, p, q, strict=True)])
        u, s, vt = np.linalg.svd(np.linalg.svd(rows)[2][-1].reshape(3, 3))
        f = u @ np.diag([s[0], s[1], 0]) @ vt
        f /= np.linalg.norm(f)
        weights = [
            1 / ((f @ a)[0] ** 2 + (f @ a)[1] ** 2 + (f.T @ b)[0] ** 2 + (f.T @ b)[1] ** 2)
            for a, b in zip(p, q, strict=True)
        ]
    full = to_b.T @ f @ to_a
    return full / np.linalg.norm(full)


def project(points):
    """Pinhole camera of an image of 800 × 600."""
    return points[:, :2] / points[:, 2:] * 800 + [400, 300]


def two_views(rng, n, n_outliers, kind, noise=1.0):
    """Keypoints of small patches of a scene in two views, then random ones.

    `kind` is "volume" (any depth), "plane", or "dominant plane" (a fifth of the points before it). Returns a, b (n +
    n_outliers, 4), and F of unit norm.
    """
    world = np.column_stack([rng.uniform(-2, 2, n), rng.uniform(-1.5, 1.5, n), rng.uniform(4, 8, n)])
    if kind != "volume":
        world[:, 2] = 6 + 0.4 * world[:, 0]
    if kind == "dominant plane":
        world[: n // 5, 2] -= rng.uniform(0.8, 2, n // 5)
    turn = 0.3
    yaw = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    roll = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]])
    rotation = roll @ yaw
    translation = -rotation @ np.array([1.5, 0.2, 0.3])
    camera = np.linalg.inv([[800, 0, 400], [0, 800, 300], [0, 0, 1]])
    f = camera.T @ cross_matrix(translation) @ rotation @ camera
    there = world @ rotation.T + translation
    angle = rng.uniform(0, 2 * np.pi, n)
    step = 0.01 * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(n)])
    moved = project((world + step) @ rotation.T + translation) - project(there)
    scale = rng.uniform(2, 8, n)
    a = np.column_stack([project(world), scale, angle])
    b = np.column_stack(
        [
            project(there) + rng.normal(0, noise, (n, 2)),
            scale * world[:, 2] / there[:, 2] * np.exp(rng.normal(0, 0.1, n)),
            np.arctan2(moved[:, 1], moved[:, 0]) + rng.normal(0, 0.09, n),
        ]
    )
    others = [
        np.column_stack([rng.uniform(0, 800, n_outliers), rng.uniform(0, 600, n_outliers),
                         rng.uniform(2, 8, n_outliers), rng.uniform(0, 2 * np.pi, n_outliers)])
        for _ in range(2)
    ]  # fmt: skip
    a, b = np.vstack([a, others[0]]), np.vstack([b, others[1]])
    return a.astype(np.float32), b.astype(np.float32), f / np.linalg.norm(f)
