"""Nearest words in cells: which cells a descriptor should look into, and the nearest word of those, by bounds.

With o an origin and B an orthonormal basis of a subspace, x' = B(x − o), and x_r is what of x − o lies outside. Then
½‖x − o‖² − ½‖x − c‖² = ⟨x − o, c − o⟩ − ½‖c − o‖² ≤ ⟨x', c'⟩ + ‖x_r‖ ‖c_r‖ − ½‖c − o‖² (Cauchy and Schwarz). The right
side is a product of short vectors (x', ‖x_r‖) and (c', ‖c_r‖); only words whose bound beats the best word so far are
measured in full. Rankings and distances are sums in one order, whatever the company of a descriptor; only the products
of `scan_cells` go to BLAS, which decide what is measured, and never what is found.
"""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

_ROWS = 48

# Rows of one product with the words of a cell.
_SCANNED = 64

# Of the squared norm, beyond what sums in float32 lose: a bound must never be too low.
_SLACK = 1e-5


@njit(fastmath=True)
def row_products(rows, centers, products):
    """Write ⟨c_k, x_i⟩, three rows and four centres at a time; what is left over is filled up by repetition.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    centers : float32 (n_centers, n_dims)
    products : float32 (n_rows, n_centers)
        # OUT
    """
    n_dims = rows.shape[1]
    last_row, last = len(rows) - 1, len(centers) - 1
    for k in range(0, len(centers), 4):
        k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
        c0, c1, c2, c3 = centers[k], centers[k1], centers[k2], centers[k3]
        for i in range(0, len(rows), 3):
            i1, i2 = min(i + 1, last_row), min(i + 2, last_row)
            x0, x1, x2 = rows[i], rows[i1], rows[i2]
            a0 = a1 = a2 = a3 = np.float32(0.0)
            b0 = b1 = b2 = b3 = np.float32(0.0)
            d0 = d1 = d2 = d3 = np.float32(0.0)
            for d in range(n_dims):
                x, y, z = x0[d], x1[d], x2[d]
                w = c0[d]
                a0 += x * w
                b0 += y * w
                d0 += z * w
                w = c1[d]
                a1 += x * w
                b1 += y * w
                d1 += z * w
                w = c2[d]
                a2 += x * w
                b2 += y * w
                d2 += z * w
                w = c3[d]
                a3 += x * w
                b3 += y * w
                d3 += z * w
            products[i, k], products[i, k1], products[i, k2], products[i, k3] = a0, a1, a2, a3
            products[i1, k], products[i1, k1], products[i1, k2], products[i1, k3] = b0, b1, b2, b3
            products[i2, k], products[i2, k1], products[i2, k2], products[i2, k3] = d0, d1, d2, d3


@njit(fastmath=True)
def project(rows, origin, basis, projected, squares):
    """Write (B(x − o), ‖x_r‖, −1) and ‖x − o‖²; the norm of the rest is rounded up by 1e-5 ‖x − o‖² under the root.

    Parameters
    ----------
    rows : uint8 or float32 (n_rows, n_dims)
    origin : float32 (n_dims,)
    basis : float32 (n_kept, n_dims)
        Orthonormal rows.
    projected : float32 (n_rows, n_kept + 2)
        # OUT
    squares : float32 (n_rows,)
        # OUT
    """
    n_kept, n_dims = basis.shape
    centered = np.empty((_ROWS, n_dims), dtype=np.float32)
    products = np.empty((_ROWS, n_kept), dtype=np.float32)
    for first in range(0, len(rows), _ROWS):
        n = min(_ROWS, len(rows) - first)
        for i in range(n):
            square = np.float32(0.0)
            for d in range(n_dims):
                difference = np.float32(rows[first + i, d]) - origin[d]
                centered[i, d] = difference
                square += difference * difference
            squares[first + i] = square
        row_products(centered[:n], basis, products)
        for i in range(n):
            kept = np.float32(0.0)
            for d in range(n_kept):
                kept += products[i, d] * products[i, d]
                projected[first + i, d] = products[i, d]
            rest = max(squares[first + i] - kept, np.float32(0.0))
            projected[first + i, n_kept] = np.sqrt(rest + np.float32(_SLACK) * squares[first + i])
            projected[first + i, n_kept + 1] = np.float32(-1.0)


