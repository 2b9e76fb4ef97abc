"""The tests of `cvretrieval.deep`: left out where torch is not installed; `make test-deep` installs it."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    try:
        import torchvision
    except RuntimeError:
        # A torch built for CPUs alone beside a torchvision built for CUDA, whose compiled operators do not load. Its
        # models need none of them; its import needs these two to exist.
        _operators = torch.library.Library("torchvision", "DEF")
        _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
