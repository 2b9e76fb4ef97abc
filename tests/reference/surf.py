"""SURF from its definition: sums over pixels, loops over places, keypoints and samples."""

import math

import numpy as np


def box_sum(pixels, top, left, bottom, right):
    """Sum the pixels from (left, top) to before (right, bottom)."""
    return int(pixels[top:bottom, left:right].astype(np.int64).sum())


def second_derivatives(pixels, top, left, size):
    """Return Dxx, Dyy, Dxy of one filter whose corners are those of the 9 x 9 filter, scaled and rounded."""
    c = [round(k * size / 9) for k in range(10)]

    def mean(weights, y0, x0, y1, x1):
        area = (c[y1] - c[y0]) * (c[x1] - c[x0])
        return weights * box_sum(pixels, top + c[y0], left + c[x0], top + c[y1], left + c[x1]) / area

    xx = mean(1, 2, 0, 7, 3) + mean(-2, 2, 3, 7, 6) + mean(1, 2, 6, 7, 9)
    yy = mean(1, 0, 2, 3, 7) + mean(-2, 3, 2, 6, 7) + mean(1, 6, 2, 9, 7)
    xy = mean(1, 1, 1, 4, 4) + mean(-1, 1, 5, 4, 8) + mean(-1, 5, 1, 8, 4) + mean(1, 5, 5, 8, 8)
    return xx, yy, xy


def filter_layer_naive(pixels, size, step):
    """Return the determinants of all filters that fit, with the top left corner at multiples of `step`."""
    height, width = pixels.shape
    rows = []
    for top in range(0, height - size + 1, step):
        derivatives = [second_derivatives(pixels, top, left, size) for left in range(0, width - size + 1, step)]
        rows.append([xx * yy - 0.81 * xy * xy for xx, yy, xy in derivatives])
    return np.array(rows)


def laplacian_sign_naive(pixels, top, left, size):
    """Return the sign of Dxx + Dyy."""
    xx, yy, _ = second_derivatives(pixels, top, left, size)
    return 0 if abs(xx + yy) < 1e-9 else math.copysign(1, xx + yy)


def find_maxima_naive(below, here, above, threshold, border):
    """Return rows of row, column, offsets in x, y, scale, value: strict maxima of 27 values with a quadratic fit."""
    stack = np.array([below, here, above], dtype=np.float64)
    found = []
    for i in range(border, here.shape[0] - border):
        for j in range(border, here.shape[1] - border):
            cube = stack[:, i - 1 : i + 2, j - 1 : j + 2]
            others = np.delete(cube.ravel(), 13)
            if not (cube[1, 1, 1] > threshold and cube[1, 1, 1] > others.max()):
                continue
            gradient = np.array([np.gradient(cube, axis=axis)[1, 1, 1] for axis in (2, 1, 0)])
            hessian = np.empty((3, 3))
            for a, axis_a in enumerate((2, 1, 0)):
                for b, axis_b in enumerate((2, 1, 0)):
                    if a == b:
                        hessian[a, b] = np.diff(cube, 2, axis=axis_a).squeeze(axis_a)[1, 1]
                    else:
                        corners = cube.take([0, 2], axis_a).take([0, 2], axis_b)
                        (other,) = {0, 1, 2} - {axis_a, axis_b}
                        low, high = corners.take(1, other)
                        hessian[a, b] = (high[1] - high[0] - low[1] + low[0]) / 4
            if abs(np.linalg.det(hessian)) == 0:
                continue
            offset = -np.linalg.solve(hessian, gradient)
            if np.abs(offset).max() <= 1:
                found.append([i, j, *offset, here[i, j]])
    return np.array(found).reshape(-1, 6)


