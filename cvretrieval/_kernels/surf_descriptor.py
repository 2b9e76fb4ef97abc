"""SURF's descriptor: sums of wavelet responses over the cells of a turned window."""

from __future__ import annotations

import math

import numpy as np

from cvretrieval._kernels._jit import njit

#: Samples on a side of the window, cells on a side, standard deviation of the Gaussian weight in samples.
PATCH_SIDE, CELLS_SIDE, PATCH_SIGMA = 20, 4, 3.3


@njit
def reduce_image(integral, factor, reduced):
    """Reduce an image by an integer factor: means over factor × factor pixels, over fewer at the right and lower edge.

    Parameters
    ----------
    integral : int32 (height + 1, width + 1)
    factor : int
    reduced : float32 (ceil(height / factor), ceil(width / factor))
        # OUT
    """
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    for i in range(reduced.shape[0]):
        upper, lower = integral[i * factor], integral[min((i + 1) * factor, height)]
        n_rows = min((i + 1) * factor, height) - i * factor
        for j in range(reduced.shape[1]):
            left, right = j * factor, min((j + 1) * factor, width)
            total = np.int32(np.int32(lower[right] - lower[left]) - np.int32(upper[right] - upper[left]))
            reduced[i, j] = np.float32(total) / np.float32(n_rows * (right - left))


@njit
def describe_keypoints(pixels, factor, keypoints, angles, weights, descriptors):
    """Describe the window of 20 scales around each keypoint, turned to its angle.

    The window is resampled to 21 × 21 means (`sample_patch`) and summed over 4 × 4 cells (`sum_cells`). With
    s = 1.2 L / 9 for a filter of side L, it has n = ceil(floor(21 s) / factor) samples a side, floor(21 s) / n pixels
    of the original image apart.

    Parameters
    ----------
    pixels : float32 (height, width)
        The image, reduced by `factor`.
    factor : int
    keypoints : float32 (n_keypoints, 3)
        x, y and side L of the filter, in pixels of the original image.
    angles : float32 (n_keypoints,)
        Radians.
    weights : float32 (20,)
        A Gaussian of sigma 3.3 about the middle.
    descriptors : float32 (n_keypoints, 64 or 128)
        # OUT

    References
    ----------
    Bay, Ess, Tuytelaars and Van Gool, "Speeded-up robust features (SURF)", CVIU 110, 2008, section 4.2.
    """
    n_keypoints = keypoints.shape[0]
    largest = 0.0
    for k in range(n_keypoints):
        largest = max(largest, np.float64(keypoints[k, 2]))
    n_largest = math.ceil(window_side(largest) / factor)
    line, total = np.empty(n_largest, dtype=np.float32), np.empty(n_largest, dtype=np.float32)
    patch = np.empty((PATCH_SIDE + 1, PATCH_SIDE + 1), dtype=np.float32)
    for k in range(n_keypoints):
        side = window_side(keypoints[k, 2])
        n = math.ceil(side / factor)
        # The edge of pixel 0 is at -0.5, in both images.
        x, y = (keypoints[k, 0] + 0.5) / factor - 0.5, (keypoints[k, 1] + 0.5) / factor - 0.5
        sample_patch(pixels, x, y, n, side / (n * factor), angles[k], line, total, patch)
        sum_cells(patch, weights, descriptors[k])


@njit
def window_side(size):
    """Return floor(21 s), s = 1.2 L / 9, for a filter of side L in whole pixels."""
    return 14 * int(size) // 5


@njit
def sample_patch(pixels, x, y, n, spacing, angle, line, total, patch):
    """Reduce a turned window of n × n samples to 21 × 21 means over equal areas.

    Sample (i, j) is at (x, y) + spacing · ((j − c)(cos, sin) + (i − c)(−sin, cos)), c = (n − 1) / 2, interpolated
    between four pixels; beyond the border the nearest pixel counts. Mean (a, b) is over samples
    [a, a + 1) n/21 × [b, b + 1) n/21, those on its edges by the part that belongs to it.

    Parameters
    ----------
    pixels : float32 (height, width)
    x, y : float
        Middle of the window.
    n : int
        At least 21.
    spacing, angle : float
    line, total : float32 (at least n,)
        Working memory.
    patch : float32 (21, 21)
        # OUT
    """
    n_means = patch.shape[0]
    step = n / n_means
    cos, sin = spacing * math.cos(angle), spacing * math.sin(angle)
    middle = 0.5 * (n - 1)
    a, end = 0, step
    total[:n] = 0.0
    for i in range(n):
        down = i - middle
        _sample_line(pixels, x - middle * cos - down * sin, y - middle * sin + down * cos, cos, sin, n, line)
        inside = np.float32(min(end - i, 1.0))
        for j in range(n):
            total[j] += inside * line[j]
        if end <= i + 1 and a < n_means - 1:
            _reduce_line(total, n, step, patch[a])
            a += 1
            end = step * (a + 1)
            rest = np.float32(1.0) - inside
            for j in range(n):
                total[j] = rest * line[j]
    # The last edge is the end of the window, up to rounding.
    _reduce_line(total, n, step, patch[a])


