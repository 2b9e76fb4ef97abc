"""Where the work of a command is done: in threads, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer

from cvretrieval._optional import import_optional

# To wait for a scheduler's answer.
_PATIENCE = "10s"

ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask scheduler whose workers find the features, e.g. tcp://scheduler:8786; they must see the photos and "
        "the index under the same paths.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Find the features in so many processes of this machine, a local Dask cluster."),
]


@contextmanager
def working_on(cluster: str | None, workers: int | None) -> Iterator[None]:
    """Run the body with the workers that were asked for.

    Raises
    ------
    ValueError
        If both were, or nothing answers at the address.
    """
    if cluster is not None and workers is not None:
        raise ValueError("Give either --cluster or --workers.")
    if cluster is None and workers is None:
        yield
        return
    distributed: Any = import_optional("dask.distributed", "--cluster" if workers is None else "--workers")
    import joblib

    with ExitStack() as stack:
        if workers is not None:
            local = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            address: Any = stack.enter_context(local)
        else:
            address = cluster
        try:
            client = stack.enter_context(distributed.Client(address, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"No Dask scheduler answers at {cluster} ({error}). Start one with `dask scheduler`, and workers with "
                "`dask worker ADDRESS`."
            ) from error
        if not client.ncores():
            client.wait_for_workers(1, timeout=30)
        stack.enter_context(joblib.parallel_config(backend="dask"))
        yield
