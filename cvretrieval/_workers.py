"""Processes of this machine or of others, as the caller's ``joblib.parallel_config`` names them; any may die.

A process that dies takes with it what it was computing, and a single bad image can kill every process that it is given
to. joblib then gives up everything, or waits for ever; here parts are halved until the item is alone that kills.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(RuntimeError):
    """The process that computed a part has died: killed, out of memory, or crashed."""


class ClusterError(RuntimeError):
    """The cluster is gone, or no longer knows what it was asked for."""


class Workers(ABC):
    """Processes that compute parts.

    Attributes
    ----------
    n_workers : int
        Parts computed at once.
    one_dies_alone : bool
        Whether a part that died was being computed by the process that died; else any part under way may be the cause.
    """

    n_workers: int
    one_dies_alone: bool

    @abstractmethod
    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a future."""

    @abstractmethod
    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until all have ended, whichever way."""

    @abstractmethod
    def result(self, future: Any) -> Any:
        """Wait for a result.

        Raises
        ------
        WorkerDied, ClusterError
            Or what the function has raised.
        """

    @abstractmethod
    def abandon(self, futures: Sequence[Any]) -> None:
        """Give up parts, whatever state they are in."""

    @abstractmethod
    def close(self) -> None:
        """End the processes that are this object's own."""


class LocalProcesses(Workers):
    """Processes of this machine, by loky; not those of joblib, which has its own way with them."""

    one_dies_alone = False

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._pool: Any = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        from concurrent.futures import BrokenExecutor

        from joblib.externals.loky import ProcessPoolExecutor

        if self._pool is not None:
            try:
                return self._pool.submit(function, *arguments)
            except BrokenExecutor:  # it has lost a process
                self.close()
        self._pool = ProcessPoolExecutor(self.n_workers)
        return self._pool.submit(function, *arguments)

    def wait(self, futures: Sequence[Any]) -> None:
        from concurrent.futures import wait

        wait(futures)

    def result(self, future: Any) -> Any:
        from concurrent.futures import BrokenExecutor, CancelledError

        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            raise WorkerDied("a process of this machine died") from error

    def abandon(self, futures: Sequence[Any]) -> None:
        if any(not future.done() for future in futures):
            self._end(kill=True)

    def close(self) -> None:
        self._end(kill=False)

    def _end(self, kill: bool) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=kill)
            self._pool = None


class DaskCluster(Workers):
    """The processes of a Dask cluster."""

    one_dies_alone = True

    def __init__(self, client: Any, n_workers: int) -> None:
        self.client = client
        self.n_workers = n_workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.client.submit(function, *arguments, pure=False)

    def wait(self, futures: Sequence[Any]) -> None:
        from distributed import wait

        try:
            if futures:
                wait(futures)
        except Exception as error:  # of many kinds, by what has gone first
            raise _lost(self.client) from error

    def result(self, future: Any) -> Any:
        from distributed.scheduler import KilledWorker

        self.wait([future])
        if future.status == "finished":
            try:
                return future.result()
            except (OSError, TimeoutError) as error:  # its worker died with the result, or the scheduler
                raise _lost(self.client) from error
        if future.status != "error":
            raise _lost(self.client)
        failure = future.exception()
        if isinstance(failure, KilledWorker):
            raise WorkerDied("the Dask workers that computed it died, one after the other") from failure
        raise failure

    def abandon(self, futures: Sequence[Any]) -> None:
        if futures and self.client.status == "running":
            self.client.cancel(list(futures), asynchronous=False, force=True)

    def close(self) -> None:
        """Leave them to whoever made the cluster."""


