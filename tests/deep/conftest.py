"""The tests of `cvretrieval.deep`: left out where torch is not installed; `make test-deep` installs it."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import tests.matching_torchvision  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
