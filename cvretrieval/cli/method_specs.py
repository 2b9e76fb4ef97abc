"""Methods as rows of a table: ``vlad:words=256,verify=no`` → options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cvretrieval.cli.method import Exif, Method, inapplicable
from cvretrieval.cli.networks import parse_scales
from cvretrieval.cli.rerankers import Rerank, make_reranker


def parse_methods(specs: Sequence[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return spec → options of each method: those of the command line, and its own over them.

    Raises
    ------
    ValueError
        For a method or an option that is not known, a value that is none, or a spec given twice.
    """
    if len(set(specs)) < len(specs):
        raise ValueError(f"Each --method may be given once. Got {', '.join(specs)}.")
    return {spec: _over(options, _parse(spec)) for spec in specs}


def _over(options: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a method's own options over those of the command line that mean something for it."""
    verify = own.get("verify", options.get("verify", True))
    left_out = inapplicable(own["method"], verify)
    return {**{name: value for name, value in options.items() if name not in left_out}, **own}


def _parse(spec: str) -> dict[str, Any]:
    name, _, rest = spec.partition(":")
    known = [choice.value for choice in Method]
    if name not in known:
        raise ValueError(f"There is no method {name!r} ({spec!r}). Known: {', '.join(known)}.")
    own: dict[str, Any] = {"method": name}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if key not in _OPTIONS or not equals:
            raise ValueError(
                f"{part!r} in --method {spec} is no option. Known: {', '.join(f'{key}=' for key in _OPTIONS)}"
            )
        try:
            own[key.replace("-", "_")] = _OPTIONS[key](value)
        except ValueError as error:
            raise ValueError(f"{part!r} in --method {spec}: {error}") from error
    return own


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number of at least 1 is needed.")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("a whole number is needed.")
    return int(text)


def _flag(text: str) -> bool:
    answers = {"yes": True, "no": False}
    if text not in answers:
        raise ValueError("yes or no is needed.")
    return answers[text]


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name is needed.")
    return text


def _scales(text: str) -> str:
    parse_scales(text)
    return text


def _exif(text: str) -> str:
    try:
        return Exif(text).value
    except ValueError:
        raise ValueError("apply or ignore is needed.") from None


def _rerank(text: str) -> Any:
    names = text.split("+")
    known = [choice.value for choice in Rerank]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no reranker {unknown[0]!r}; known are {', '.join(known)}.")
    return make_reranker(names)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "words": _number,
    "pca": _number,
    "features": _number,
    "max-size": _number,
    "exif": _exif,
    "upright": _flag,
    "seed": _seed,
    "verify": _flag,
    "rerank": _rerank,
    "backbone": _name,
    "weights": _name,
    "layer": _name,
    "scales": _scales,
}
