"""The pooling of the page for contributors works as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from cvretrieval.deep import Backbone

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contributing" / "adding.md"


def test_the_pooling_is_a_descriptor(rng):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    exec(compile(blocks[-1], PAGE.name, "exec"), names)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    network = Backbone("resnet18", weights=None, layer="layer2")
    vector = names["Median"](network, norm=None).transform([image])[0]
    assert vector.shape == (128,) and (vector >= 0).all() and vector.any()
    np.testing.assert_allclose(np.linalg.norm(names["Median"](network).transform([image])), 1, rtol=1e-5)
