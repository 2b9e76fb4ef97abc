"""AML: sums of powers against their definition, the search against all regions, and places in real pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from cvretrieval import ImageReader
from cvretrieval.deep import AML, MAC, Backbone
from cvretrieval.deep.localization.integral_map import IntegralMap
from cvretrieval.deep.localization.region_search import best_region
from cvretrieval.images import ImageRegion

SEARCH = {"step": 3, "max_aspect_change": 1.1, "n_refinements": 5, "max_shift": 3}


def make_map(rng, channels=5, height=9, width=12):
    return torch.from_numpy(rng.exponential(size=(channels, height, width)).astype(np.float32))


def all_boxes(height, width):
    for y1, y2 in itertools.combinations(range(height + 1), 2):
        for x1, x2 in itertools.combinations(range(width + 1), 2):
            yield x1, y1, x2, y2


def slow_maxima(x, box, power):
    """The definition, pixel by pixel in Python's numbers."""
    x1, y1, x2, y2 = box
    return [
        sum(max(float(channel[i, j]), 0.0) ** power for i in range(y1, y2) for j in range(x1, x2)) ** (1 / power)
        for channel in x
    ]


@pytest.mark.parametrize("power", [1.0, 3.5, 10.0])
def test_maxima_are_sums_of_powers(rng, power):
    x = make_map(rng) - 0.2
    boxes = list(all_boxes(9, 12))[::97]
    found = IntegralMap(x, power).maxima(torch.tensor(boxes)).numpy()
    expected = np.array([slow_maxima(x, box, power) for box in boxes])
    clear = expected > x.amax((1, 2)).numpy() / 10
    np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-3)
    assert clear.mean() > 0.8 and (found[~clear] < float(x.amax()) / 5).all()


def test_approximation_is_between_the_maximum_and_its_bound(rng):
    x = make_map(rng)
    boxes = list(all_boxes(9, 12))
    found = IntegralMap(x, 10.0)
    approximate = found.maxima(torch.tensor(boxes)).numpy()
    exact = np.array([found.exact_maxima(box).numpy() for box in boxes])
    area = np.array([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes])[:, None]
    clear = exact > x.amax((1, 2)).numpy() / 10
    assert (approximate >= exact * 0.999)[clear].all()
    assert (approximate <= exact * area ** (1 / 10.0) * 1.001)[clear].all()


def test_a_dead_channel_stays_dead(rng):
    x = make_map(rng)
    x[1] = 0
    assert IntegralMap(x, 10.0).maxima(torch.tensor([[0, 0, 3, 3]]))[0, 1] == 0


def test_search_without_a_grid_finds_the_best_of_all_regions(rng):
    for _ in range(5):
        x, query = make_map(rng), F.normalize(torch.from_numpy(rng.random(5).astype(np.float32)), dim=0)
        found = IntegralMap(x, 10.0)
        kept = []
        for box in all_boxes(9, 12):
            x1, y1, x2, y2 = box
            change = (x2 - x1) / ((y2 - y1) * 1.5)
            if 1 / 1.1 <= change <= 1.1 or box == (0, 0, 12, 9):
                kept.append(box)
        scores = F.normalize(found.maxima(torch.tensor(kept)), dim=1) @ query
        options = {**SEARCH, "step": 1, "n_refinements": 0}
        box, score = best_region(found, query, 1.5, **options)
        assert box == kept[int(scores.argmax())] and score == pytest.approx(float(scores.max()), abs=1e-6)


def test_refinement_is_never_worse_and_never_out_of_shape(rng):
    for _ in range(10):
        x, query = make_map(rng, height=14, width=11), F.normalize(torch.rand(5), dim=0)
        found = IntegralMap(x, 10.0)
        coarse = best_region(found, query, 0.8, **{**SEARCH, "n_refinements": 0})
        (x1, y1, x2, y2), score = best_region(found, query, 0.8, **SEARCH)
        assert score >= coarse[1] and 0 <= x1 < x2 <= 11 and 0 <= y1 < y2 <= 14
        change = (x2 - x1) / ((y2 - y1) * 0.8)
        assert 1 / 1.1 - 1e-9 <= change <= 1.1 + 1e-9 or (x1, y1, x2, y2) == (0, 0, 11, 14)


def test_a_map_of_one_pixel_is_its_own_region():
    box, score = best_region(IntegralMap(torch.ones(2, 1, 1), 10.0), F.normalize(torch.ones(2), dim=0), 3.0, **SEARCH)
    assert box == (0, 0, 1, 1) and score == pytest.approx(1)


