"""k-reciprocal neighbours and the Jaccard distance of their sparse encodings."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

#: A candidate's neighbours join where more than this share of them, as numerator and denominator, is there already.
_SHARE = (2, 3)


@njit
def insert_neighbors(places, ids, similarities, neighbors, neighbor_similarities):
    """Insert new nodes into the lists of neighbours that they are near enough for; the last ones drop out.

    Parameters
    ----------
    places : int64 (n_pairs,)
        Which row of `neighbors` a new node is offered to.
    ids : int32 (n_pairs,)
        The new nodes, larger than all in the lists, ascending for each row: among equals the lower id comes first.
    similarities : float32 (n_pairs,)
    neighbors : int32 (n_rows, width)
        The node itself, then its nearest by decreasing similarity; -1 behind the last.  # OUT
    neighbor_similarities : float32 (n_rows, width)
        −inf behind the last.  # OUT
    """
    width = neighbors.shape[1]
    for p in range(places.size):
        row, values = neighbors[places[p]], neighbor_similarities[places[p]]
        if width == 1 or not similarities[p] > values[width - 1]:
            continue
        place = width - 1
        while place > 1 and similarities[p] > values[place - 1]:
            row[place] = row[place - 1]
            values[place] = values[place - 1]
            place -= 1
        row[place] = ids[p]
        values[place] = similarities[p]


@njit
def reciprocal_sets(nodes, neighbors, changed, changed_neighbors, half, offsets, members):
    """Write the expanded sets of k-reciprocal neighbours R* of some nodes, ascending.

    With N(i, k) the node i and its k nearest, k = width − 1::

        R(i, k)  = { j ∈ N(i, k) : i ∈ N(j, k) }
        R*(i, k) = R(i, k) ∪ ⋃ { R(j, k/2) : j ∈ R(i, k), |R(i, k) ∩ R(j, k/2)| > ⅔ |R(j, k/2)| }

    Parameters
    ----------
    nodes : int32 (n_nodes,)
    neighbors : int32 (n_all, width)
        N of all nodes: the node itself first, -1 behind the last.
    changed : int32 (n_changed,)
        Nodes, ascending, whose list is in `changed_neighbors` instead; their numbers may exceed `neighbors`.
    changed_neighbors : int32 (n_changed, width)
    half : int
        k/2, rounded.
    offsets : int64 (n_nodes + 1,)
        Where the members of each node begin.  # OUT
    members : int32 (n_nodes · width · (half + 2),)
        # OUT

    Notes
    -----
    The original program requires that the intersection is larger than two thirds; the paper, at least as large.

    References
    ----------
    Z. Zhong, L. Zheng, D. Cao and S. Li, "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017,
    equations 3 and 4.
    """
    width = neighbors.shape[1]
    own = np.empty(width, dtype=np.int32)
    others = np.empty(width, dtype=np.int32)
    total = 0
    offsets[0] = 0
    for n in range(nodes.size):
        n_own = _reciprocal(nodes[n], width, neighbors, changed, changed_neighbors, own)
        size = 0
        for p in range(n_own):
            members[total + size] = own[p]
            size += 1
        for p in range(n_own):
            n_others = _reciprocal(own[p], half + 1, neighbors, changed, changed_neighbors, others)
            n_common = 0
            for q in range(n_others):
                for r in range(n_own):
                    if own[r] == others[q]:
                        n_common += 1
                        break
            if _SHARE[1] * n_common > _SHARE[0] * n_others:
                for q in range(n_others):
                    members[total + size] = others[q]
                    size += 1
        found = members[total : total + size]
        found.sort()
        n_distinct = 0
        for p in range(size):
            if n_distinct == 0 or found[p] != found[n_distinct - 1]:
                members[total + n_distinct] = found[p]
                n_distinct += 1
        total += n_distinct
        offsets[n + 1] = total


@njit
def _list_of(node, neighbors, changed, changed_neighbors):
    """Return the list of a node."""
    place = np.searchsorted(changed, node)
    if place < changed.size and changed[place] == node:
        return changed_neighbors[place]
    return neighbors[node]


@njit
def _reciprocal(node, width, neighbors, changed, changed_neighbors, found):
    """Write R(node, width − 1) in the order of the node's list and return its size."""
    size = 0
    width = min(width, neighbors.shape[1])
    candidates = _list_of(node, neighbors, changed, changed_neighbors)
    for p in range(width):
        j = candidates[p]
        if j < 0:
            break
        back = _list_of(j, neighbors, changed, changed_neighbors)
        for q in range(width):
            if back[q] == node:
                found[size] = j
                size += 1
                break
    return size


