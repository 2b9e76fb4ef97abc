"""Mixins shared by the estimators: what kind of input a stage takes, and the tags that follow from it."""

from __future__ import annotations

from typing import Any

from cvretrieval._saving import SavableMixin


class ImageInputMixin(SavableMixin):
    """A stage whose input is a sequence of images (paths, arrays, PIL images): extractors and CNN descriptors."""

    input_kind = "images"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


class LocalFeaturesInputMixin(SavableMixin):
    """A stage whose input is `LocalFeatures` (or lists of 2-D arrays): codebooks and encoders."""

    input_kind = "local_features"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def input_kind(estimator: Any) -> str:
    """Return ``"images"``, ``"local_features"`` or ``"vectors"``: what ``estimator.transform`` takes.

    A Pipeline takes what its first step takes.
    """
    steps = getattr(estimator, "steps", None)
    if steps:
        return input_kind(steps[0][1])
    return str(getattr(estimator, "input_kind", "vectors"))
