"""Running the application on a port of this machine."""

from __future__ import annotations

import os
from typing import Any

from cvretrieval._optional import import_optional
from cvretrieval.serve.app import MOST_BYTES, make_app
from cvretrieval.serve.guard import is_loopback


def serve(
    path: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    k: int = 20,
    most_bytes: int = MOST_BYTES,
    n_jobs: int | None = -1,
    announce: Any = print,
) -> None:
    """Serve the page of an index until interrupted (extra ``serve``).

    Parameters
    ----------
    path : path
        Folder of the index.
    host : str, default="127.0.0.1"
        Address to listen at; another than this machine's own needs a `token`.
    port : int, default=8080
        0 takes a free one.
    token : str, optional
        See `make_app`.
    k, most_bytes, n_jobs
        See `make_app`.
    announce : callable, default=print
        Called with the address, once it answers.

    Raises
    ------
    ValueError
        If other machines could ask, and there is no token.
    OSError
        If the port is taken.
    """
    if not is_loopback(host) and not token:
        raise ValueError(
            f"At {host} other machines can ask: give a --token of your own choice, which they must have, or leave "
            "--host out."
        )
    uvicorn = import_optional("uvicorn", "serve")
    app = make_app(path, token=token, any_host=not is_loopback(host), k=k, most_bytes=most_bytes, n_jobs=n_jobs)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=3
    )
    socket = config_socket(config)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{socket.getsockname()[1]}/"
    announce(address + (f"?token={token}" if token else ""))
    try:
        uvicorn.Server(config).run(sockets=[socket])
    finally:
        app.state.collection.close()


def config_socket(config: Any) -> Any:
    """Return a socket that is bound as configured; uvicorn's own way ends the process where the port is taken."""
    import socket

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host, config.port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise OSError(
            error.errno, f"{error.strerror}; choose another --port", f"{config.host}:{config.port}"
        ) from error
    return found
