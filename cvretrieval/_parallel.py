"""Parallelism, thread limits and progress: the only place where work is spread over threads or processes.

Every parallel driver of the package maps a function over blocks of images with `map_blocks`. A block is computed by
one thread with BLAS and OpenCV limited to one thread as well, whatever ``n_jobs`` is, so the number of jobs never
changes a bit of the result.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

Block = TypeVar("Block")
Result = TypeVar("Result")

_limit_lock = threading.Lock()
_limit_depth = 0
_limit_restore: list[Callable[[], None]] = []
_pools: tuple[int, Any] | None = None


def _thread_pools() -> list[Any]:
    """Return threadpoolctl's controllers of the loaded libraries.

    Looking through the loaded libraries takes milliseconds, several times what a query's encoding takes, so it is
    repeated only after imports, which are what loads libraries.
    """
    global _pools  # noqa: PLW0603
    n_modules = len(sys.modules)
    if _pools is None or _pools[0] != n_modules:
        from threadpoolctl import ThreadpoolController

        _pools = (len(sys.modules), ThreadpoolController())
    controllers: list[Any] = _pools[1].lib_controllers
    return controllers


def _setter(library: Any) -> Callable[[int], None]:
    # threadpoolctl lets only the thread that limited a pool first change it again. Here the last thread out restores,
    # whichever it is, so the check is passed by where there is one.
    found: Callable[[int], None] = getattr(library, "_real_set_num_threads", library.set_num_threads)
    return found


def _limit(libraries: list[Any]) -> list[Callable[[], None]]:
    """Limit libraries to one thread; return what undoes it."""
    # All are asked before any is set: a BLAS on OpenMP and OpenMP itself have one number.
    before = [(_setter(library), library.num_threads) for library in libraries]
    for set_threads, _ in before:
        set_threads(1)
    return [partial(set_threads, n_threads) for set_threads, n_threads in before]


@contextmanager
def _own_threads_limited() -> Iterator[None]:
    """Limit what each thread has a limit of its own for, OpenMP and a BLAS on it, to one thread in this thread."""
    restore = _limit(
        [
            library
            for library in _thread_pools()
            if "openmp" in (library.user_api, getattr(library, "threading_layer", None))
        ]
    )
    try:
        yield
    finally:
        for undo in restore:
            undo()


def _limit_threads() -> list[Callable[[], None]]:
    """Limit BLAS, OpenMP and (if loaded) OpenCV to one thread; return what undoes it."""
    restore = _limit(_thread_pools())
    # cv2 is looked up, not imported: code that does not need it must not pay for it.
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        restore.append(partial(cv2.setNumThreads, cv2.getNumThreads()))
        cv2.setNumThreads(1)
    return restore


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run the body with native thread pools limited to one thread, then restore the caller's settings.

    The limits belong to the process, so nested and concurrent uses are counted: the first one in limits, the last
    one out restores.
    """
    global _limit_depth, _limit_restore  # noqa: PLW0603
    with _limit_lock:
        if _limit_depth == 0:
            _limit_restore = _limit_threads()
        _limit_depth += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_depth -= 1
            if _limit_depth == 0:
                for undo in _limit_restore:
                    undo()
                _limit_restore = []


