"""SURF's dominant orientation from Haar wavelets in a disc around the keypoint."""

from __future__ import annotations

import math

import numpy as np

from cvretrieval._kernels._jit import njit

#: Radius of the disc in units of the scale, and standard deviation of its Gaussian weight.
DISC_RADIUS, DISC_SIGMA = 6, 2.5
#: Width of the sliding window and its step, in degrees.
WINDOW_DEG, STEP_DEG = 60, 5


@njit
def assign_orientations(integral, keypoints, weights, angles):
    """Give each keypoint the direction in which the wavelet responses around it add up to the longest vector.

    The scale of a filter of side L is s = 1.2 L / 9. At x + s (u, v), integers with u² + v² ≤ 36, Haar wavelets of side
    2 round(2 s) give the differences dx (right minus left half) and dy (lower minus upper half), weighted by
    G(u) G(v). Their directions are rounded to degrees; windows that hold the directions less than 30° away from
    0°, 5°, …, 355° are summed, and the direction of the longest sum is taken, the first of equals. Wavelets that
    do not lie in the image are left out; without any response the angle is 0.

    Parameters
    ----------
    integral : int32 (height + 1, width + 1)
    keypoints : float32 (n_keypoints, 3)
        x, y and side L of the filter, in pixels.
    weights : float32 (13,)
        G for u = −6..6: a Gaussian of sigma 2.5.
    angles : float32 (n_keypoints,)
        # OUT. Radians in [0, 2π), from the x towards the y axis (y down).

    References
    ----------
    Bay, Ess, Tuytelaars and Van Gool, "Speeded-up robust features (SURF)", CVIU 110, 2008, section 4.1.
    """
    # Responses by degree, running sums of them, twice around so that every window is one difference.
    sums = np.empty((2, 721))
    bins = np.empty((2, 360))
    for k in range(keypoints.shape[0]):
        _collect_responses(integral, keypoints[k, 0], keypoints[k, 1], keypoints[k, 2], weights, bins)
        sums[:, 0] = 0.0
        for degree in range(720):
            sums[0, degree + 1] = sums[0, degree] + bins[0, degree % 360]
            sums[1, degree + 1] = sums[1, degree] + bins[1, degree % 360]
        best, best_x, best_y = 0.0, 0.0, 0.0
        for middle in range(0, 360, STEP_DEG):
            first = middle - WINDOW_DEG // 2 + 1 + (360 if middle < WINDOW_DEG // 2 else 0)
            end = first + WINDOW_DEG - 1
            x, y = sums[0, end] - sums[0, first], sums[1, end] - sums[1, first]
            if x * x + y * y > best:
                best, best_x, best_y = x * x + y * y, x, y
        angle = np.float32(math.atan2(best_y, best_x))
        # A tiny negative angle rounds to 2π itself in float32.
        angle = np.float32(angle + 2.0 * math.pi) if angle < 0.0 else angle
        angles[k] = angle if angle < np.float32(2.0 * math.pi) else np.float32(0.0)


@njit
def _collect_responses(integral, x, y, size, weights, bins):
    """Add up the weighted responses around one keypoint by whole degree; see `assign_orientations`."""
    bins[:] = 0.0
    scale = np.float32(size * np.float32(1.2) / np.float32(9.0))
    half = int(np.rint(2.0 * scale))
    side = 2 * half
    to_corner = np.float32(0.5 * (side - 1))
    n_rows, n_columns = integral.shape
    for v in range(-DISC_RADIUS, DISC_RADIUS + 1):
        top = int(np.rint(y + v * scale - to_corner))
        if top < 0 or top >= n_rows - side:
            continue
        upper, middle, lower = integral[top], integral[top + half], integral[top + side]
        for u in range(-DISC_RADIUS, DISC_RADIUS + 1):
            if u * u + v * v > DISC_RADIUS * DISC_RADIUS:
                continue
            left = int(np.rint(x + u * scale - to_corner))
            if left < 0 or left >= n_columns - side:
                continue
            centre, right = left + half, left + side
            # Sums over the four quarters of the wavelet.
            row = np.int32(middle[left] - upper[left])
            a = np.int32(middle[centre] - upper[centre] - row)
            b = np.int32(middle[right] - upper[right] - row) - a
            row = np.int32(lower[left] - middle[left])
            c = np.int32(lower[centre] - middle[centre] - row)
            d = np.int32(lower[right] - middle[right] - row) - c
            weight = weights[u + DISC_RADIUS] * weights[v + DISC_RADIUS]
            dx, dy = (b + d) - (a + c), (c + d) - (a + b)
            if dx == 0 and dy == 0:
                continue
            degree = int(np.rint(math.degrees(math.atan2(np.float32(dy), np.float32(dx))))) % 360
            bins[0, degree] += weight * dx
            bins[1, degree] += weight * dy