@njit
def group_pairs(nodes, bounds, order):
    """Sort the pairs of row and node by node, rows ascending: those of node k are ``order[bounds[k]:bounds[k + 1]]``.

    Parameters
    ----------
    nodes : int32 (n_rows, n_nodes_each)
        −1 where there is none.
    bounds : int64 (n_nodes + 1,)
        # OUT
    order : int32 (n_rows * n_nodes_each,)
        # OUT
    """
    bounds[:] = 0
    for i in range(nodes.shape[0]):
        for j in range(nodes.shape[1]):
            if nodes[i, j] >= 0:
                bounds[nodes[i, j] + 1] += 1
    for k in range(1, len(bounds)):
        bounds[k] += bounds[k - 1]
    places = bounds.copy()
    for i in range(nodes.shape[0]):
        for j in range(nodes.shape[1]):
            node = nodes[i, j]
            if node >= 0:
                order[places[node]] = i
                places[node] += 1


@njit
def gather_rows(rows, order, gathered):
    """Copy ``rows[order]`` to the first rows of `gathered`.

    Parameters
    ----------
    rows : float32 (n_rows, n_dims)
    order : int (n_taken,)
    gathered : float32 (at least n_taken, n_dims)
        # OUT
    """
    for i in range(len(order)):
        row = order[i]
        # A loop: numba assigns rows ten times as slowly.
        for d in range(rows.shape[1]):
            gathered[i, d] = rows[row, d]


@njit
def rank_children(projected, order, bounds, children, centers, half_norms, scores, best):
    """Keep the best children of the nodes of each row, by ⟨c, x⟩ − ½‖c‖², the best of all first; ties to the lowest.

    Parameters
    ----------
    projected : float32 (n_rows, n_dims)
    order, bounds
        The rows of each node, as `group_pairs` returns them.
    children : int64 (n_nodes + 1,)
        Node k has the children ``children[k]`` to ``children[k + 1] - 1``.
    centers, half_norms : float32 (n_children, n_dims), float32 (n_children,)
    scores : float32 (n_rows, n_kept)
        −∞ where there are fewer.  # OUT
    best : int32 (n_rows, n_kept)
        −1 where there are fewer; in no order but for the first.  # OUT
    """
    scores[:] = -np.inf
    best[:] = -1
    most = 0
    for node in range(len(children) - 1):
        most = max(most, children[node + 1] - children[node])
    gathered = np.empty((_ROWS, projected.shape[1]), dtype=np.float32)
    products = np.empty((_ROWS, most), dtype=np.float32)
    worst = np.zeros(len(projected), dtype=np.int32)
    for node in range(len(children) - 1):
        first, stop = children[node], children[node + 1]
        for start in range(bounds[node], bounds[node + 1], _ROWS):
            members = order[start : min(start + _ROWS, bounds[node + 1])]
            gather_rows(projected, members, gathered)
            row_products(gathered[: len(members)], centers[first:stop], products)
            for i in range(len(members)):
                row = members[i]
                worst[row] = offer_children(products, i, half_norms, first, stop, worst[row], scores, best, row)
    for i in range(len(best)):
        top = 0
        for j in range(1, best.shape[1]):
            if scores[i, j] > scores[i, top] or (scores[i, j] == scores[i, top] and 0 <= best[i, j] < best[i, top]):
                top = j
        scores[i, 0], scores[i, top] = scores[i, top], scores[i, 0]
        best[i, 0], best[i, top] = best[i, top], best[i, 0]


@njit
def offer_children(products, i, half_norms, first, stop, worst, scores, best, row):
    """Let each child take the place of the worst that is kept, if it beats it; return the place of the worst then.

    Parameters
    ----------
    products : float32 (n_products, at least stop - first)
        Row i: ⟨c, x⟩ of the children.
    i : int
    half_norms : float32 (n_children,)
        ½‖c‖² of all children; those of this node are at `first` to ``stop - 1``.
    first, stop : int
    worst : int
        Place of the worst.
    scores, best : float32 (n_rows, n_kept), int32 (n_rows, n_kept)
        # OUT, in row `row`
    row : int
    """
    least = scores[row, worst]
    for k in range(first, stop):
        score = products[i, k - first] - half_norms[k]
        if score > least:
            scores[row, worst], best[row, worst] = score, np.int32(k)
            worst, least = 0, scores[row, 0]
            for j in range(1, scores.shape[1]):
                # The later of equal ones goes first: selects, no branches.
                is_worse = scores[row, j] <= least
                worst = j if is_worse else worst
                least = scores[row, j] if is_worse else least
    return worst


@njit(fastmath=True)
def squared_distance(rows, i, centers, k):
    """Return ‖x_i − c_k‖² from differences, in float32.

    Parameters
    ----------
    rows : uint8 or float32 (n_rows, n_dims)
    i : int
    centers : float32 (n_centers, n_dims)
    k : int
    """
    square = np.float32(0.0)
    for d in range(centers.shape[1]):
        difference = np.float32(rows[i, d]) - centers[k, d]
        square += difference * difference
    return square


