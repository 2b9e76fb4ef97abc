"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh seeded generator for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images named by CVRETRIEVAL_DATA; tests that need it are skipped without it."""
    name = os.environ.get("CVRETRIEVAL_DATA")
    if not name:
        pytest.skip("CVRETRIEVAL_DATA is not set")
    folder = Path(name)
    if not folder.is_dir():
        pytest.fail(f"CVRETRIEVAL_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def command_server(tmp_path_factory):
    """Runs the command line in processes of their own; see `tests.command_server`."""
    from tests.command_server import CommandServer

    if not sys.platform.startswith("linux"):
        pytest.skip("the commands are forked, watched and limited as Linux does it")
    server = CommandServer(tmp_path_factory.mktemp("command_server"))
    yield server
    server.close()
