"""Dense SIFT: orientation maps, spatial bins on a regular grid, normalisation."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

# Coefficients of the cubic approximation of the arc tangent, as VLFeat has them: off by at most 0.0061 radians.
_CUBIC = np.float32(0.1821)
_LINEAR = np.float32(0.9675)
_TINY = np.float32(1e-30)


@njit(fastmath=True)
def map_orientations(image, margin, maps):
    """Spread the gradient magnitude of every pixel over its two nearest orientations.

    With g_x(x) = ½ (I(x + 1) − I(x − 1)), one-sided at the border, g_y alike, m = ‖g‖ and the position
    q = n_orientations · atan2(g_y, g_x) / 2π among the orientations:

        maps[y, x, t] = m · max(0, 1 − |q − t|), |·| taken around the circle

    The angle is π/4 + (0.1821 r² − 0.9675) r with r = (|g_x| − |g_y|) / (|g_x| + |g_y|), reflected into its quadrant.

    Parameters
    ----------
    image : float32 (height, width), at least 2 × 2
    margin : int
        Columns added to the left and to the right; they repeat the outermost ones.
    maps : float32 (height, width + 2 margin, n_orientations)
        # OUT
    """
    height, width = image.shape
    n_orientations = maps.shape[2]
    turns = np.float32(n_orientations / (2.0 * np.pi))
    n = np.float32(n_orientations)
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    quarter, half_turn = np.float32(np.pi / 4), np.float32(np.pi)
    magnitudes = np.empty(width, dtype=np.float32)
    positions = np.empty(width, dtype=np.float32)
    d_x = np.empty(width, dtype=np.float32)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        weight = half if below - above == 2 else one
        for x in range(1, width - 1):
            d_x[x] = half * (image[y, x + 1] - image[y, x - 1])
        d_x[0] = image[y, 1] - image[y, 0]
        d_x[width - 1] = image[y, width - 1] - image[y, width - 2]
        for x in range(width):
            g_x, g_y = d_x[x], weight * (image[below, x] - image[above, x])
            size = abs(g_y) + _TINY
            magnitudes[x] = np.sqrt(g_x * g_x + g_y * g_y)
            along = abs(g_x)
            # np.divide, because "/" looks for a zero divisor, which keeps the loop from being vectorised.
            ratio = np.divide(along - size, along + size)
            angle = quarter + (_CUBIC * ratio * ratio - _LINEAR) * ratio
            # Along the axis the polynomial is −2e-6, which would give negative weights.
            angle = max(angle, zero)
            angle = angle if g_x >= 0 else half_turn - angle
            q = turns * angle
            positions[x] = q if g_y >= 0 else n - q
        row = maps[y, margin : margin + width]
        row[:] = 0.0
        for x in range(width):
            first = int(positions[x])
            rest = positions[x] - np.float32(first)
            low = first if first < n_orientations else 0
            high = low + 1 if low + 1 < n_orientations else 0
            row[x, low] = (one - rest) * magnitudes[x]
            row[x, high] = rest * magnitudes[x]
        for x in range(margin):
            for t in range(n_orientations):
                maps[y, x, t] = maps[y, margin, t]
                maps[y, margin + width + x, t] = maps[y, margin + width - 1, t]


@njit(fastmath=True)
def sample_bins(maps, margin, weights, step, first_x, first_y, descriptors):
    """Fill the spatial bins of the descriptors of a grid.

    Descriptor (i, j) of row i and column j has its bin (b_y, b_x) centred at
    (first_x + j · step + b_x · size, first_y + i · step + b_y · size), and

        descriptors[i, j, b_y, b_x, t] = Σ_{d_y, d_x} weights[b_y, d_y] weights[b_x, d_x] maps[y + d_y, x + d_x, t]

    for d from −(size − 1) to size; rows beyond the image repeat the outermost one.

    Parameters
    ----------
    maps : float32 (height, width + 2 margin, n_orientations)
        As `map_orientations` leaves them.
    margin : int
        At least size.
    weights : float32 (n_bins, 2 size)
        Triangle times window of each bin, the same in both directions; the last, at d = size, are 0 and there to make
        the number even.
    step, first_x, first_y : int
        The grid in pixels; all bins are centred inside the image.
    descriptors : float32 (n_rows, n_columns, n_bins, n_bins, n_orientations)
        # OUT
    """
    height, padded_width, n_orientations = maps.shape
    n_rows, n_columns, n_bins = descriptors.shape[:3]
    n_taps = weights.shape[1]
    size = n_taps // 2
    rows = maps.reshape(height, padded_width * n_orientations)
    line = np.empty(padded_width * n_orientations, dtype=np.float32)
    samples = line.reshape(padded_width, n_orientations)
    bins = np.empty(8, dtype=np.float32)
    for i in range(n_rows):
        for b_y in range(n_bins):
            top = first_y + i * step + b_y * size - (size - 1)
            line[:] = 0.0
            # Four taps at a time: the running line is loaded and stored once for all of them.
            for d in range(0, n_taps - 3, 4):
                w0, w1, w2, w3 = weights[b_y, d], weights[b_y, d + 1], weights[b_y, d + 2], weights[b_y, d + 3]
                r0 = rows[min(max(top + d, 0), height - 1)]
                r1 = rows[min(max(top + d + 1, 0), height - 1)]
                r2 = rows[min(max(top + d + 2, 0), height - 1)]
                r3 = rows[min(max(top + d + 3, 0), height - 1)]
                for k in range(len(line)):
                    line[k] += (w0 * r0[k] + w1 * r1[k]) + (w2 * r2[k] + w3 * r3[k])
            for d in range(n_taps - n_taps % 4, n_taps):
                w0, r0 = weights[b_y, d], rows[min(max(top + d, 0), height - 1)]
                for k in range(len(line)):
                    line[k] += w0 * r0[k]
            for b_x in range(n_bins):
                left = margin + first_x + b_x * size - (size - 1)
                if n_orientations == 8:
                    # The usual number as a constant: one vector register.
                    for j in range(n_columns):
                        bins[:] = 0.0
                        at = left + j * step
                        for d in range(0, n_taps - 3, 4):
                            w0, w1, w2, w3 = (
                                weights[b_x, d],
                                weights[b_x, d + 1],
                                weights[b_x, d + 2],
                                weights[b_x, d + 3],
                            )
                            s0, s1, s2, s3 = (
                                samples[at + d],
                                samples[at + d + 1],
                                samples[at + d + 2],
                                samples[at + d + 3],
                            )
                            for t in range(8):
                                bins[t] += (w0 * s0[t] + w1 * s1[t]) + (w2 * s2[t] + w3 * s3[t])
                        for d in range(n_taps - n_taps % 4, n_taps):
                            for t in range(8):
                                bins[t] += weights[b_x, d] * samples[at + d, t]
                        for t in range(8):
                            descriptors[i, j, b_y, b_x, t] = bins[t]
                else:
                    for j in range(n_columns):
                        for t in range(n_orientations):
                            total = np.float32(0.0)
                            for d in range(n_taps):
                                total += weights[b_x, d] * samples[left + j * step + d, t]
                            descriptors[i, j, b_y, b_x, t] = total


@njit(fastmath=True)
def normalize_bins(descriptors, n_pixels, threshold, contrasts):
    """L2-normalise each descriptor, clip its elements at 0.2, normalise again; zero those of low contrast.

    contrast = Σ_d h_d / n_pixels: the mean gradient magnitude in the patch, weighted by the window.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
        Not negative; overwritten.  # OUT
    n_pixels : int
        Pixels between the centres of the outermost bins, in the square.
    threshold : float
        Descriptors with a smaller contrast, and those that are zero, become zero.
    contrasts : float32 (n_descriptors,)
        # OUT

    References
    ----------
    Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 6.1.
    """
    n_descriptors, n_dims = descriptors.shape
    clip = np.float32(0.2)
    per_pixel = np.float32(1.0 / n_pixels)
    for i in range(n_descriptors):
        mass, square = np.float32(0.0), np.float32(0.0)
        for d in range(n_dims):
            mass += descriptors[i, d]
            square += descriptors[i, d] * descriptors[i, d]
        contrasts[i] = mass * per_pixel
        if contrasts[i] < threshold or square < _TINY:
            for d in range(n_dims):
                descriptors[i, d] = 0.0
            continue
        scale = np.float32(1.0) / np.sqrt(square)
        square = np.float32(0.0)
        for d in range(n_dims):
            value = min(descriptors[i, d] * scale, clip)
            descriptors[i, d] = value
            square += value * value
        scale = np.float32(1.0) / np.sqrt(square)
        for d in range(n_dims):
            descriptors[i, d] *= scale