@njit
def average_encodings(lists, nodes, offsets, members, weights, scratch, out_offsets, out_members, out_weights):
    """Write the mean of the encodings of each list of nodes: the local query expansion of the encodings.

        V̄_i = 1/|L_i| Σ_{j ∈ L_i} V_j

    Parameters
    ----------
    lists : int32 (n_rows, k)
        L: nodes, -1 behind the last; each list holds at least one.
    nodes : int32 (n_nodes,)
        All nodes of the lists, ascending.
    offsets, members, weights : int64 (n_nodes + 1,), int32 (n_values,), float64 (n_values,)
        V: the sparse encoding of each node.
    scratch : float64 (n_ids,)
        Zeros, for any member; zeros again afterwards.  # OUT
    out_offsets : int64 (n_rows + 1,)
        # OUT
    out_members, out_weights : int32 (n_out,), float64 (n_out,)
        Members ascending; n_out is at least the sum of the sizes of all encodings in the lists.  # OUT

    References
    ----------
    Zhong et al., CVPR 2017, equation 11.
    """
    total = 0
    out_offsets[0] = 0
    for i in range(len(lists)):
        size = 0
        n_list = 0
        for p in range(lists.shape[1]):
            if lists[i, p] < 0:
                break
            n_list += 1
            n = np.searchsorted(nodes, lists[i, p])
            for q in range(offsets[n], offsets[n + 1]):
                if scratch[members[q]] == 0.0:
                    out_members[total + size] = members[q]
                    size += 1
                scratch[members[q]] += weights[q]
        found = out_members[total : total + size]
        found.sort()
        for p in range(size):
            out_weights[total + p] = scratch[found[p]] / n_list
            scratch[found[p]] = 0.0
        total += size
        out_offsets[i + 1] = total


@njit
def jaccard_distances(query, rows, offsets, members, weights, distances):
    """Write the Jaccard distances of one encoding to others, each of sum 1.

        d_J(q, i) = 1 − m / (2 − m),   m = Σ_j min(V_qj, V_ij)

    Parameters
    ----------
    query : int
        Row of the query's encoding.
    rows : int64 (n_rows,)
        Rows of the others.
    offsets, members, weights : int64 (n_all + 1,), int32 (n_values,), float64 (n_values,)
        The encodings, members ascending.
    distances : float64 (n_rows,)
        # OUT

    References
    ----------
    Zhong et al., CVPR 2017, equation 10.
    """
    for r in range(rows.size):
        p, q = offsets[query], offsets[rows[r]]
        total = 0.0
        while p < offsets[query + 1] and q < offsets[rows[r] + 1]:
            if members[p] == members[q]:
                total += min(weights[p], weights[q])
                p += 1
                q += 1
            elif members[p] < members[q]:
                p += 1
            else:
                q += 1
        distances[r] = 1.0 - total / (2.0 - total)


@njit(fastmath=True)
def pair_products(vectors, first, second, products):
    """Write ⟨x_first, x_second⟩ of pairs of rows, added up in float64.

    Parameters
    ----------
    vectors : float32 (n_vectors, n_dims)
    first, second : int64 (n_pairs,)
    products : float64 (n_pairs,)
        # OUT
    """
    for p in range(first.size):
        x, y = vectors[first[p]], vectors[second[p]]
        total = 0.0
        for d in range(x.size):
            total += np.float64(x[d]) * np.float64(y[d])
        products[p] = total
