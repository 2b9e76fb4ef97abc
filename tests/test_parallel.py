"""Thread limits are set while blocks run, and the caller's settings come back."""

from __future__ import annotations

import sys
import threading
import time

import cv2
import numpy as np
import pytest
import threadpoolctl

from cvretrieval._parallel import _thread_pools, block_slices, map_ahead, map_blocks, progress_bar, single_threaded


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def two_threads():
    """A caller who runs OpenCV and BLAS with two threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    with threadpoolctl.threadpool_limits(2):
        yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1])
def test_results_come_in_order_and_blocks_run_single_threaded(two_threads, n_jobs):
    def work(block):
        return block, cv2.getNumThreads(), max(blas_threads())

    results = list(map_blocks(work, range(20), n_jobs=n_jobs))
    assert results == [(i, 1, 1) for i in range(20)]
    assert cv2.getNumThreads() == 2 and max(blas_threads()) == 2


def test_every_thread_is_limited_where_limits_belong_to_threads(two_threads):
    """faiss brings a BLAS on OpenMP, whose number of threads each thread has for itself."""
    pytest.importorskip("faiss")

    def threads():
        return {(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()}

    before = threads()
    for n_jobs in (1, 2):
        assert all(n == 1 for found in map_blocks(lambda _: threads(), range(12), n_jobs=n_jobs) for _, n in found)
        assert threads() == before


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_limits_are_restored_after_an_error(two_threads, n_jobs):
    def fail(block):
        raise KeyError(block)

    with pytest.raises(KeyError):
        list(map_blocks(fail, range(3), n_jobs=n_jobs))
    assert cv2.getNumThreads() == 2 and max(blas_threads()) == 2


def test_thread_pools_are_looked_up_again_only_after_an_import(monkeypatch):
    first = _thread_pools()
    assert _thread_pools() is first
    monkeypatch.setitem(sys.modules, "imported_just_now", sys)
    assert _thread_pools() is not first


def test_overlapping_uses_restore_once_the_last_one_is_out(two_threads):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with single_threaded():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with single_threaded():
        thread.start()
        assert inside.wait(10)
    assert cv2.getNumThreads() == 1  # the other one still needs it
    leave.set()
    thread.join()
    assert cv2.getNumThreads() == 2 and max(blas_threads()) == 2


def test_zero_jobs_is_refused():
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        list(map_blocks(str, range(3), n_jobs=0))


def test_block_slices_cover_everything_once():
    assert [i for part in block_slices(10, 4) for i in range(part.start, part.stop)] == list(range(10))
    assert block_slices(0, 4) == []


def test_progress_bar_is_silent_when_not_a_terminal(capsys):
    with progress_bar(total=3, verbose=True) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("leave", ["close", "raise", "fail"])
def test_no_block_outlives_the_driver(leave):
    """Threads that go on would work with freed memory and abort the interpreter at its end."""
    running, begun = set(), []

    def work(block):
        running.add(block)
        begun.append(block)
        try:
            time.sleep(0.02)
            if leave == "fail" and block == 4:
                raise KeyError(block)
        finally:
            running.discard(block)
        return block

    results = map_blocks(work, range(200), n_jobs=4)
    if leave == "close":
        next(results)
        results.close()
    elif leave == "raise":
        next(results)
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
    else:
        with pytest.raises(KeyError):
            list(results)
    n_begun = len(begun)
    assert not running and n_begun < 50
    time.sleep(0.1)
    assert len(begun) == n_begun


@pytest.mark.parametrize("n_workers", [None, 1, 3])
def test_items_are_computed_ahead_in_order_with_the_callers_threads(two_threads, n_workers):
    taken, begun = [], threading.Semaphore(0)

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    def work(i):
        begun.release()
        return i, threading.get_ident()

    results = map_ahead(work, items(), n_workers=n_workers)
    first = next(results)
    assert begun.acquire(timeout=10) and begun.acquire(timeout=10)  # the second is computed before it is asked for
    assert first[0] == 0 and first[1] != threading.get_ident()
    assert len(taken) <= 2 * (n_workers or 1) + 1
    assert cv2.getNumThreads() == 2 and max(blas_threads()) == 2
    assert [first[0], *(i for i, _ in results)] == list(range(20))


def test_nothing_is_computed_ahead_once_it_is_over():
    done = []

    def work(i):
        time.sleep(0.01)
        if i == 3:
            raise ValueError("three")
        done.append(i)
        return i

    results = map_ahead(work, iter(range(100)), n_workers=2)
    with pytest.raises(ValueError, match="three"):
        list(results)
    after = list(done)
    results = map_ahead(work, iter(range(4, 100)), n_workers=2)
    next(results)
    results.close()
    n_done = len(done)
    time.sleep(0.05)
    assert len(done) == n_done and len(after) < 10