class RayCluster(Workers):
    """The processes of a Ray cluster."""

    one_dies_alone = True

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self.n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._ray.remote(max_retries=0)(_call).remote(function, *arguments)

    def wait(self, futures: Sequence[Any]) -> None:
        if futures:
            self._ray.wait(list(futures), num_returns=len(futures))

    def result(self, future: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(future)
        except errors.RayTaskError as error:
            raise error.cause from error
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise WorkerDied("the Ray worker that computed it died") from error
        except errors.RayError as error:
            raise ClusterError(
                f"The Ray cluster has failed ({error}). What is finished is kept; run the same again to go on."
            ) from error

    def abandon(self, futures: Sequence[Any]) -> None:
        for future in futures:
            self._ray.cancel(future, force=True)

    def close(self) -> None:
        """Leave them to whoever made the cluster."""


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _lost(client: Any) -> ClusterError:
    address = getattr(getattr(client, "scheduler", None), "address", "")
    return ClusterError(
        f"The Dask scheduler {address} is gone, or has forgotten what it was asked for. What is finished is kept; run "
        "the same again to go on."
    )


@contextmanager
def active_workers(n_jobs: int | None) -> Iterator[Workers | None]:
    """Give the processes that the caller's ``joblib.parallel_config`` names; None for threads, or no more than one.

    Within `lending`, those that are lent.

    Backends other than "loky", "dask" and "ray" are taken for threads.
    """
    import joblib
    from joblib.parallel import get_active_backend

    lent = _lent.get()
    if lent is not None:
        yield lent
        return
    backend = get_active_backend(prefer="threads")[0]
    name = type(backend).__name__
    workers: Workers | None = None
    if name == "DaskDistributedBackend":
        workers = DaskCluster(backend.client, max(1, int(backend.effective_n_jobs(-1))))
    elif name == "RayBackend":
        workers = RayCluster()
    elif name == "LokyBackend":
        n_workers = int(joblib.effective_n_jobs(n_jobs))
        workers = LocalProcesses(n_workers) if n_workers > 1 else None
    try:
        yield workers
    finally:
        if workers is not None:
            workers.close()


_lent: ContextVar[Workers | None] = ContextVar("_lent", default=None)


@contextmanager
def lending(workers: Workers | None) -> Iterator[None]:
    """Have `active_workers` give these in the body, and everything else there run in threads; None changes nothing.

    What asks for workers knows what is worth its way to them; joblib, which others call, does not.
    """
    import joblib

    if workers is None:
        yield
        return
    token = _lent.set(workers)
    try:
        with joblib.parallel_config(backend="threading"):
            yield
    finally:
        _lent.reset(token)


@dataclass(eq=False)
class _Part(Generic[Item]):
    items: Sequence[Item]
    future: Any = None
    #: To be computed while nothing else is: then it is known what kills.
    is_suspect: bool = False


def map_parts(
    workers: Workers,
    function: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    next_size: Callable[[], int],
) -> Generator[tuple[Sequence[Item], Result | None], None, None]:
    """Yield parts of the items and ``function(part)``, in order; None for an item that kills whoever computes it.

    Parameters
    ----------
    workers : Workers
    function : callable
        Called with some of the items in another process; must be picklable, and may be called twice for the same.
    items : sequence
    next_size : callable
        How many items the next part has; asked as late as possible, so it may depend on the results so far.

    Raises
    ------
    ClusterError
        Or what the function has raised. What was yielded before is all that was done.
    """
    waiting: deque[_Part[Item]] = deque()
    start = 0
    try:
        while waiting or start < len(items):
            while len(waiting) < 2 * workers.n_workers and start < len(items):
                taken = items[start : start + max(1, next_size())]
                start += len(taken)
                waiting.append(_Part(taken))
            head = waiting[0]
            if head.is_suspect and head.future is None:
                workers.wait([part.future for part in waiting if part.future is not None])
                head.future = workers.submit(function, head.items)
            elif not head.is_suspect:
                for part in waiting:
                    if part.future is None and not part.is_suspect:
                        part.future = workers.submit(function, part.items)
            try:
                result = workers.result(head.future)
            except WorkerDied:
                if head.is_suspect and len(head.items) == 1:
                    yield waiting.popleft().items, None
                    continue
                _blame(workers, waiting)
                continue
            waiting.popleft()
            yield head.items, result
    finally:
        workers.abandon([part.future for part in waiting if part.future is not None])


def _blame(workers: Workers, waiting: deque[_Part[Any]]) -> None:
    """Have the first part, which died, computed anew so that more is known of the cause."""
    head = waiting[0]
    if not workers.one_dies_alone and not head.is_suspect:
        # Any of them may have been it: one by one.
        for part in waiting:
            if part.future is not None and not _is_finished(part.future):
                part.future, part.is_suspect = None, True
        return
    waiting.popleft()
    if len(head.items) == 1:
        waiting.appendleft(_Part(head.items, is_suspect=True))
        return
    middle = len(head.items) // 2
    for items in (head.items[middle:], head.items[:middle]):
        waiting.appendleft(_Part(items, is_suspect=not workers.one_dies_alone))


def _is_finished(future: Any) -> bool:
    return bool(future.done()) and not future.cancelled() and future.exception() is None
