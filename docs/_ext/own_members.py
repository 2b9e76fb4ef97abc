"""The reference shows methods of this package; those that every scikit-learn estimator has are in scikit-learn's."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx


def skip_inherited(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    function = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
    module = getattr(function, "__module__", None) or ""
    if inspect.isroutine(function) and not module.startswith("cvretrieval"):
        return True
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-skip-member", skip_inherited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
