"""The neighbourhoods of a database with some queries in it, and the sparse encodings of its images by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvretrieval._kernels.k_reciprocal import average_encodings, insert_neighbors, pair_products, reciprocal_sets
from cvretrieval.reranking.database import ROWS_PER_PASS, ArrayDatabase, Database

# Numbers in the vectors that are gathered at once.
_MOST_VALUES = 2**25

# About as many images are in the encoding of one.
_USUAL_MEMBERS = 32


@dataclass(frozen=True, eq=False)
class Graph:
    """The neighbours of all images of a database, without any query.

    Attributes
    ----------
    database : Database
    neighbors, similarities : ndarray of shape (n_images, k + 1)
        See `nearest_neighbors`.
    smallest : ndarray of shape (n_images,)
        Cosine of the least similar image.
    """

    database: Database
    neighbors: NDArray[np.int32]
    similarities: NDArray[np.float32]
    smallest: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """The neighbours of images and of some queries among each other; query b is node n_images + b.

    Attributes
    ----------
    graph : Graph
    queries : ndarray of shape (n_queries, n_dims)
    changed : ndarray of shape (n_changed,)
        Nodes, ascending, whose neighbours are not those of the graph: the queries, and the images near them.
    changed_neighbors, changed_similarities : ndarray of shape (n_changed, k + 1)
    smallest : ndarray of shape (n_images + n_queries,)
        Cosine of the least similar node.
    """

    graph: Graph
    queries: NDArray[np.float32]
    changed: NDArray[np.int32]
    changed_neighbors: NDArray[np.int32]
    changed_similarities: NDArray[np.float32]
    smallest: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        graph: Graph,
        queries: NDArray[np.float32],
        found: NDArray[np.int64],
        cosines: NDArray[np.float32],
        smallest: NDArray[np.float32],
    ) -> Neighborhoods:
        """Put queries into the graph.

        Parameters
        ----------
        graph : Graph
        queries : ndarray of shape (n_queries, n_dims)
        found, cosines : ndarray of shape (n_queries, n_found)
            The images nearest to each query, at least k if there are so many: it may become a neighbour of these.
        smallest : ndarray of shape (n_queries,)
            Cosine of the image least similar to each query.
        """
        n_images, width = graph.neighbors.shape
        n_queries = len(queries)
        own = np.full((n_queries, width), -1, dtype=np.int32)
        own_values = np.full((n_queries, width), -np.inf, dtype=np.float32)
        own[:, 0] = n_images + np.arange(n_queries)
        n_listed = min(width - 1, found.shape[1])
        own[:, 1 : n_listed + 1], own_values[:, 1 : n_listed + 1] = found[:, :n_listed], cosines[:, :n_listed]
        all_smallest = np.concatenate([graph.smallest, smallest])
        if n_queries > 1:
            others = ArrayDatabase(queries)
            near, values = others.search(queries, min(width + 1, n_queries))
            rows, columns = np.nonzero((near >= 0) & (near != np.arange(n_queries)[:, None]))
            _insert(rows, near[rows, columns] + n_images, values[rows, columns], own, own_values)
            farthest = -others.search(-queries, 1)[1][:, 0]
            all_smallest[n_images:] = np.minimum(all_smallest[n_images:], farthest)
        rows, columns = np.nonzero(found >= 0)
        images, values = found[rows, columns], cosines[rows, columns]
        np.minimum.at(all_smallest, images, values)
        is_near = values > graph.similarities[images, -1]
        rows, images, values = rows[is_near], images[is_near], values[is_near]
        changed, places = np.unique(images, return_inverse=True)
        lists, list_values = graph.neighbors[changed], graph.similarities[changed]
        _insert(places.reshape(-1), rows + n_images, values, lists, list_values)
        return cls(
            graph,
            queries,
            np.concatenate([changed.astype(np.int32), own[:, 0]]),
            np.concatenate([lists, own]),
            np.concatenate([list_values, own_values]),
            all_smallest,
        )

    @property
    def n_nodes(self) -> int:
        return len(self.smallest)

    def lists(self, nodes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the neighbours (n_nodes, k + 1) of some nodes, and their cosines."""
        n_images = len(self.graph.neighbors)
        images = np.minimum(nodes, n_images - 1)
        lists, values = self.graph.neighbors[images], self.graph.similarities[images]
        places = np.minimum(np.searchsorted(self.changed, nodes), len(self.changed) - 1)
        is_changed = self.changed[places] == nodes
        lists[is_changed] = self.changed_neighbors[places[is_changed]]
        values[is_changed] = self.changed_similarities[places[is_changed]]
        return lists, values

    def vectors(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the vectors (n_nodes, n_dims) of some nodes, ascending."""
        n_images = len(self.graph.neighbors)
        n_own = int(np.searchsorted(nodes, n_images))
        images = self.graph.database.take(nodes[:n_own].astype(np.int64))
        return np.concatenate([images, self.queries[nodes[n_own:] - n_images]])

    def scaled_distances(self, nodes: NDArray[np.int32], similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the squared distances of nodes to others of some cosines, divided by the node's largest one."""
        largest = 2.0 - 2.0 * self.smallest[nodes].astype(np.float64)
        distances = np.maximum(2.0 - 2.0 * similarities, 0.0)
        return np.divide(distances, largest, out=np.zeros_like(distances), where=largest > 0)

    def query_distances(self, query: int, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scaled distances of one query to some images."""
        vector = self.queries[query].astype(np.float64)
        cosines = np.empty(len(images))
        for start in range(0, len(images), ROWS_PER_PASS):
            rows = slice(start, start + ROWS_PER_PASS)
            cosines[rows] = np.einsum("ij,j->i", self.graph.database.take(images[rows]).astype(np.float64), vector)
        node = len(self.graph.neighbors) + query
        return self.scaled_distances(np.full(len(images), node, dtype=np.int32), cosines)


@dataclass(frozen=True, eq=False)
class Encodings:
    """Sparse encodings of some images and of all queries, each of sum 1.

    Attributes
    ----------
    images : ndarray of shape (n_rows - n_queries,)
        The images, ascending; the queries follow.
    offsets, members, weights : ndarray of shape (n_rows + 1,), (n_values,), (n_values,)
        Row i has `weights` at the nodes `members`, ascending, between ``offsets[i]`` and ``offsets[i + 1]``.
    """

    images: NDArray[np.int64]
    offsets: NDArray[np.int64]
    members: NDArray[np.int32]
    weights: NDArray[np.float64]

    def rows_of(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some of the images."""
        return np.searchsorted(self.images, images)

    def row_of_query(self, query: int) -> int:
        """Return the row of a query."""
        return len(self.images) + query


def encode(neighborhoods: Neighborhoods, images: NDArray[np.int64], n_expansion: int) -> Encodings:
    """Encode images and all queries by their k-reciprocal neighbours, and average over the nearest.

    Parameters
    ----------
    neighborhoods : Neighborhoods
    images : ndarray of shape (n_images,)
        Ascending.
    n_expansion : int
    """
    first_query = len(neighborhoods.graph.neighbors)
    wanted = np.concatenate([images, np.arange(first_query, neighborhoods.n_nodes)]).astype(np.int32)
    lists = np.ascontiguousarray(neighborhoods.lists(wanted)[0][:, :n_expansion])
    nodes = np.unique(lists[lists >= 0])
    offsets, members, weights = _reciprocal_encodings(neighborhoods, nodes)
    sizes = np.diff(offsets)
    n_values = int(sizes[np.searchsorted(nodes, lists[lists >= 0])].sum())
    out = np.empty(len(lists) + 1, dtype=np.int64), np.empty(n_values, dtype=np.int32), np.empty(n_values)
    average_encodings(lists, nodes, offsets, members, weights, np.zeros(neighborhoods.n_nodes), *out)
    return Encodings(images, *out)


def _reciprocal_encodings(
    neighborhoods: Neighborhoods, nodes: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return V of some nodes as offsets, members and weights."""
    width = neighborhoods.graph.neighbors.shape[1]
    # As the original program rounds: half to even.
    half = round((width - 1) / 2)
    size = max(1, _MOST_VALUES // (_USUAL_MEMBERS * neighborhoods.queries.shape[1]))
    all_sizes, all_members, all_weights = [np.zeros(1, dtype=np.int64)], [], []
    for start in range(0, len(nodes), size):
        part = nodes[start : start + size]
        offsets = np.empty(len(part) + 1, dtype=np.int64)
        members = np.empty(len(part) * width * (half + 2), dtype=np.int32)
        reciprocal_sets(
            part, neighborhoods.graph.neighbors, neighborhoods.changed, neighborhoods.changed_neighbors, half, offsets,
            members,
        )  # fmt: skip
        members = members[: offsets[-1]].copy()
        owners = np.repeat(part, np.diff(offsets))
        similarities = _known_similarities(neighborhoods, part, owners, members)
        unknown = np.flatnonzero(np.isnan(similarities))
        involved = np.union1d(owners[unknown], members[unknown])
        products = np.empty(len(unknown))
        pair_products(
            neighborhoods.vectors(involved), np.searchsorted(involved, owners[unknown]),
            np.searchsorted(involved, members[unknown]), products,
        )  # fmt: skip
        similarities[unknown] = products
        weights = np.exp(-neighborhoods.scaled_distances(owners, similarities))
        weights /= np.repeat(np.add.reduceat(weights, offsets[:-1]), np.diff(offsets))
        all_sizes.append(np.diff(offsets))
        all_members.append(members)
        all_weights.append(weights)
    return np.cumsum(np.concatenate(all_sizes)), np.concatenate(all_members), np.concatenate(all_weights)


def _known_similarities(
    neighborhoods: Neighborhoods, nodes: NDArray[np.int32], owners: NDArray[np.int32], members: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the cosine of each owner, one of the nodes, and its member where the member is in its list, else NaN."""
    lists, values = neighborhoods.lists(nodes)
    values[:, 0] = 1.0  # itself
    pairs = (nodes.astype(np.int64)[:, None] * neighborhoods.n_nodes + lists)[lists >= 0]
    order = np.argsort(pairs)
    pairs, listed = pairs[order], values[lists >= 0][order]
    wanted = owners.astype(np.int64) * neighborhoods.n_nodes + members
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return np.where(pairs[places] == wanted, listed[places].astype(np.float64), np.nan)


def _insert(
    places: NDArray[np.int64],
    nodes: NDArray[np.int64],
    similarities: NDArray[np.float32],
    lists: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Insert nodes into lists, for each list in the order of their numbers."""
    order = np.lexsort((nodes, places))
    insert_neighbors(places[order], nodes[order].astype(np.int32), similarities[order], lists, values)
