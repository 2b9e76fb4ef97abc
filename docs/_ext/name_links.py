"""Code in the text that is a public name, `VLAD` or `deep.GeM("resnet50")`, leads to its page of the reference."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

NAME = re.compile(r"(?:cvretrieval\.)?((?:[a-z]+\.)*[A-Za-z_]\w*)(?:\(.*\))?$", re.DOTALL)


class LinkPublicNames(SphinxPostTransform):
    # After references are resolved: names in backquotes that were not found from where they stand are literals then.
    default_priority = 15

    def run(self, **kwargs: object) -> None:
        known = self.env.get_domain("py").objects
        for literal in list(self.document.findall(nodes.literal)):
            if isinstance(literal.parent, (nodes.reference, addnodes.pending_xref, nodes.title)):
                continue
            match = NAME.match(literal.astext())
            target = f"cvretrieval.{match[1]}" if match else ""
            # Ordinary words, such as `index` or `metrics`, are also rooms.
            if target in known and known[target].objtype != "module":
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