@njit
def _sample_line(pixels, x, y, cos, sin, n, line):
    """Interpolate n samples from (x, y) on, (cos, sin) apart."""
    height, width = pixels.shape
    right, bottom = x + (n - 1) * cos, y + (n - 1) * sin
    if (
        min(x, right) >= 0.01
        and max(x, right) < width - 1.01
        and min(y, bottom) >= 0.01
        and max(y, bottom) < height - 1.01
    ):
        # Places in 1/65536 of a pixel: whole and broken parts are bits, and the sums are exact.
        fixed_x, fixed_y = np.int64(x * 65536.0), np.int64(y * 65536.0)
        step_x, step_y = np.int64(cos * 65536.0), np.int64(sin * 65536.0)
        unit, one = np.float32(1.0 / 65536.0), np.uint64(1)
        for j in range(n):
            ix, iy = np.uint64(fixed_x >> 16), np.uint64(fixed_y >> 16)
            fx, fy = np.float32(fixed_x & 65535) * unit, np.float32(fixed_y & 65535) * unit
            upper = pixels[iy, ix] + (pixels[iy, ix + one] - pixels[iy, ix]) * fx
            lower = pixels[iy + one, ix] + (pixels[iy + one, ix + one] - pixels[iy + one, ix]) * fx
            line[j] = upper + (lower - upper) * fy
            fixed_x += step_x
            fixed_y += step_y
        return
    for j in range(n):
        px, py = min(max(x + j * cos, 0.0), width - 1.0), min(max(y + j * sin, 0.0), height - 1.0)
        left, top = int(px), int(py)
        fx, fy = np.float32(px - left), np.float32(py - top)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        upper = pixels[top, left] + (pixels[top, right] - pixels[top, left]) * fx
        lower = pixels[bottom, left] + (pixels[bottom, right] - pixels[bottom, left]) * fx
        line[j] = upper + (lower - upper) * fy


@njit
def _reduce_line(total, n, step, means):
    """Divide n sums over `step` lines into means over `step` × `step` samples."""
    area = np.float32(1.0 / (step * step))
    j = 0
    carried = np.float32(0.0)
    for b in range(means.shape[0]):
        end = step * (b + 1)
        value = carried
        while j < n and j + 1 <= end:
            value += total[j]
            j += 1
        inside = np.float32(end - j)
        if j < n and inside > 0:
            means[b] = (value + inside * total[j]) * area
            carried = (np.float32(1.0) - inside) * total[j]
            j += 1
        else:
            means[b] = value * area
            carried = np.float32(0.0)


@njit
def sum_cells(patch, weights, descriptor):
    """Sum weighted differences of the patch over 4 × 4 cells of 5 × 5 places, and divide by the L2 norm.

    dx = w_i w_j (p[i, j+1] − p[i, j] + p[i+1, j+1] − p[i+1, j]), dy likewise downwards. A cell, in row order, holds
    (Σ dx, Σ dy, Σ |dx|, Σ |dy|); in 128 dimensions (Σ dx, Σ |dx|) where dy ≥ 0, the same where dy < 0, then
    (Σ dy, Σ |dy|) where dx ≥ 0, and where dx < 0. A descriptor of zeros stays zero.

    Parameters
    ----------
    patch : float32 (21, 21)
    weights : float32 (20,)
    descriptor : float32 (64 or 128,)
        # OUT
    """
    n_values = descriptor.shape[0] // (CELLS_SIDE * CELLS_SIDE)
    extended = n_values == 8
    side = PATCH_SIDE // CELLS_SIDE
    descriptor[:] = 0.0
    for i in range(PATCH_SIDE):
        for j in range(PATCH_SIDE):
            weight = weights[i] * weights[j]
            falling, rising = patch[i + 1, j + 1] - patch[i, j], patch[i, j + 1] - patch[i + 1, j]
            dx, dy = weight * (falling + rising), weight * (falling - rising)
            start = (i // side * CELLS_SIDE + j // side) * n_values
            if extended:
                at_x, at_y = start + (0 if dy >= 0 else 2), start + (4 if dx >= 0 else 6)
                descriptor[at_x] += dx
                descriptor[at_x + 1] += abs(dx)
                descriptor[at_y] += dy
                descriptor[at_y + 1] += abs(dy)
            else:
                descriptor[start] += dx
                descriptor[start + 1] += dy
                descriptor[start + 2] += abs(dx)
                descriptor[start + 3] += abs(dy)
    square = np.float32(0.0)
    for d in range(descriptor.shape[0]):
        square += descriptor[d] * descriptor[d]
    if square > 0:
        scale = np.float32(1.0) / np.sqrt(square)
        for d in range(descriptor.shape[0]):
            descriptor[d] *= scale
