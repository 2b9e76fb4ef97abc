"""Whether the network behind a fitted estimator is still the one that it was fitted with."""

from __future__ import annotations

import json

from cvretrieval._state import to_config
from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones.backbone import Backbone
from cvretrieval.deep.inference.network import PreparedNetwork


def fitted_network(backbone: Backbone, prepared: PreparedNetwork) -> tuple[str, str] | None:
    """Return the description of a network and the digest of its weights; None if no file can describe it.

    Parameters
    ----------
    backbone : Backbone
    prepared : PreparedNetwork
        What it was built to.
    """
    description = _description(backbone)
    return None if description is None else (description, prepared.digest)


def check_fitted_network(
    owner: str, backbone: Backbone, prepared: PreparedNetwork, fitted: tuple[str, str] | None
) -> None:
    """Refuse a network that is described as the fitted one, but has other weights.

    A file may have been replaced, and the weights that a name stands for change with the library that publishes them.

    Raises
    ------
    StoreError
    """
    if fitted is None or _description(backbone) != fitted[0] or prepared.digest == fitted[1]:
        return
    path = backbone.weights_path()
    if path is not None:
        what, way_out = f"The weights in {path}", "Put the former file back"
    elif backbone.weights is None:
        what, way_out = f"The random weights of {backbone.model}", "Install the former version of torch"
    else:
        what = f"The weights {backbone.weights!r} of {backbone.model}"
        way_out = "Install the version of the library that published the former ones under this name"
    raise StoreError(
        f"{what} are not those that {owner} was fitted with, so its vectors could not be compared with former ones. "
        f"{way_out}, or start anew."
    )


def _description(backbone: Backbone) -> str | None:
    try:
        return json.dumps(to_config(backbone), sort_keys=True)
    except TypeError:  # a module, or a generator of random numbers: it lives in this process alone
        return None
