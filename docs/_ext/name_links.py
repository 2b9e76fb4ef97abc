"""Code in the text that is a public name, `VLAD` or `deep.GeM("resnet50")`, leads to its page of the reference."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

NAME = re.compile(r"(?:cvretrieval\.)?((?:[a-z]+\.)*[A-Za-z_]\w*)(?:\(.*\))?$", re.DOTALL)
ROOMS = ("", "deep.", "datasets.", "metrics.", "recognition.", "plotting.", "reranking.", "retrieval.")


def full_name(name: str, known: dict[str, Any]) -> str | None:
    """Return the name in the reference that a short name stands for; None for words, even if they are names, too."""
    if name.islower() and "_" not in name and "." not in name:
        return None
    candidates = (f"cvretrieval.{room}{name}" for room in ROOMS)
    return next((target for target in candidates if target in known and known[target].objtype != "module"), None)


class LinkPublicNames(SphinxPostTransform):
    # After references are resolved: names in backquotes that were not found from where they stand are literals then.
    default_priority = 15

    def run(self, **kwargs: object) -> None:
        known = self.env.get_domain("py").objects
        for literal in list(self.document.findall(nodes.literal)):
            if isinstance(literal.parent, (nodes.reference, addnodes.pending_xref, nodes.title)):
                continue
            match = NAME.match(literal.astext())
            target = full_name(match[1], known) if match else None
            if target is not None:
                docname = known[target].docname
                if docname == self.env.docname:
                    continue
                reference = nodes.reference("", "", internal=True)
                reference["refuri"] = (
                    self.app.builder.get_relative_uri(self.env.docname, docname) + "#" + known[target].node_id
                )
                literal.replace_self(reference)
                reference += literal


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(LinkPublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
