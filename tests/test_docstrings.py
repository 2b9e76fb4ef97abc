"""Every example in a docstring runs as it stands, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil

import pytest

import cvretrieval

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import tests.matching_torchvision  # noqa: F401

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cvretrieval.__path__, "cvretrieval.")
    if not module.name.endswith("__main__") and (HAS_TORCH or not module.name.startswith("cvretrieval.deep."))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", [name for name in cvretrieval.__all__ if name != "__version__"])
def test_public_names_are_documented(name):
    thing = getattr(cvretrieval, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing) and hasattr(thing, "get_params"):
        text = inspect.getdoc(thing)
        assert ">>>" in text, f"{name} has no example"
        for parameter in thing().get_params(deep=False) if _has_defaults(thing) else []:
            assert f"{parameter} :" in text or f"{parameter}, " in text or f", {parameter} " in text, parameter


def _has_defaults(estimator):
    parameters = list(inspect.signature(estimator).parameters.values())
    return all(parameter.default is not inspect.Parameter.empty for parameter in parameters)
