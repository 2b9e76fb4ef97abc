"""The square regions of R-MAC on a map of given size."""

from __future__ import annotations


def rmac_regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int, int]]:
    """Return the regions of R-MAC on a map: level, y, x of the first pixel, side; in pixels of the map.

    Parameters
    ----------
    height, width : int
        Size of the map.
    levels : int, default=3
        Scales of regions.

    Notes
    -----
    With w the shorter side, regions of level l have the side ⌊2w / (l + 1)⌋ and lie evenly spaced, l along the shorter
    side, l + m along the longer one. m, 1 to 6, brings the overlap of neighbours at level 1 closest to 40 %; on a
    square map it is 0. A level whose side would be 0 is left out. Ordered by level, then y, then x. The global region,
    which is the whole map, is not among them.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 3.2; spacing and rounding as in the authors' program.

    Examples
    --------
    >>> from cvretrieval.deep.layers.region_grid import rmac_regions
    >>> rmac_regions(4, 6, levels=1)
    [(1, 0, 0, 4), (1, 0, 2, 4)]
    >>> len(rmac_regions(24, 32))
    20
    """
    regions: list[tuple[int, int, int, int]] = []
    for level, (side, ys, xs) in enumerate(region_levels(height, width, levels)):
        for y in ys:
            for x in xs:
                regions.append((level + 1, y, x, side))
    return regions


def region_levels(height: int, width: int, levels: int) -> list[tuple[int, list[int], list[int]]]:
    """Return for each level the side of its regions, and the first rows and first columns whose product they are."""
    shorter = min(height, width)
    extra = _extra_regions(shorter, max(height, width)) if height != width else 0
    grid: list[tuple[int, list[int], list[int]]] = []
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        if side > 0:
            ys = _starts(height, side, level + (extra if height > width else 0))
            xs = _starts(width, side, level + (extra if width > height else 0))
            grid.append((side, ys, xs))
    return grid


def _extra_regions(shorter: int, longer: int) -> int:
    best, closest = 1, float("inf")
    for extra in range(1, 7):
        step = (longer - shorter) / extra
        overlap = (shorter * shorter - shorter * step) / (shorter * shorter)
        if abs(overlap - 0.4) < closest:
            best, closest = extra, abs(overlap - 0.4)
    return best


def _starts(size: int, side: int, count: int) -> list[int]:
    """Return the first pixels of `count` evenly spaced intervals."""
    if count == 1:
        return [0]
    step = (size - side) / (count - 1)
    # Rounded about the middle of a region, as the authors' program does: it decides ties of rounding errors.
    middle = side // 2 - 1
    return [int((middle + i * step) // 1) - middle for i in range(count)]
