"""The layers agree with the vectors that are published for other programs, and the file is what its script makes."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from cvretrieval.deep import layers
from cvretrieval.deep.layers.region_grid import rmac_regions
from tests.parity import agree
from tests.pooling_vectors import DEFINITIONS, PATH, make

DATA = json.loads(PATH.read_text(encoding="utf-8"))


class Affine(BaseEstimator):
    """A fitted whitening, W (v − m)."""

    def __init__(self, W, m):
        self.W, self.m = W, m
        self.mean_, self.n_features_in_ = np.array(m), len(m)

    def fit(self, X):
        raise AssertionError("it is fitted")

    def transform(self, X):
        return (X - self.mean_) @ np.array(self.W).T


def pooled(case, x):
    """What the layer of that definition makes of a map."""
    get = case["parameters"].get
    name = case["name"]
    weights = [torch.tensor(get("weights"), dtype=x.dtype)[None]] if "weights" in case["parameters"] else []
    if name == "GeM" and isinstance(get("p"), list):
        layer = layers.GeM(n_channels=len(get("p")))
        layer.p.data = torch.tensor(get("p"))
    elif name.startswith("NetVLAD"):
        form = "authors" if "authors" in name else "paper"
        layer = layers.NetVLAD(3, 6, form=form, normalize_input="without" not in name)
        layer.double().set_centers(np.array(get("centers")), get("alpha"))
    elif name == "CGD":
        layer = layers.CombinedDescriptors(6, branches=get("branches"), n_components=8)
        for reduction, matrix in zip(layer.reductions, get("matrices"), strict=True):
            reduction.weight.data = torch.tensor(matrix)
    else:
        layer = {
            "MAC": layers.MAC,
            "SPoC": layers.SPoC,
            "SPoC without prior": lambda: layers.SPoC(center_prior=False),
            "GeM": lambda: layers.GeM(get("p")),
            "WeightedGeM": lambda: layers.WeightedGeM(6, get("p")),
            "WeightedSum": lambda: layers.WeightedSumPool(6),
            "CroW": layers.CroW,
            "uCroW": lambda: layers.CroW(spatial_weighting=False, channel_weighting=False),
            "RMAC": lambda: layers.RMAC(get("levels")),
            "RMAC with the whole map": lambda: layers.RMAC(get("levels"), include_global=True),
            "RMAC whitened": lambda: layers.RMAC(get("levels"), whitening=layers.Whitening(Affine(get("W"), get("m")))),
        }[name]()
    return layer.to(x.dtype)(x[None], *weights)[0].detach().numpy()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_layers_agree(name):
    cases = [case for case in DATA["cases"] if case["name"] == name]
    assert {case["map"] for case in cases} == set(DATA["maps"])
    for case in cases:
        x = torch.tensor(DATA["maps"][case["map"]], dtype=torch.float64)
        agree("pooling-vectors", pooled(case, x), case["vector"], 1e-12)
        np.testing.assert_allclose(pooled(case, x.float()), case["vector"], rtol=2e-5, atol=2e-6)
        if "regions" in case["parameters"]:
            assert rmac_regions(*x.shape[1:], case["parameters"]["levels"]) == [
                tuple(region) for region in case["parameters"]["regions"]
            ]


def test_the_file_is_what_its_script_makes():
    made = make()
    assert {key: DATA[key] for key in ("about", "version", "maps")} == {
        key: made[key] for key in ("about", "version", "maps")
    }
    for found, expected in zip(DATA["cases"], made["cases"], strict=True):
        np.testing.assert_allclose(found["vector"], expected["vector"], rtol=1e-12, atol=1e-15)
        assert {**found, "vector": None} == {**expected, "vector": None}
    assert PATH.stat().st_size < 100_000


def test_the_cases_tell_the_definitions_apart():
    """No two definitions give the same vectors, so that none of them can be taken for another."""
    vectors = {}
    for case in DATA["cases"]:
        key = (case["name"], *(str(case["parameters"].get(each)) for each in ("p", "levels", "alpha", "branches")))
        vectors.setdefault(key, []).extend(case["vector"])
    pairs = [pair for pair in combinations(vectors, 2) if len(vectors[pair[0]]) == len(vectors[pair[1]])]
    same = [{a[0], b[0]} for a, b in pairs if np.allclose(vectors[a], vectors[b], rtol=1e-4)]
    assert same == [{"uCroW", "SPoC without prior"}]