@njit(fastmath=True)
def sum_of_rows(centers, first, stop):
    """Return the sum of all elements of some rows, Σ_{first ≤ k < stop} Σ_d c_kd.

    Parameters
    ----------
    centers : float32 (n_centers, n_dims)
    first, stop : int
    """
    total = np.float32(0.0)
    for k in range(first, stop):
        for d in range(centers.shape[1]):
            total += centers[k, d]
    return total


@njit
def scan_cells(projected, squares, rows, order, bounds, cells, short, centers, numbers, distances, words):
    """Find the nearest word of each row in its cells, or keep the one it has: argmin ‖x − c‖², ties to the lowest.

    Parameters
    ----------
    projected : float32 (n_rows, n_kept + 2)
        (x', ‖x_r‖, −1).
    squares : float32 (n_rows,)
        ‖x − o‖².
    rows : uint8 or float32 (n_rows, n_dims)
    order, bounds
        The rows of each cell, as `group_pairs` returns them.
    cells : int64 (n_cells + 1,)
        Cell k holds the words at ``cells[k]`` to ``cells[k + 1] - 1`` of the next arrays.
    short : float32 (n_words, n_kept + 2)
        (c', ‖c_r‖, ½‖c − o‖²).
    centers : float32 (n_words, n_dims)
    numbers : int32 (n_words,)
        What the word at a place is called.
    distances : float32 (n_rows,)
        ‖x − c‖² of the best word so far; +∞ if there is none.  # OUT
    words : int32 (n_rows,)
        Its number.  # OUT
    """
    most = 0
    for k in range(len(cells) - 1):
        most = max(most, cells[k + 1] - cells[k])
    gathered = np.empty((_SCANNED, projected.shape[1]), dtype=np.float32)
    scratch = np.empty(_SCANNED * most, dtype=np.float32)
    candidates = np.empty(most + 1, dtype=np.int32)
    for cell in range(len(cells) - 1):
        first, stop = cells[cell], cells[cell + 1]
        if first == stop:
            continue
        if bounds[cell + 1] - bounds[cell] >= _SCANNED:
            # From front to back into the cache: one by one, in the order of need, each would wait for memory.
            scratch[0] = sum_of_rows(centers, first, stop)
        for start in range(bounds[cell], bounds[cell + 1], _SCANNED):
            members = order[start : min(start + _SCANNED, bounds[cell + 1])]
            gather_rows(projected, members, gathered)
            products = scratch[: len(members) * (stop - first)].reshape(len(members), stop - first)
            np.dot(gathered[: len(members)], short[first:stop].T, products)
            for i in range(len(members)):
                row = members[i]
                # Whole arrays and places in them: slices would cost as much as the scan.
                distances[row], words[row] = scan_products(
                    products, i, stop - first, centers, first, numbers, rows, row, squares[row], distances[row],
                    words[row], candidates,
                )  # fmt: skip


@njit(fastmath=True)
def scan_products(products, i, n, centers, first, numbers, rows, row, square, distance, word, candidates):
    """Return squared distance and number of the best word of one cell, or the given ones.

    Parameters
    ----------
    products : float32 (n_products, n)
        Row i: ⟨x', c'⟩ + ‖x_r‖ ‖c_r‖ − ½‖c − o‖² of the n words of the cell.
    i, n : int
    centers, first, numbers
        The words of the cell begin at place `first` of centers and numbers.
    rows, row
        The descriptor is ``rows[row]``.
    square : float32
        ‖x − o‖².
    distance, word : float32, int32
        Of the best word so far.
    candidates : int32 (at least n + 1,)
        Scratch.  # OUT
    """
    if distance == np.inf:
        guess, top = 0, products[i, 0]
        for k in range(1, n):
            # In registers: a look at products[i, guess] would wait for the last guess.
            is_better = products[i, k] > top
            guess = k if is_better else guess
            top = products[i, k] if is_better else top
        distance, word = squared_distance(rows, row, centers, first + guess), numbers[first + guess]
    slack = np.float32(_SLACK) * square
    least = np.float32(0.5) * (square - distance) - slack
    # A sum of floats is what LLVM makes the best vectors of.
    n_passing = np.float32(0)
    for k in range(n):
        n_passing += np.float32(1) if products[i, k] >= least else np.float32(0)
    if n_passing == 0:
        return distance, word
    n_candidates = 0
    for k in range(n):
        # No branch, which would be mispredicted: a place that is not taken is overwritten.
        candidates[n_candidates] = k
        n_candidates += 1 if products[i, k] >= least else 0
    for j in range(n_candidates):
        k = candidates[j]
        if products[i, k] >= least:
            found = squared_distance(rows, row, centers, first + k)
            if found < distance or (found == distance and numbers[first + k] < word):
                distance, word = found, numbers[first + k]
                least = np.float32(0.5) * (square - distance) - slack
    return distance, word
