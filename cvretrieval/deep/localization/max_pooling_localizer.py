"""Approximate max-pooling localisation (AML): the region of each candidate that looks most like the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cvretrieval._parallel import progress_bar
from cvretrieval._validation import check_number
from cvretrieval.deep.inference import NetworkEstimator
from cvretrieval.deep.local.map_frame import region_in_original
from cvretrieval.deep.local.map_geometry import GeometryTracer
from cvretrieval.deep.localization.integral_map import IntegralMap
from cvretrieval.deep.localization.region_search import best_region
from cvretrieval.images import ImageReader, check_images


@dataclass(frozen=True, eq=False)
class RegionRanking:
    """Candidates in a new order, each with the region that decided it.

    Attributes
    ----------
    order : ndarray of shape (n_candidates,)
        int64, the candidates from best to worst; ties keep their order.
    scores : ndarray of shape (n_candidates,)
        float32, cosines by which they are ordered; of the candidates as they were given.
    boxes : ndarray of shape (n_candidates, 4)
        float64, x1, y1, x2, y2 of the regions, in original pixels, pixel centres at integers; of the candidates as they
        were given.
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float64]


class AML(NetworkEstimator):
    """Approximate max-pooling localisation: rerank by the region of each candidate that looks most like the query.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="resnet50"
        The network: a name, or a module, or a `Backbone` with its weights, layer and strides.
    power : float, default=10.0
        α of the approximation of the maximum in a region by a sum of powers.
    step : int, default=3
        Pixels of the map between the corners of the regions that are tried first.
    max_aspect_change : float, default=1.1
        Factor by which the ratio of a region's sides may differ from that of the query.
    n_refinements : int, default=5
        Rounds in which the borders of the best region are moved.
    max_shift : int, default=3
        Pixels of the map that a border is moved by at most, in a round.
    n_expand : int, default=5
        Best candidates whose regions are averaged with the query, to rank all candidates again; 0 leaves that out.
    image_size : int or None, default=1024
        Longest side in pixels: larger images are reduced, never enlarged. None keeps the reader's.
    reader : ImageReader, optional
        How images are read; the default one if None.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in; maps are searched in float32, their integral maps summed in float64.
    batch_size : int, default=1
        Images of one size that are computed at once. Halved, with a warning, where memory does not suffice.
    n_workers : int or None, default=4
        Threads that read images while the network runs; None is 1, -1 as many as there are processors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    The query is its MAC, un-whitened: the maximum of each channel, L2. In each candidate the region is sought whose
    approximate MAC has the largest cosine with it: among all with corners every `step` pixels and about the query's
    ratio of sides, then by moving the borders of the best one. The score is the cosine of the region's exact MAC. Then
    the query's vector and those of the `n_expand` best regions are averaged, L2, and all candidates ranked by the
    cosine of their regions' vectors with the mean.

    Ask with the object alone: a crop, or an `ImageRegion`. Give the best candidates by `RMAC` or the like, the paper
    takes 1,000; each costs a run of the network and some milliseconds.

    Differs from the authors' program in that activations are not quantised to 16 steps.

    References
    ----------
    .. [1] G. Tolias, R. Sicre and H. Jégou, "Particular object retrieval with integral max-pooling of CNN
       activations", ICLR 2016, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import AML, Backbone
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)
    >>> aml = AML(Backbone("resnet18", weights=None, layer="layer3"))
    >>> ranking = aml.rerank(images[2, 16:80, 32:96], images)
    >>> ranking.order.shape, ranking.boxes.shape
    ((3,), (3, 4))
    """

    scales: Sequence[float] = (1.0,)

    def __init__(
        self,
        backbone: Any = "resnet50",
        *,
        power: float = 10.0,
        step: int = 3,
        max_aspect_change: float = 1.1,
        n_refinements: int = 5,
        max_shift: int = 3,
        n_expand: int = 5,
        image_size: int | None = 1024,
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 1,
        n_workers: int | None = 4,
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.power = power
        self.step = step
        self.max_aspect_change = max_aspect_change
        self.n_refinements = n_refinements
        self.max_shift = max_shift
        self.n_expand = n_expand
        self.image_size = image_size
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    def localize(self, query: Any, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Find the region of each image that looks most like the query.

        Parameters
        ----------
        query : path, array, PIL image, file object or ImageRegion
            The object alone.
        X : sequence of the same
            Images to look in.

        Returns
        -------
        boxes : ndarray of shape (n_images, 4)
            float64, x1, y1, x2, y2 in original pixels, pixel centres at integers.
        vectors : ndarray of shape (n_images, n_channels)
            float32, MAC of each region, L2-normalised.
        query_vector : ndarray of shape (n_channels,)
            float32, MAC of the query, L2-normalised.

        Raises
        ------
        ImageReadError
            For an image that cannot be read, or is too small for the network.
        """
        self._check_parameters()
        images = check_images(X, estimator=self)
        wanted, aspect = self._query(query)
        boxes = np.empty((len(images), 4))
        vectors = np.empty((len(images), len(wanted)), dtype=np.float32)
        tracer = GeometryTracer()

        def regions(maps: Tensor) -> Any:
            geometry = tracer.geometry(maps)
            return [(geometry, tracer.image_size, *self._region(x, wanted, aspect)) for x in maps]

        with progress_bar(total=len(images), description="localising", verbose=self.verbose) as bar:
            for indices, (found,), read in self._run(images, regions, around=tracer.watch):
                for i, image, (geometry, size, box, vector) in zip(indices, read, found, strict=True):
                    if not bool(torch.isfinite(vector).all()):
                        raise self._refuse_activations(i)
                    boxes[i] = region_in_original(box, geometry, size, image)
                    vectors[i] = vector.cpu().numpy()
                bar.update(len(indices))
        return boxes, vectors, wanted.cpu().numpy()

    def rerank(self, query: Any, X: Any) -> RegionRanking:
        """Order candidates by their region that looks most like the query; see `localize` and the notes."""
        boxes, vectors, wanted = self.localize(query, X)
        scores = _cosines(vectors, wanted)
        if self.n_expand:
            best = np.argsort(-scores, kind="stable")[: self.n_expand]
            mean = np.vstack([wanted[None], vectors[best]]).mean(0)
            scores = _cosines(vectors, mean / max(float(np.linalg.norm(mean)), 1e-12))
        return RegionRanking(np.argsort(-scores, kind="stable").astype(np.int64), scores, boxes)

    def _query(self, query: Any) -> tuple[Tensor, float]:
        """Return the vector of the query, and width over height of its map."""
        (batch,) = self._run([query], lambda maps: maps[0])
        x: Tensor = batch.by_scale[0]
        if not bool(torch.isfinite(x).all()):
            raise self._refuse_activations(0)
        return F.normalize(x.clamp(min=0).amax((1, 2)), dim=0), x.shape[2] / x.shape[1]

    def _region(self, x: Tensor, wanted: Tensor, aspect: float) -> tuple[tuple[int, int, int, int], Tensor]:
        found = IntegralMap(x, self.power)
        box, _ = best_region(
            found, wanted, aspect, step=self.step, max_aspect_change=self.max_aspect_change,
            n_refinements=self.n_refinements, max_shift=self.max_shift,
        )  # fmt: skip
        return box, F.normalize(found.exact_maxima(box), dim=0)

    def _check_parameters(self) -> None:
        self._check_network_parameters()
        check_number(self, "power", self.power, low=1)
        check_number(self, "step", self.step, low=1, integer=True)
        check_number(self, "max_aspect_change", self.max_aspect_change, low=1)
        check_number(self, "n_refinements", self.n_refinements, low=0, integer=True)
        check_number(self, "max_shift", self.max_shift, low=0, integer=True)
        check_number(self, "n_expand", self.n_expand, low=0, integer=True)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _cosines(vectors: NDArray[np.float32], wanted: NDArray[Any]) -> NDArray[np.float32]:
    # Row by row, not as a matrix product: equal images have equal scores.
    cosines: NDArray[np.float32] = np.einsum("ij,j->i", vectors, wanted, dtype=np.float64).astype(np.float32)
    return cosines
