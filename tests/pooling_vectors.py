"""Write tests/data/pooling_vectors.json: feature maps and their poolings, for any program to be compared with.

Everything is computed in float64 by loops over NumPy arrays (`tests.reference.pooling`, and the regions and the head
below), which know nothing of this package. Maps and parameters are multiples of 1/256, the same numbers in float32.

    python -m tests.pooling_vectors
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.reference import pooling as slow

PATH = Path(__file__).parent / "data" / "pooling_vectors.json"
N_CHANNELS = 6

DEFINITIONS = {
    "MAC": "maximum of each channel",
    "SPoC": "Σ_yx exp(−((y − (H−1)/2)² + (x − (W−1)/2)²) / 2σ²) f_yx with σ = min(H, W)/6; no L2",
    "SPoC without prior": "Σ_yx f_yx; no L2",
    "GeM": "(mean over pixels of max(f, 1e-6)^p)^(1/p), one p or one for each channel; no L2",
    "WeightedGeM": "(Σ_yx w_yx max(f_yx, 1e-6)^p / Σ_yx w_yx)^(1/p); no L2",
    "WeightedSum": "Σ_yx w_yx f_yx; no L2",
    "CroW": "S = Σ_c f, s = (S / ‖S‖₂)^½, I_c = ln(Σ_d q_d / q_c) with q the share of non-zeros, 0 where q_c = 0; "
    "I_c Σ_yx s_yx f_yx; no L2",
    "uCroW": "Σ_yx f_yx, CroW with neither weight; no L2",
    "RMAC": "maxima of the regions, each L2-normalised, summed, L2; regions of levels 1 to L, without the whole map",
    "RMAC with the whole map": "the same, the whole map being one more region",
    "RMAC whitened": "maxima of the regions, L2, W (v − m), L2, summed, L2",
    "NetVLAD": "columns L2-normalised; a = softmax_k(−α ‖x − c_k‖²); Σ a_k (x − c_k) of each cluster L2-normalised, "
    "cluster after cluster, L2",
    "NetVLAD without normalised input": "the same of the columns as they are",
    "NetVLAD as its authors' program has it": "the same with a = softmax_k(α x·c_k / ‖c_k‖); residuals of c_k itself",
    "CGD": "for each branch (S mean, M maximum, G GeM, p = 3) its matrix times the descriptor, L2; concatenated, L2",
}


def regions(height: int, width: int, levels: int) -> list[list[int]]:
    """Level, top, left, side of R-MAC's regions: Tolias et al. 2016, with the rounding of the authors' program."""
    w, longer = min(height, width), max(height, width)
    steps = np.arange(2, 8)
    b = (longer - w) / (steps - 1)
    extra = int(np.argmin(np.abs((w**2 - w * b) / w**2 - 0.4))) + 1
    along_y, along_x = (extra if height > width else 0), (extra if width > height else 0)
    found = []
    for level in range(1, levels + 1):
        side = int(np.floor(2 * w / (level + 1)))
        half = int(np.floor(side / 2 - 1))
        starts = []
        for length, n in ((height, level + along_y), (width, level + along_x)):
            step = (length - side) / (n - 1) if n > 1 else 0
            starts.append([int(np.floor(half + i * step)) - half for i in range(n)])
        found += [[level, top, left, side] for top in starts[0] for left in starts[1] if side > 0]
    return found


def make_maps() -> dict[str, np.ndarray]:
    """Maps as after a ReLU, C x H x W: many zeros, channel 4 silent, one pixel in channel 5."""
    rng = np.random.default_rng(1903)
    maps = {}
    for name, size in (("square", (7, 7)), ("wide", (5, 8)), ("tall", (9, 4))):
        x = np.round(rng.gamma(2.0, 0.5, (N_CHANNELS, *size)) * 256) / 256
        x[rng.random(x.shape) < 0.5] = 0
        x[4] = 0
        x[5] = 0
        x[5, 1, 2] = 2.5
        maps[name] = x
    return maps


def cgd(x: np.ndarray, branches: str, matrices: np.ndarray) -> np.ndarray:
    """Jun et al. 2019, section 3: the ranking descriptor."""
    pools = {"S": lambda x: x.mean((1, 2)), "M": slow.mac, "G": lambda x: slow.gem(x, [3.0] * len(x))}
    parts = [slow.unit(matrix @ pools[branch](x)) for branch, matrix in zip(branches, matrices, strict=True)]
    return slow.unit(np.concatenate(parts))


def make_cases(maps: dict[str, np.ndarray]) -> list[dict]:
    rng = np.random.default_rng(10663)

    def grid(*shape: int) -> np.ndarray:
        return np.round(rng.normal(size=shape) * 64) / 64

    centers, matrices, projection, mean = grid(3, N_CHANNELS), grid(2, 4, N_CHANNELS), grid(4, N_CHANNELS), grid(6) / 4
    exponents = [1.0, 1.5, 2.0, 3.0, 4.5, 6.0]
    cases = []
    for name, x in maps.items():
        weights = np.round(rng.random(x.shape[1:]) * 256) / 256
        weights[0, 0] = 0

        def add(definition: str, vector: np.ndarray, of: str = name, **parameters: object) -> None:
            cases.append({"name": definition, "definition": DEFINITIONS[definition], "map": of,
                          "parameters": json.loads(json.dumps(parameters, default=np.ndarray.tolist)),
                          "vector": vector.tolist()})  # fmt: skip

        add("MAC", slow.mac(x))
        add("SPoC", slow.spoc(x))
        add("SPoC without prior", slow.spoc(x, center_prior=False))
        for p in (1.0, 3.0, 4.5):
            add("GeM", slow.gem(x, [p] * N_CHANNELS), p=p)
        add("GeM", slow.gem(x, exponents), p=exponents)
        add("WeightedGeM", slow.gem(x, [3.0] * N_CHANNELS, weights=weights), p=3.0, weights=weights)
        add("WeightedSum", (x * weights).sum((1, 2)), weights=weights)
        add("CroW", slow.crow(x))
        add("uCroW", slow.crow(x, spatial_weighting=False, channel_weighting=False))
        for levels in (1, 2, 3):
            areas = regions(*x.shape[1:], levels)
            add("RMAC", slow.rmac(x, areas), levels=levels, regions=areas)
        add("RMAC with the whole map", slow.rmac(x, areas, include_global=True), levels=3, regions=areas)
        whitened = slow.rmac(x, areas, lambda vector: projection @ (vector - mean))
        add("RMAC whitened", whitened, levels=3, regions=areas, W=projection, m=mean)
        for alpha in (2.0, 30.0):
            add("NetVLAD", slow.netvlad(x, centers, alpha), alpha=alpha, centers=centers)
        raw = slow.netvlad(x, centers, 2.0, normalize_input=False)
        add("NetVLAD without normalised input", raw, alpha=2.0, centers=centers)
        authors = slow.netvlad(x, centers, 2.0, "authors")
        add("NetVLAD as its authors' program has it", authors, alpha=2.0, centers=centers)
        for branches in ("SG", "MG", "GS", "SM"):
            add("CGD", cgd(x, branches, matrices), branches=branches, matrices=matrices)
    return cases


def make() -> dict:
    """All that the file holds."""
    maps = make_maps()
    return {
        "about": "Reference vectors of CNN poolings, see docs/parity.md. Maps are channels x height x width",
        "version": 1,
        "maps": {name: x.tolist() for name, x in maps.items()},
        "cases": make_cases(maps),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
