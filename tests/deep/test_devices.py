"""The same descriptors on a GPU as on the CPU; left out where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from tests.deep.instances import EVERYTHING

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def images(rng):
    return list(rng.integers(0, 256, (6, 64, 96, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", list(EVERYTHING))
def test_cpu_and_gpu_agree(name, images):
    estimator = clone(EVERYTHING[name])
    if not hasattr(estimator, "device"):
        pytest.skip("its members have the devices")
    # TF32 is exact to a thousandth only.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    fitted = estimator.set_params(device="cpu").fit(images)
    on_cpu = fitted.transform(images)
    on_gpu = fitted.set_params(device="cuda").transform(images)
    error = np.linalg.norm(on_gpu - on_cpu, axis=1) / np.linalg.norm(on_cpu, axis=1)
    assert error.max() < 1e-3


def test_bfloat16_is_near(images):
    plain = clone(EVERYTHING["GeM"]).set_params(device="cuda").fit(images)
    a = plain.transform(images)
    b = plain.set_params(dtype="bfloat16").transform(images)
    assert (np.einsum("ij,ij->i", a, b) > 0.999).all()