def gaussian(n, sigma):
    """Return a Gaussian about the middle of n samples, with sum 1."""
    values = np.array([math.exp(-((i - (n - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(n)])
    return values / values.sum()


def orientation_naive(pixels, x, y, size):
    """Return the dominant orientation in radians, and how much longer its vector is than any other window's."""
    scale = size * 1.2 / 9
    half = round(2 * scale)
    weights = gaussian(13, 2.5)
    responses = []
    for v in range(-6, 7):
        for u in range(-6, 7):
            left, top = (round(centre - (2 * half - 1) / 2) for centre in (x + u * scale, y + v * scale))
            inside = 0 <= left < pixels.shape[1] - 2 * half + 1 and 0 <= top < pixels.shape[0] - 2 * half + 1
            if u * u + v * v > 36 or not inside:
                continue
            wavelet = pixels[top : top + 2 * half, left : left + 2 * half].astype(np.float64)
            weight = weights[u + 6] * weights[v + 6]
            dx = weight * (wavelet[:, half:].sum() - wavelet[:, :half].sum())
            dy = weight * (wavelet[half:].sum() - wavelet[:half].sum())
            responses.append((round(math.degrees(math.atan2(dy, dx))), dx, dy))
    sums = []
    for middle in range(0, 360, 5):
        near = [(dx, dy) for degree, dx, dy in responses if abs((degree - middle + 180) % 360 - 180) < 30]
        sums.append(np.sum(near, axis=0) if near else np.zeros(2))
    lengths = np.hypot(*np.transpose(sums))
    best = sums[lengths.argmax()]
    different = [length for s, length in zip(sums, lengths, strict=True) if not np.allclose(s, best)]
    margin = 1 - max(different, default=0) / lengths.max() if lengths.max() else 0.0
    return math.atan2(best[1], best[0]) % (2 * math.pi), margin


def reduce_image_naive(pixels, factor):
    """Return means over blocks of factor x factor pixels."""
    height, width = pixels.shape
    return np.array(
        [
            [pixels[y : y + factor, x : x + factor].mean() for x in range(0, width, factor)]
            for y in range(0, height, factor)
        ]
    )


def sample_patch_naive(pixels, x, y, n, spacing, angle):
    """Return the 21 x 21 means over a turned window of n x n interpolated samples."""
    height, width = pixels.shape
    cos, sin = spacing * math.cos(angle), spacing * math.sin(angle)
    window = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            across, down = j - (n - 1) / 2, i - (n - 1) / 2
            px = min(max(x + across * cos - down * sin, 0), width - 1)
            py = min(max(y + across * sin + down * cos, 0), height - 1)
            left, top = math.floor(px), math.floor(py)
            value = 0.0
            for row, wy in ((top, 1 - (py - top)), (top + 1, py - top)):
                for column, wx in ((left, 1 - (px - left)), (left + 1, px - left)):
                    value += wy * wx * pixels[min(row, height - 1), min(column, width - 1)]
            window[i, j] = value
    # How much of sample j belongs to mean a.
    share = np.array([[max(0, min((a + 1) * n / 21, j + 1) - max(a * n / 21, j)) for j in range(n)] for a in range(21)])
    return share @ window @ share.T / (n / 21) ** 2


def sum_cells_naive(patch, extended):
    """Return the descriptor of a patch: sums over 4 x 4 cells in row order, divided by the L2 norm."""
    weights = gaussian(20, 3.3)
    values = []
    for row in range(4):
        for column in range(4):
            pairs = []
            for i in range(5 * row, 5 * row + 5):
                for j in range(5 * column, 5 * column + 5):
                    weight = weights[i] * weights[j]
                    dx = weight * (patch[i, j + 1] - patch[i, j] + patch[i + 1, j + 1] - patch[i + 1, j])
                    dy = weight * (patch[i + 1, j] - patch[i, j] + patch[i + 1, j + 1] - patch[i, j + 1])
                    pairs.append((dx, dy))
            dx, dy = np.transpose(pairs)
            if not extended:
                values += [dx.sum(), dy.sum(), abs(dx).sum(), abs(dy).sum()]
                continue
            for some, other in ((dx, dy), (dy, dx)):
                for part in (some[other >= 0], some[other < 0]):
                    values += [part.sum(), abs(part).sum()]
    norm = np.linalg.norm(values)
    return np.array(values) / norm if norm else np.array(values)
