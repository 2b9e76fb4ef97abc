"""Training in several processes: the same losses, weights and vectors as in one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cvretrieval.deep.training.processes import Processes, join_processes, running_processes
from tests.deep.training_process import MODELS, fit, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, this one and another, told what torchrun tells them."""
    out = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.deep.training_process", str(out)],
        cwd=ROOT, env={**os.environ, **told, "RANK": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        # Without it this process would wait for half an hour.
        assert other.stdout.readline() == "ready\n", other.communicate()[0]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**told, "RANK": "0"}.items():
                patch.setenv(name, value)
            main(out)
        said = other.communicate(timeout=240)[0]
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        other.kill()
        other.wait()
    assert other.returncode == 0, said
    return out, [dict(np.load(out / f"{rank}.npz")) for rank in range(2)]


@pytest.mark.parametrize("name", list(MODELS))
def test_two_processes_train_as_one(two, name):
    out, (first, second) = two
    alone, vectors = fit(name)
    for key, values in alone.history_.items():
        if key != "images_per_second":
            np.testing.assert_allclose(first[f"{name} {key}"], values, rtol=1e-4, atol=1e-6, err_msg=key)
            np.testing.assert_array_equal(first[f"{name} {key}"], second[f"{name} {key}"])
    assert len(set(alone.history_["loss"])) == 3
    np.testing.assert_allclose(first[name], vectors, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(first[name], second[name])
    # The first writes what all go on from, alone.
    assert sorted(path.name for path in (out / f"{name}-0").iterdir()) == ["best.pt", "last.pt"]
    assert not list((out / f"{name}-1").iterdir())


def test_several_processes_agree(two):
    _, (first, second) = two
    np.testing.assert_array_equal(first["chance"], second["chance"])
    for found in (first, second):
        assert found["resumed"]
        assert "2 processes were told to train differently" in str(found["error"])


def test_shares_are_all_rows_once():
    for n_rows in range(12):
        for size in (1, 2, 3, 5):
            shares = [Processes(rank, size).share(n_rows) for rank in range(size)]
            assert [i for share in shares for i in range(n_rows)[share]] == list(range(n_rows))
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1
    Processes(0, 3).check_batch(3)
    with pytest.raises(ValueError, match="A batch of 2 images cannot be shared among 3 processes"):
        Processes(0, 3).check_batch(2)


def test_alone_there_is_nothing_to_exchange(monkeypatch):
    rows = torch.rand(3, 2, requires_grad=True)
    assert Processes().together(rows, 3) is rows and Processes().same(5) == 5
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    processes, device = join_processes(torch.device("cpu"))
    assert (processes.size, device.type) == (1, "cpu") and not torch.distributed.is_initialized()
    assert running_processes().size == 1
