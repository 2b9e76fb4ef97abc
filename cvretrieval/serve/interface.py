"""The interface under the page, ``/api``; fastapi is needed to import this."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from cvretrieval._version import __version__
from cvretrieval.serve import forms
from cvretrieval.serve.answers import image_answer, jpeg_response, json_response, matches_answer, search_answer
from cvretrieval.serve.collection import MOST_RESULTS, Asked, Collection, problem_of
from cvretrieval.serve.problems import Problem
from cvretrieval.serve.schema import ERRORS, MATCHES_FORM, SEARCH_FORM, errors, fields_of
from cvretrieval.serve.uploads import Uploads

#: Searches that may wait for their turn; more are turned away.
_MOST_WAITING = 100


class Interface:
    """``/api``: functions of requests, each with its words for OpenAPI."""

    def __init__(self, collection: Collection, k: int, most_bytes: int) -> None:
        self._collection = collection
        self._k = min(k, MOST_RESULTS)
        self._most_bytes = most_bytes
        self._uploads = Uploads()
        self._turn = asyncio.Semaphore(1)
        self._n_waiting = 0

    def add_to(self, app: Any) -> None:
        size_query = Query(320, ge=16, le=2048, description="Longest side in pixels, at most.")
        jpeg: dict[int | str, Any] = {200: {"content": {"image/jpeg": {}}, "description": "The photo, upright."}}

        @app.get("/api/info", summary="What is in the index, and what can be asked", responses=errors(503))
        async def info() -> Any:
            await self._refresh()
            return json_response({
                **self._collection.info(),
                "defaults": {"k": self._k, "verify": self._collection.verifier is not None,
                             "expand": self._collection.expands_by_default},
                "limits": {"bytes": self._most_bytes, "pixels": self._collection.reader.max_pixels, "k": MOST_RESULTS},
                "version": __version__,
            })  # fmt: skip

        @app.get("/api/images", summary="The images, in the order they were added", responses=errors(422, 503))
        async def images(offset: int = Query(0, ge=0, le=10**12), limit: int = Query(60, ge=1, le=500)) -> Any:
            await self._refresh()
            n_images, records = await _in_thread(self._collection.images, offset, limit)
            return json_response({"n_images": n_images, "images": [image_answer(record) for record in records]})

        @app.get("/api/images/{id:path}", summary="One image", responses={**jpeg, **errors(404, 415, 422)})
        async def image(id: str, size: int = size_query) -> Any:
            record = self._collection.find(id)
            return jpeg_response(await _in_thread(self._collection.picture, record, size))

        @app.get("/api/queries/{key}", summary="A photo that was sent", responses={**jpeg, **errors(404, 422)})
        async def query(key: str, size: int = size_query) -> Any:
            upload = self._upload(key)
            make = partial(self._collection.pictures.jpeg, upload.key, upload.open(), size)
            return jpeg_response(await _in_thread(make))

        @app.post("/api/search", summary="Rank the images by a photo", openapi_extra=SEARCH_FORM, responses=ERRORS)
        async def search(request: Request) -> Any:
            fields = await forms.read_form(request, self._most_bytes, fields_of(SEARCH_FORM))
            k = forms.whole_number(fields, "k", self._k, 1, MOST_RESULTS)
            can = self._collection
            verify = forms.flag(fields, "verify", can.verifier is not None) and can.verifier is not None
            expand = forms.flag(fields, "expand", can.expands_by_default) and can.reranker is not None
            asked, size = await self._asked(fields)
            result, hits = await self._in_turn(partial(can.search, asked, k, verify=verify, expand=expand))
            settings = {"k": k, "verify": verify, "expand": expand}
            return json_response(search_answer(can, asked, size, result, hits, settings))

        @app.post(
            "/api/matches", summary="How a photo and an image match", openapi_extra=MATCHES_FORM, responses=ERRORS
        )
        async def matches(request: Request) -> Any:
            fields = await forms.read_form(request, self._most_bytes, fields_of(MATCHES_FORM))
            name = forms.text(fields, "candidate")
            if name is None:
                raise Problem(422, "The field 'candidate' is missing: the id of an indexed image.")
            candidate = await _in_thread(self._collection.find_with_size, name, name=name)
            asked, size = await self._asked(fields)
            found = await self._in_turn(partial(self._collection.compare, asked, candidate))
            return json_response(matches_answer(asked, size, candidate, *found))

    async def _asked(self, fields: dict[str, Any]) -> tuple[Asked, tuple[int, int]]:
        """Return what is searched with, and its size."""
        given = [name for name in ("photo", "query", "id") if fields.get(name)]
        if len(given) != 1:
            raise Problem(422, "Send one of 'photo' (a file), 'query' (the key of an earlier one) and 'id'.")
        box = forms.region(fields)
        if given == ["id"]:
            name = str(forms.text(fields, "id"))
            record = await _in_thread(self._collection.find_with_size, name, name=name)
            return Asked(record=record, box=box), (record.width, record.height)
        if given == ["query"]:
            upload = self._upload(str(forms.text(fields, "query")))
        else:
            photo = fields["photo"]
            if isinstance(photo, str):
                raise Problem(422, "The field 'photo' is a file.")
            upload = self._uploads.keep(*photo)
        return Asked(upload=upload, box=box), await _in_thread(self._collection.size_of, upload, name=upload.name)

    def _upload(self, key: str) -> Any:
        upload = self._uploads.find(key)
        if upload is None:
            raise Problem(404, "That photo is no longer in the memory of the server: send it again.")
        return upload

    async def _in_turn(self, work: Callable[[], Any]) -> Any:
        if self._n_waiting >= _MOST_WAITING:
            raise Problem(503, "Too many searches are waiting: try again in a while.")
        self._n_waiting += 1
        try:
            async with self._turn:
                return await _in_thread(work)
        finally:
            self._n_waiting -= 1

    async def _refresh(self) -> None:
        # While a search runs, what it saw last will do.
        if not self._turn.locked():
            async with self._turn:
                await _in_thread(self._collection.refresh)


async def _in_thread(work: Callable[..., Any], *arguments: Any, name: str = "The photo") -> Any:
    try:
        return await run_in_threadpool(work, *arguments)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise problem_of(error, name) from error
