"""Every pooling against its definition, the reference programs, and what must hold whatever the map is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cvretrieval import VLAD, LearnedWhitening, PCAWhitening
from cvretrieval.deep.layers import (
    MAC,
    RMAC,
    CroW,
    GeM,
    NetVLAD,
    SPoC,
    WeightedGeM,
    WeightedSumPool,
    Whitening,
)
from cvretrieval.deep.layers.region_grid import rmac_regions
from tests.parity import agree
from tests.reference import pooling as twin

DATA = Path(__file__).parents[1] / "data"
SIZES = [(1, 1), (1, 7), (5, 1), (2, 2), (3, 4), (7, 7), (9, 13), (14, 6)]


@pytest.fixture(scope="module")
def reference():
    with np.load(DATA / "pooling.npz") as file:
        arrays = dict(file)
    arrays["tall/x"] = arrays["rect/x"][:1].transpose(0, 1, 3, 2)
    return arrays


@pytest.fixture(scope="module")
def netvlad_reference():
    with np.load(DATA / "netvlad.npz") as file:
        return dict(file)


def make_layers(n_channels):
    whitening = PCAWhitening(min(4, n_channels)).fit(np.random.default_rng(1).normal(size=(30, n_channels)))
    layers = {
        "MAC": MAC(),
        "SPoC": SPoC(),
        "SPoC-mean": SPoC(center_prior=False, reduction="mean"),
        "GeM": GeM(),
        "GeM-channels": GeM(2.5, n_channels=n_channels),
        "CroW": CroW(),
        "CroW-spatial": CroW(channel_weighting=False),
        "RMAC": RMAC(),
        "RMAC-global": RMAC(2, include_global=True, norm=False),
        "RMAC-whitened": RMAC(whitening=Whitening(whitening)),
        "WeightedSumPool": WeightedSumPool(n_channels),
        "WeightedGeM": WeightedGeM(n_channels),
        "NetVLAD": NetVLAD(3, n_channels).set_centers(np.eye(3, n_channels), 4.0),
        "NetVLAD-authors": NetVLAD(3, n_channels, form="authors").set_centers(np.eye(3, n_channels), 4.0),
    }
    generator = torch.Generator().manual_seed(5)
    for name in ("WeightedSumPool", "WeightedGeM"):
        with torch.no_grad():
            layers[name].attention.weight.copy_(torch.randn(n_channels, generator=generator))
    return layers


def each_layer(n_channels):
    layers = make_layers(n_channels)
    return pytest.mark.parametrize("layer", list(layers.values()), ids=list(layers))


def make_map(rng, height, width, n_channels=6, batch=2, zeros=0.5):
    x = rng.random((batch, n_channels, height, width)) * (rng.random((batch, n_channels, height, width)) > zeros)
    return torch.as_tensor(x)


def close(found, expected, rtol=1e-5, atol=1e-6):
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=rtol, atol=atol)


# --- the reference programs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rect", "square", "tall"])
def test_reference_programs(reference, name):
    x = torch.as_tensor(reference[f"{name}/x"])
    get = lambda key: reference[f"{name}/{key}"]  # noqa: E731
    agree("mac", MAC()(x), get("cirtorch_mac"), 0)
    agree("spoc-mean", SPoC(center_prior=False, reduction="mean")(x), get("cirtorch_spoc"), 1e-5)
    agree("spoc", SPoC()(x), get("spoc_centre"), 1e-5)
    for p in (1, 3, 4.5):
        # The mean there, of float32 one after the other, is off by up to 1.8e-5; see test_definitions.
        agree("gem", GeM(p)(x).detach(), get(f"cirtorch_gem_p{p}"), 1e-5 if p > 1 else 2e-5)
    # The tenth power of 1e-6 is no float32, so a silent channel is 0 there instead of 1e-6.
    close(GeM(10)(x), get("cirtorch_gem_p10"), atol=1.1e-6)
    per_channel = GeM(n_channels=32)
    per_channel.p.data = torch.as_tensor(get("gem_p_channel"))
    close(per_channel(x), get("cirtorch_gemmp"), atol=1.1e-6)
    agree("crow", CroW().spatial_weights(x), get("crow_spatial_weight"), 1e-6)
    agree("crow", CroW().channel_weights(x), get("crow_channel_weight"), 1e-6)
    agree("crow", CroW()(x), get("crow_crow"), 1e-6)
    agree("crow", CroW(spatial_weighting=False, channel_weighting=False)(x), get("crow_ucrow"), 1e-6)
    close(RMAC()(x), get("rmac_official_L3"))
    close(RMAC(include_global=True)(x), get("rmac_global_L3"))
    agree("rmac", RMAC().double()(x.double()), get("rmac_official_L3"), 1e-12)
    for levels in (1, 2, 3):
        agree("rmac-global", RMAC(levels, include_global=True, norm=False)(x), get(f"cirtorch_rmac_L{levels}"), 3e-6)


def test_regions_are_those_of_the_authors_program(reference):
    sizes = [key for key in reference if key.startswith("regions/")]
    assert len(sizes) == 16
    for key in sizes:
        height, width = map(int, key.removeprefix("regions/").split("x"))
        np.testing.assert_array_equal(rmac_regions(height, width), reference[key])


def test_netvlad_reference(netvlad_reference):
    get = netvlad_reference.__getitem__
    x = torch.as_tensor(get("x"))
    for form, key, alpha in (
        ("paper", "v2", get("v2_alpha")),
        ("authors", "v1", get("v1_alpha")),
        ("paper", "v2_out_alpha10", 10.0),
        ("paper", "v2_out_alpha1000", 1000.0),
    ):
        layer = NetVLAD(6, 32, form=form).double().set_centers(get("centers"), float(alpha))
        line = "netvlad" if form == "paper" else "netvlad-authors"
        agree(line, layer(x.double()).detach(), get(key if "out" in key else f"{key}_out"), 1e-12)
        close(layer.float()(x), get(key if "out" in key else f"{key}_out"), atol=2e-5 if "1000" in key else 1e-6)
    layer = NetVLAD(6, 32, normalize_input=False).double().set_centers(get("centers"), float(get("v2_alpha")))
    close(layer(x.double()), get("v2_out_nopreL2"), rtol=1e-12, atol=1e-13)
    paper = NetVLAD(6, 32).double().set_centers(get("centers"), float(get("v2_alpha")))
    close(paper.weight, get("v2_w"), rtol=1e-12)
    close(paper.bias, get("v2_b"), rtol=1e-12)
    close(paper.residuals(x.double()), get("v2_residuals"), rtol=1e-12, atol=1e-13)


def test_alpha_follows_the_authors_rule(netvlad_reference):
    from cvretrieval.deep.layers.netvlad import alpha_of

    columns = netvlad_reference["x"].transpose(0, 2, 3, 1).reshape(-1, 32).astype(np.float64)
    columns /= np.maximum(np.linalg.norm(columns, axis=1, keepdims=True), 1e-12)
    for form, key in (("paper", "v2_alpha"), ("authors", "v1_alpha")):
        assert alpha_of(columns, netvlad_reference["centers"], form) == pytest.approx(float(netvlad_reference[key]))


# --- the definitions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_definitions(size, rng):
    maps = make_map(rng, *size)
    whitening = PCAWhitening(4).fit(rng.normal(size=(30, 6)))
    centers, weights = rng.normal(size=(3, 6)), rng.random((2, *size))
    regions = rmac_regions(*size)
    layers = {
        MAC(): lambda x, w: twin.mac(x),
        SPoC(): lambda x, w: twin.spoc(x),
        SPoC(center_prior=False): lambda x, w: twin.spoc(x, False),
        GeM(3.5): lambda x, w: twin.gem(x, [3.5] * 6),
        WeightedGeM(6, 2.5): lambda x, w: twin.gem(x, [2.5] * 6, weights=w),
        WeightedSumPool(6): lambda x, w: (x * w).sum((1, 2)),
        CroW(): lambda x, w: twin.crow(x),
        CroW(channel_weighting=False): lambda x, w: twin.crow(x, channel_weighting=False),
        RMAC(): lambda x, w: twin.rmac(x, regions),
        RMAC(include_global=True): lambda x, w: twin.rmac(x, regions, include_global=True),
        RMAC(whitening=Whitening(whitening)): lambda x, w: twin.rmac(
            x, regions, lambda v: whitening.transform(v[None])[0]
        ),
        NetVLAD(3, 6).set_centers(centers, 7.0): lambda x, w: twin.netvlad(x, centers, 7.0),
        NetVLAD(3, 6, form="authors").set_centers(centers, 7.0): lambda x, w: twin.netvlad(x, centers, 7.0, "authors"),
    }
    for layer, definition in layers.items():
        more = (torch.as_tensor(weights),) if isinstance(layer, (WeightedGeM, WeightedSumPool)) else ()
        expected = [definition(x, w) for x, w in zip(maps.numpy(), weights, strict=True)]
        # Parameters are rounded to float32 when a layer is made, as torch does.
        close(layer.double()(maps, *more), expected, rtol=1e-5, atol=1e-6)


def test_gem_runs_from_mean_to_max(rng):
    x = make_map(rng, 5, 8)
    close(GeM(1)(x), x.clamp(min=1e-6).mean((2, 3)), rtol=1e-12)
    close(GeM(1e5)(x), x.amax((2, 3)).clamp(min=1e-6), rtol=1e-4)
    values = [GeM(p)(x) for p in (0.5, 1, 2, 4, 8)]
    assert all(bool((low <= high).all()) for low, high in pairwise(values))


def test_gem_of_large_exponents_and_values_is_finite_with_its_gradient(rng):
    x = (make_map(rng, 4, 4) * 1e4).float().requires_grad_()
    layer = GeM(50)
    layer(x).sum().backward()
    assert torch.isfinite(layer(x)).all() and torch.isfinite(x.grad).all() and torch.isfinite(layer.p.grad).all()


def test_rmac_of_one_region_is_normalised_mac(rng):
    x = make_map(rng, 6, 6)
    close(RMAC(1)(x), F.normalize(MAC()(x)), rtol=1e-12)


def test_learned_weights_start_as_plain_pooling(rng):
    x = make_map(rng, 5, 8)
    close(WeightedSumPool(6)(x), SPoC(center_prior=False)(x))
    close(WeightedGeM(6, 3)(x), GeM(3)(x))
    close(WeightedGeM(6)(x, torch.zeros(1, 5, 8)), np.zeros((2, 6)), rtol=0, atol=0)


@pytest.mark.parametrize("normalize_input", [True, False])
def test_hard_netvlad_is_intra_normalised_vlad(rng, normalize_input):
    x = make_map(rng, 6, 7, zeros=0.1)
    columns = x.flatten(2).transpose(1, 2)
    if normalize_input:
        columns = F.normalize(columns, dim=2)
    layer = NetVLAD(4, 6, normalize_input=normalize_input).init_from(columns.flatten(0, 1), random_state=0).double()
    centers = layer.centers.detach().numpy()
    layer.set_centers(centers, 1e7)

    class Codebook:
        cluster_centers_ = centers

    vlad = VLAD(codebook=Codebook(), power=None, intra_norm=True).fit(list(columns.numpy()))
    close(layer(x), vlad.transform(list(columns.numpy())), atol=1e-5)


def test_init_from_learns_centres_and_sharpness(rng):
    means = np.eye(3, 8)
    rows = np.repeat(means, 50, axis=0) + 0.05 * rng.normal(size=(150, 8))
    layer = NetVLAD(3, 8).init_from(rows, random_state=0)
    found = layer.centers.detach().numpy()
    assert sorted(found.argmax(1)) == [0, 1, 2] and np.abs(np.sort(found.max(1)) - 1).max() < 0.05
    shares = layer.assign(torch.as_tensor(rows[:, :, None, None], dtype=torch.float32))[:, :, 0, 0].topk(2).values
    assert (shares[:, 0] / shares[:, 1]).log().mean().item() == pytest.approx(np.log(100), rel=1e-4)
    again = NetVLAD(3, 8).init_from(torch.as_tensor(rows), random_state=0)
    close(again.centers, found, rtol=0, atol=0)
    assert NetVLAD(1, 8).init_from(rows).weight.isfinite().all()


@pytest.mark.parametrize("estimator", ["pca", "pca-square", "learned"])
def test_whitening_is_the_estimators(rng, estimator):
    X = rng.normal(size=(60, 7)) * np.arange(1, 8)
    made = {
        "pca": PCAWhitening(4, power=0.25, shrinkage=0.1),
        "pca-square": PCAWhitening(),
        "learned": LearnedWhitening(5),
    }[estimator]
    made.fit(X, np.arange(60) // 2)
    close(Whitening(made).double()(torch.as_tensor(X)), made.transform(X))
    plain = made.set_params(norm=None)
    close(Whitening(plain, norm=False).double()(torch.as_tensor(X)), plain.transform(X))


# --- what every layer keeps -------------------------------------------------------------------------------------------


@each_layer(4)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 3)], ids=str)
def test_gradients(layer, size, rng):
    layer = layer.double()
    values = 0.1 + rng.permutation(4 * size[0] * size[1]) / 25.0  # no two alike: maxima have one place
    x = torch.as_tensor(values.reshape(1, 4, *size)).requires_grad_()
    parameters = tuple(layer.parameters())

    def pooled(x, *values):
        names = dict(zip([name for name, _ in layer.named_parameters()], values, strict=True))
        return torch.func.functional_call(layer, names, (x,))

    assert torch.autograd.gradcheck(pooled, (x, *parameters))


@each_layer(6)
def test_gradients_are_finite_where_the_map_is_zero(layer, rng):
    x = make_map(rng, 4, 5).float()
    x[0] = 0
    x.requires_grad_()
    layer = layer.float()
    layer.zero_grad()
    pooled = layer(x)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all() and torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


@each_layer(6)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_single(layer, dtype, rng):
    x = (make_map(rng, 20, 20, zeros=0.2) * 1000).to(dtype)  # sums exceed what float16 can hold
    layer = layer.float()
    pooled = layer(x)
    assert pooled.dtype == torch.float32 and torch.isfinite(pooled).all()
    close(pooled, layer(x.float()), rtol=0, atol=0)
    halved = layer.to(dtype)(x)  # its parameters, too
    scale = pooled.abs().max()
    assert halved.dtype == torch.float32 and bool((halved - pooled).abs().max() < 0.1 * scale)
    layer.float()


@each_layer(6)
def test_images_of_a_batch_do_not_touch_each_other(layer, rng):
    x = make_map(rng, 9, 13, batch=5).float()
    layer = layer.float()
    whole = layer(x).detach().numpy()
    for i in range(5):
        close(layer(x[i : i + 1])[0], whole[i], rtol=2e-6)
    close(layer(x.to(memory_format=torch.channels_last)), whole, rtol=2e-6)
    close(layer(x.flip(0)), whole[::-1], rtol=2e-6)


@each_layer(6)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(layer, rng):
    layer = layer.float()
    scripted = torch.jit.script(layer)
    for size in SIZES:
        x = make_map(rng, *size).float()
        close(scripted(x), layer(x), rtol=1e-6)


@each_layer(6)
def test_export(layer, rng):
    layer = layer.float()
    x = make_map(rng, 7, 9).float()
    exported = torch.export.export(layer, (x,)).module()
    close(exported(x), layer(x), rtol=1e-6)


@each_layer(6)
def test_wrong_maps_are_refused(layer):
    with pytest.raises(ValueError, match=r"axes \(B, C, H, W\).*\[3, 4, 5\]"):
        layer(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="at least one channel and one pixel"):
        layer(torch.zeros(2, 6, 0, 5))
    assert layer(torch.zeros(0, 6, 3, 3)).shape[0] == 0


@pytest.mark.parametrize("make", [lambda: GeM(n_channels=6), lambda: WeightedGeM(6), lambda: NetVLAD(2, 6)])
def test_wrong_number_of_channels(make):
    with pytest.raises(ValueError, match="map has 5 channels.*6 channels"):
        make()(torch.zeros(1, 5, 3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeM(float("inf")), "'p' parameter of GeM.*use MAC"),
        (lambda: GeM(-1), "'p' parameter of GeM"),
        (lambda: GeM(eps=0), "'eps' parameter"),
        (lambda: WeightedGeM(3, 0), "'p' parameter of WeightedGeM"),
        (lambda: SPoC(reduction="max"), "'reduction' parameter of SPoC"),
        (lambda: CroW(power=0), "'power' parameter of CroW"),
        (lambda: RMAC(0), "'levels' parameter of RMAC"),
        (lambda: NetVLAD(2, 3, form="v3"), "'form' parameter of NetVLAD"),
        (lambda: NetVLAD(2, 3, form="authors", normalize_input=False), "normalize_input=True"),
        (lambda: NetVLAD(2, 3).set_centers(np.zeros((2, 4)), 1), r"shape \(2, 3\).*\(2, 4\)"),
        (lambda: NetVLAD(2, 3).init_from(np.zeros((9, 4))), r"\(n_descriptors, 3\).*\(9, 4\)"),
        (lambda: WeightedGeM(3)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 5)), "weights of a map"),
    ],
)
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
