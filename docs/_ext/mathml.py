"""Formulas as MathML, which browsers draw themselves: no script, nothing from a network."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

#: What the converter does not know, as what it does.
SUBSTITUTES = [
    (re.compile(r"\\(begin|end)\{(?:aligned|gathered)\}"), r"\\\1{align*}"),
    (re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])"), ""),
    (re.compile(r"\\operatorname\*?\{([^}]*)\}"), r"\\mathrm{\1}"),
    (re.compile(r"\\arg(?![a-zA-Z])"), r"\\mathrm{arg}\\,"),
    (re.compile(r"\\sim(?![a-zA-Z])"), "∼"),
]
BARS = re.compile(r"<mo[^>]*>(\||‖|&#x0007C;|&#x02016;)</mo>")


def to_mathml(latex: str, display: str, place: nodes.Element) -> str:
    for pattern, substitute in SUBSTITUTES:
        latex = pattern.sub(substitute, latex)
    mathml = convert(latex, display=display)
    if unknown := re.findall(r"\\[a-zA-Z]+", html.unescape(mathml)):
        logger.warning("no MathML for %s in %s", ", ".join(unknown), latex, location=place)
    # Bars are no brackets to the converter: they would stretch, and stand apart from what they enclose.
    return BARS.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)


def visit_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(to_mathml(node.astext(), "inline", node))
    raise nodes.SkipNode


def visit_displaymath(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{to_mathml(node.astext(), "block", node)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
