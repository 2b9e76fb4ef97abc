"""numpydoc compiles its template for every docstring anew, a fifth of the time of a build; here it does so once."""

from __future__ import annotations

from functools import partial

import numpydoc.docscrape_sphinx
from jinja2.sandbox import SandboxedEnvironment
from sphinx.application import Sphinx


def shared(environments: list[SandboxedEnvironment], **settings: object) -> SandboxedEnvironment:
    if not environments:
        environments.append(SandboxedEnvironment(**settings))
    return environments[0]


def setup(app: Sphinx) -> dict[str, bool]:
    numpydoc.docscrape_sphinx.SandboxedEnvironment = partial(shared, [])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
