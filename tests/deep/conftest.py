"""The tests of `cvretrieval.deep`: left out where torch is not installed; `make test-deep` installs it."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    import tests.matching_torchvision  # noqa: F401

    # The images are tiny, and threads of several test processes would wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _network_of_the_contract():
    """Held on to: it is shared by all estimators with this description, and not built for each."""
    from tests.deep.instances import PLAIN

    yield PLAIN["MAC"].fit([])


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