class Colours(nn.Module):
    """Detects colours, each channel another; nothing in grey."""

    def __init__(self):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return F.relu(torch.einsum("kc,bchw->bkhw", self.directions, F.avg_pool2d(x, 8) - 0.5))


COLOURS = Colours()


@pytest.fixture
def scene(rng):
    """Two reddish images, the second of which has an object of other colours, and the object alone."""

    def cells(low, high, height, width):
        colours = rng.integers(low, high, (height, width, 3)).astype(np.uint8)
        return np.kron(colours, np.ones((8, 8, 1), dtype=np.uint8))

    images = np.stack([cells((200, 0, 0), (256, 60, 60), 24, 32) for _ in range(2)])
    thing = cells((0, 0, 0), (100, 256, 256), 8, 10)
    images[1, 64:128, 144:224] = thing
    return images, thing


def overlap(a, b):
    x1, y1, x2, y2 = (*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:]))
    common = max(0, x2 - x1) * max(0, y2 - y1)
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return common / (sum(area) - common)


def test_the_object_is_found_where_it_is(scene):
    images, thing = scene
    ranking = AML(COLOURS, step=2).rerank(thing, images)
    assert ranking.order.tolist() == [1, 0] and ranking.scores[1] > ranking.scores[0]
    assert overlap(ranking.boxes[1], (143.5, 63.5, 223.5, 127.5)) > 0.5


def test_boxes_are_in_original_pixels(scene):
    images, thing = scene
    plain = AML(COLOURS, step=2).localize(thing, images)[0]
    doubled = np.kron(images, np.ones((1, 2, 2, 1), dtype=np.uint8))
    halved = AML(COLOURS, step=2, image_size=256).localize(thing, doubled)[0]
    np.testing.assert_allclose((halved[1] + 0.5) / 2 - 0.5, plain[1], atol=8)
    moved = AML(COLOURS, step=2).localize(thing, [ImageRegion(images[1], (100, 40, 256, 192))])[0]
    assert overlap(moved[0], (143.5, 63.5, 223.5, 127.5)) > 0.5
    whole = AML(COLOURS, max_aspect_change=1.0).localize(images[0, :, :40], [images[0, :64, :96]])[0]
    assert (whole >= -0.5).all() and whole[0, 2] <= 95.5 and whole[0, 3] <= 63.5


def test_vectors_are_macs_of_the_regions(scene):
    images, thing = scene
    _, vectors, query = AML(COLOURS).localize(thing, images)
    np.testing.assert_allclose(query, MAC(COLOURS).transform([thing])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    ranking = AML(COLOURS, n_expand=0).rerank(thing, images)
    np.testing.assert_allclose(ranking.scores, vectors @ query, atol=1e-6)
    mean = query + vectors.sum(0)
    expanded = AML(COLOURS, n_expand=5).rerank(thing, images).scores
    np.testing.assert_allclose(expanded, vectors @ mean / np.linalg.norm(mean), atol=1e-5)


def test_candidates_in_any_number_and_order(scene):
    images, thing = scene
    aml = AML(COLOURS, n_expand=0)
    together = aml.rerank(thing, [images[1], images[0], images[1]])
    assert together.order.tolist() == [0, 2, 1]
    nothing = aml.rerank(thing, [])
    assert nothing.order.shape == (0,) and nothing.boxes.shape == (0, 4)
    batched = clone(aml).set_params(batch_size=3, n_workers=1).rerank(thing, [images[1], images[0], images[1]])
    np.testing.assert_allclose(batched.scores, together.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("power", 0.5), ("step", 0), ("max_aspect_change", 0.9), ("n_refinements", -1), ("max_shift", -1),
     ("n_expand", -1), ("batch_size", 0), ("image_size", 0)],
)  # fmt: skip
def test_parameters_are_checked(parameter, value, scene):
    with pytest.raises(ValueError, match=parameter):
        AML(COLOURS, **{parameter: value}).rerank(scene[1], scene[0])


def test_unreadable_candidates_are_named(scene, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken"):
        AML(COLOURS, reader=ImageReader()).rerank(scene[1], [path])


def test_weights_that_are_not_finite_are_refused(scene):
    network = Backbone("resnet18", weights=None, layer="layer2").build()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        AML(network).rerank(scene[1], scene[0])
