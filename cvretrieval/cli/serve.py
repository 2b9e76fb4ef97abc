"""``serve``: the index as a page in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from cvretrieval.cli.common import IndexArgument, JobsOption, say


def serve(
    index: IndexArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one that other machines can reach demands --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    token: Annotated[
        str | None, typer.Option(help="Secret that every request must have.", envvar="CVRETRIEVAL_TOKEN")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=200, help="Length of the ranked list at first.")] = 20,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of a photo that is sent, at most.")] = 20,
    jobs: JobsOption = -1,
) -> None:
    """Search from a browser: a page, and the interface under it, on this machine.

    Photos that are dropped on the page stay in memory. End it with Ctrl-C.
    """
    from cvretrieval import serve as server

    server.serve(
        index, host=host, port=port, token=token, k=k, most_bytes=max_upload * 1_000_000, n_jobs=jobs,
        announce=lambda address: say(f"{index} is served at {address}  (Ctrl-C ends it)"),
    )  # fmt: skip
