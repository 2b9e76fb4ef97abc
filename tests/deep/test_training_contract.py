"""The contract of all estimators with a network, kept by those that train it: with classes where it fits without."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from cvretrieval.deep import CGD, FineTuned, GeM
from cvretrieval.deep.training.estimator import TrainedDescriptor
from tests.deep import test_contract as contract
from tests.deep.test_contract import images  # noqa: F401
from tests.deep.test_training import NAMED

_SMALL = {"n_epochs": 1, "classes_per_batch": 2, "images_per_class": 2, "resize_to": 36, "input_size": 32}

TRAINED = {
    "CGD": CGD(NAMED, branches="SG", n_components=8, random_state=0, **_SMALL),
    "FineTuned": FineTuned(GeM(NAMED, scales=(1, 0.7)), random_state=0, **_SMALL),
}

CHECKS = {
    "CGD": (
        "test_clone_params_and_plain_configuration",
        "test_fit_returns_self_and_changes_no_parameter",
        "test_unfitted_is_said",
        "test_order_batches_and_workers_change_rounding_only",
        "test_same_seed_same_bits",
        "test_vectors_are_normalised",
        "test_every_kind_of_input_is_the_same",
        "test_no_images_and_single_images",
        "test_saved_and_loaded_it_returns_the_same_bits",
        "test_an_unreadable_image_is_named",
    ),
    # Network and batches are parameters of its descriptor, which two of them change.
    "FineTuned": (
        "test_fit_returns_self_and_changes_no_parameter",
        "test_unfitted_is_said",
        "test_same_seed_same_bits",
        "test_vectors_are_normalised",
        "test_every_kind_of_input_is_the_same",
        "test_no_images_and_single_images",
        "test_saved_and_loaded_it_returns_the_same_bits",
        "test_an_unreadable_image_is_named",
    ),
}


@pytest.fixture
def _with_classes(monkeypatch):
    """Classes in turn, for checks that fit without any."""
    original = TrainedDescriptor.fit

    def fit(self, X, y=None, **options):
        return original(self, X, np.arange(len(X)) % 2 if y is None else y, **options)

    monkeypatch.setattr(TrainedDescriptor, "fit", fit)


@pytest.mark.usefixtures("_with_classes")
@pytest.mark.parametrize(("name", "check"), [(name, check) for name, checks in CHECKS.items() for check in checks])
def test_the_contract(name, check, images, rng, tmp_path):  # noqa: F811
    function = getattr(contract, check)
    given = {"estimator": TRAINED[name], "images": images, "rng": rng, "tmp_path": tmp_path}
    function(**{key: value for key, value in given.items() if key in inspect.signature(function).parameters})
