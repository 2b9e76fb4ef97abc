"""The local web page: search an index from a browser, and the HTTP interface under it."""

from __future__ import annotations

from cvretrieval.serve.app import make_app
from cvretrieval.serve.running import serve

__all__ = ["make_app", "serve"]