class _Crew:
    """The threads that compute the blocks of one `map_blocks`; none of them outlives it.

    joblib drops its threads when it is interrupted, and they go on: with memory that is being given back, with the
    caller's thread limits, and into the end of the interpreter, which aborts the process.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._n_running = 0
        self._is_dismissed = False

    def run(self, function: Callable[[Block], Result], block: Block) -> Result | None:
        with self._condition:
            if self._is_dismissed:
                return None
            self._n_running += 1
        try:
            with single_threaded(), _own_threads_limited():
                return function(block)
        finally:
            with self._condition:
                self._n_running -= 1
                self._condition.notify_all()

    def dismiss(self) -> None:
        """Begin no more blocks, and wait for those that have been begun."""
        with self._condition:
            self._is_dismissed = True
            while self._n_running:
                self._condition.wait()


def effective_n_jobs(n_jobs: int | None) -> int:
    """Return the number of threads that ``n_jobs`` means here (scikit-learn's convention: None is 1, -1 is all)."""
    import joblib
    from joblib.parallel import get_active_backend

    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; use 1 for serial work or -1 for all processors.")
    n_workers = int(joblib.effective_n_jobs(n_jobs))
    if getattr(get_active_backend(prefer="threads")[0], "supports_sharedmem", False):
        return n_workers
    # Processes, perhaps of a hundred machines; the threads are of this one.
    return min(n_workers, joblib.cpu_count())


def block_slices(n_items: int, block_size: int) -> list[slice]:
    """Cut ``range(n_items)`` into consecutive slices of at most ``block_size``."""
    return [slice(start, min(start + block_size, n_items)) for start in range(0, n_items, block_size)]


def map_blocks(
    function: Callable[[Block], Result],
    blocks: Iterable[Block],
    *,
    n_jobs: int | None = None,
    weights: Sequence[int] | None = None,
    description: str = "",
    unit: str = "image",
    verbose: bool | int = False,
) -> Generator[Result, None, None]:
    """Yield ``function(block)`` for every block, in the order of the blocks.

    Once the generator is closed or has raised, no block is being computed any more.

    Parameters
    ----------
    function : callable
        Called with one block. Runs in a thread (the kernels, OpenCV and Pillow release the GIL), even where the
        caller's ``joblib.parallel_config`` names processes: blocks write into arrays of the caller. What is worth its
        way to other processes goes there by `_workers`.
    blocks : iterable
        Consumed lazily, a few blocks ahead of the workers.
    n_jobs : int or None, default=None
        scikit-learn's convention.
    weights : sequence of int, optional
        Number of units (images) in each block, for the progress bar.
    description, unit : str
        Texts of the progress bar.
    verbose : bool or int, default=False
        Show a progress bar, on terminals only.
    """
    bar = progress_bar(total=sum(weights) if weights is not None else None, description=description, unit=unit,
                       verbose=verbose)  # fmt: skip
    try:
        with closing(_results(function, blocks, n_jobs)) as results:
            for i, result in enumerate(results):
                yield result
                bar.update(weights[i] if weights is not None else 1)
    finally:
        bar.close()


def _results(
    function: Callable[[Block], Result], blocks: Iterable[Block], n_jobs: int | None
) -> Generator[Result, None, None]:
    if effective_n_jobs(n_jobs) == 1:
        with single_threaded():
            for block in blocks:
                yield function(block)
        return
    import joblib

    pool = joblib.Parallel(
        n_jobs=effective_n_jobs(n_jobs),
        require="sharedmem",
        return_as="generator",
        pre_dispatch="2*n_jobs",
        batch_size=1,
    )
    crew = _Crew()
    with single_threaded():
        results = pool(joblib.delayed(crew.run)(function, block) for block in blocks)
        try:
            # Not "yield from", which would hand an interruption to joblib first.
            for result in results:  # noqa: UP028
                yield result
        finally:
            crew.dismiss()
            with warnings.catch_warnings():
                # joblib reproaches the caller who stops early with unused results.
                warnings.simplefilter("ignore", UserWarning)
                results.close()


def map_ahead(
    function: Callable[[Block], Result], items: Iterable[Block], *, n_workers: int | None = None
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for every item, in order, computed by threads while the caller works on what it got.

    Unlike in `map_blocks`, the caller keeps its native threads: this is for reading ahead of one computation, such as a
    network's. Once the generator is closed or has raised, no item is being computed any more.

    Parameters
    ----------
    function : callable
        Must not need BLAS or OpenMP, whose threads are not limited here.
    items : iterable
        Consumed lazily, at most twice as many ahead as there are workers.
    n_workers : int or None, default=None
        Threads, by scikit-learn's convention; there is always at least one.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    n_threads = effective_n_jobs(n_workers)
    ahead: deque[Future[Result]] = deque()
    rest = iter(items)
    pool = ThreadPoolExecutor(n_threads)
    try:
        for item in islice(rest, 2 * n_threads):
            ahead.append(pool.submit(function, item))
        while ahead:
            result = ahead.popleft().result()
            for item in islice(rest, 1):
                ahead.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def progress_bar(*, total: int | None, description: str = "", unit: str = "image", verbose: bool | int = True) -> Any:
    """Return a tqdm bar on standard error: off when ``verbose`` is false or when it is not a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description or None, unit=unit, disable=None if verbose else True, leave=False)
