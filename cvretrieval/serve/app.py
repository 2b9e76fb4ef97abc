"""The application: the page, and the interface under it."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from typing import Any

from cvretrieval._optional import import_optional
from cvretrieval._version import __version__
from cvretrieval.serve.answers import json_response
from cvretrieval.serve.collection import Collection
from cvretrieval.serve.guard import Guard
from cvretrieval.serve.problems import Problem

#: Bytes of a photo, by default.
MOST_BYTES = 20_000_000

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_app(
    path: str | os.PathLike[str],
    *,
    token: str | None = None,
    any_host: bool = False,
    k: int = 20,
    most_bytes: int = MOST_BYTES,
    n_jobs: int | None = -1,
) -> Any:
    """Make the web application of an index (extra ``serve``), for `serve` or any server of ASGI.

    Parameters
    ----------
    path : path
        Folder of the index. Another process may add to it meanwhile: the next request sees what is committed.
    token : str, optional
        Every request must have it, as ``Authorization: Bearer`` or by the cookie that ``/?token=`` sets.
    any_host : bool, default=False
        Answer to other names than localhost; give a `token` then.
    k : int, default=20
        Length of the ranked list where a request does not say.
    most_bytes : int, default=20_000_000
        Of a photo that is sent. Its pixels are limited by the reader of the index.
    n_jobs : int or None, default=-1
        Threads of a search.

    Returns
    -------
    ASGI application

    Raises
    ------
    StoreError
        If the folder is no index.

    Notes
    -----
    Searches run one after the other, with all threads; pictures meanwhile. Photos that are sent stay in memory, the
    latest 256 MB of them, and never reach the disk. No part of a request is used as a path.

    Examples
    --------
    >>> from cvretrieval.serve import make_app
    >>> app = make_app("photos.cvr")  # doctest: +SKIP
    """
    fastapi = import_optional("fastapi", "serve")
    for module in ("python_multipart", "uvicorn"):
        import_optional(module, "serve")
    from cvretrieval.serve.interface import Interface

    collection = Collection(path, n_jobs=n_jobs)

    app = fastapi.FastAPI(
        title="cvretrieval",
        version=__version__,
        description="Search a collection of photos by a photo.",
        docs_url=None,  # it would be loaded from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _add_errors(app)
    _add_page(app)
    Interface(collection, k, most_bytes).add_to(app)
    app.add_middleware(Guard, token=token, any_host=any_host)
    app.state.collection = collection
    return app


def _add_errors(app: Any) -> None:
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    @app.exception_handler(Problem)
    async def problem(_: Any, error: Problem) -> Any:
        headers = {"Retry-After": "5"} if error.status == 503 else {}
        return json_response({"detail": error.detail}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Any, error: Any) -> Any:
        first = error.errors()[0]
        return json_response({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    @app.exception_handler(HTTPException)
    async def other(_: Any, error: Any) -> Any:
        return json_response({"detail": str(error.detail)}, error.status_code, error.headers)


def _add_page(app: Any) -> None:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    folder = resources.files("cvretrieval.serve") / "assets"
    # Read once, by name: no part of a request is a path.
    files = {file.name: file.read_bytes() for file in folder.iterdir() if os.path.splitext(file.name)[1] in _KINDS}
    files["look.css"] = (resources.files("cvretrieval.plotting") / "assets" / "look.css").read_bytes()
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:16]}"' for name, data in files.items()}

    async def send(request: Request, name: str) -> Response:
        if name not in files:
            raise Problem(404, f"There is no {name!r}.")
        headers = {"Cache-Control": "no-cache", "ETag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        kind = _KINDS[os.path.splitext(name)[1]]
        return Response(files[name], media_type=f"{kind}; charset=utf-8", headers=headers)

    def route(path: str, name: str | None = None) -> Route:
        async def answer(request: Request) -> Response:
            return await send(request, request.path_params["name"] if name is None else name)

        return Route(path, answer)

    app.router.routes += [route("/", "page.html"), route("/favicon.ico", "icon.svg"), route("/assets/{name}")]
