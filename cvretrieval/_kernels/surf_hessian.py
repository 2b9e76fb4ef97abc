"""SURF's determinant of the Hessian from box filters on an integral image."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

#: Boxes of a 9 x 9 filter approximate second derivatives of a Gaussian; the mixed one is scaled by this to match.
MIXED_WEIGHT_SQUARED = np.float32(0.81)


@njit
def integrate(pixels, integral):
    """Sum the pixels above and to the left: I[y, x] = Σ_{v < y, u < x} pixels[v, u] modulo 2³².

    A sum over a box is exact as long as it is below 2³¹, whatever the size of the image.

    Parameters
    ----------
    pixels : uint8 (height, width)
    integral : int32 (height + 1, width + 1)
        # OUT
    """
    height, width = pixels.shape
    for x in range(width + 1):
        integral[0, x] = 0
    for y in range(height):
        above, row, source = integral[y], integral[y + 1], pixels[y]
        row[0] = 0
        total = np.int32(0)
        for x in range(width):
            total = np.int32(total + source[x])
            row[x + 1] = np.int32(above[x + 1] + total)


@njit
def split_columns(integral, phases):
    """Sort columns by their remainder: phases[p, y, q] = integral[y, n q + p], 0 where there is no such column.

    On a lattice of step n, corners of boxes then lie next to each other, which lets the filters run vectorised.

    Parameters
    ----------
    integral : int32 (n_rows, n_columns)
    phases : int32 (n, n_rows, ceil(n_columns / n))
        # OUT
    """
    step, n_rows, n_places = phases.shape
    n_columns = integral.shape[1]
    for p in range(step):
        for y in range(n_rows):
            for q in range(n_places):
                x = q * step + p
                phases[p, y, q] = integral[y, x] if x < n_columns else 0


@njit
def corner_of(ninths, size):
    """Place a corner of the 9 x 9 filter in the filter of side `size`: round(ninths · size / 9).

    Sides are multiples of 3, so there are no ties, and boxes that mirror each other have the same area.
    """
    return (2 * ninths * size + 9) // 18


@njit
def _row(phases, y, x):
    """Return row y from column x on, every n-th column."""
    step = phases.shape[0]
    return phases[x % step, y, x // step :]


@njit
def _add_lobes(top_left, top_right, bottom_left, bottom_right, weight, n, sums):
    """Add weight · (sum over a box) of n places to `sums`."""
    for j in range(n):
        box = np.int32(np.int32(bottom_right[j] - bottom_left[j]) - np.int32(top_right[j] - top_left[j]))
        sums[j] += weight * np.float32(box)


@njit
def filter_layer(phases, size, sums, determinants):
    """Filter a lattice of step n with the boxes of side L = `size`: det = Dxx Dyy − 0.81 Dxy².

    With corners r(k) = round(k L / 9), relative to the top left of the filter and as means over the area of a lobe:
    Dxx sums columns 0..L and takes three times r(3)..r(6), over rows r(2)..r(7); Dyy is its transpose; Dxy is the boxes
    r(1)..r(4) × r(1)..r(4) and r(5)..r(8) × r(5)..r(8) minus the two beside the other diagonal.

    Parameters
    ----------
    phases : int32 (n, height + 1, n_places)
        Integral image with its columns sorted.
    size : int
        Side of the filter in pixels, a multiple of 3.
    sums : float32 (3, width)
        Working memory.
    determinants : float32 (height, width)
        # OUT. Of the filter whose top left corner is at pixel (n x, n y), for as many places as hold a whole filter.

    References
    ----------
    Bay, Ess, Tuytelaars and Van Gool, "Speeded-up robust features (SURF)", CVIU 110, 2008, section 3.2 and equation 3.
    """
    step = phases.shape[0]
    n_rows, n_places = determinants.shape
    a1, a2, a4, a5 = corner_of(1, size), corner_of(2, size), corner_of(4, size), corner_of(5, size)
    a7, third = corner_of(7, size), size // 3
    straight = np.float32(1.0 / (third * (a7 - a2)))
    mixed = np.float32(1.0 / ((a4 - a1) * (a4 - a1)))
    one, three = np.float32(1.0), np.float32(3.0)
    for i in range(n_rows):
        y = i * step
        sums[:, :n_places] = 0.0
        xx, yy, xy = sums[0], sums[1], sums[2]
        _add_lobes(_row(phases, y + a2, 0), _row(phases, y + a2, size), _row(phases, y + a7, 0),
                   _row(phases, y + a7, size), one, n_places, xx)  # fmt: skip
        _add_lobes(_row(phases, y + a2, third), _row(phases, y + a2, 2 * third), _row(phases, y + a7, third),
                   _row(phases, y + a7, 2 * third), -three, n_places, xx)  # fmt: skip
        _add_lobes(_row(phases, y, a2), _row(phases, y, a7), _row(phases, y + size, a2), _row(phases, y + size, a7),
                   one, n_places, yy)  # fmt: skip
        _add_lobes(_row(phases, y + third, a2), _row(phases, y + third, a7), _row(phases, y + 2 * third, a2),
                   _row(phases, y + 2 * third, a7), -three, n_places, yy)  # fmt: skip
        for top, left, sign in ((a1, a1, one), (a1, a5, -one), (a5, a1, -one), (a5, a5, one)):
            bottom, right = top + a4 - a1, left + a4 - a1
            _add_lobes(_row(phases, y + top, left), _row(phases, y + top, right), _row(phases, y + bottom, left),
                       _row(phases, y + bottom, right), sign, n_places, xy)  # fmt: skip
        row = determinants[i]
        for j in range(n_places):
            cross = xy[j] * mixed
            row[j] = (xx[j] * straight) * (yy[j] * straight) - MIXED_WEIGHT_SQUARED * (cross * cross)


@njit
def laplacian_signs(integral, top, left, size):
    """Return the signs of Dxx + Dyy (see `filter_layer`) at single places: −1 on bright blobs, 1 on dark ones.

    Parameters
    ----------
    integral : int32 (height + 1, width + 1)
    top, left : int64 (n,)
        Pixels of the filters' top left corners.
    size : int

    Returns
    -------
    int8 (n,)
    """
    near, far, third = corner_of(2, size), corner_of(7, size), size // 3
    signs = np.empty(top.shape[0], dtype=np.int8)
    for k in range(top.shape[0]):
        y, x = top[k], left[k]
        total = np.int64(0)
        for start, end, weight in ((0, size, 1), (third, 2 * third, -3)):
            total += weight * _box_sum(integral, y + near, x + start, y + far, x + end)
            total += weight * _box_sum(integral, y + start, x + near, y + end, x + far)
        signs[k] = np.sign(total)
    return signs


@njit
def _box_sum(integral, top, left, bottom, right):
    """Sum the pixels from (left, top) to before (right, bottom)."""
    return np.int32(
        np.int32(integral[bottom, right] - integral[bottom, left])
        - np.int32(integral[top, right] - integral[top, left])
    )
