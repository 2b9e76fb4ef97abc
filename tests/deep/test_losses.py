"""Losses of metric learning and CGD's head: against the reference programs, their definitions, finite differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cvretrieval.deep import losses
from cvretrieval.deep.layers import MAC, CombinedDescriptors, GeM
from tests.parity import agree
from tests.reference import metric_losses as twin

DATA = Path(__file__).parents[1] / "data"

#: name → the loss, and its definition
LOSSES = {
    "batch-hard": (losses.BatchHardTriplet(0.3), lambda x, y: twin.batch_hard(x, y, 0.3)),
    "semi-hard": (losses.SemiHardTriplet(0.5), lambda x, y: twin.semi_hard(x, y, 0.5)),
    "contrastive": (losses.Contrastive(2.5), lambda x, y: twin.contrastive(x, y, 2.5)),
    "multi-similarity": (losses.MultiSimilarity(), lambda x, y: twin.multi_similarity(x, y, 2.0, 50.0, 0.5, 0.1)),
    "smooth-ap": (losses.SmoothAP(0.1), lambda x, y: twin.smooth_ap(x, y, 0.1)),
}
each = pytest.mark.parametrize(("loss", "definition"), list(LOSSES.values()), ids=list(LOSSES))


@pytest.fixture(scope="module")
def reference():
    with np.load(DATA / "cgd_losses.npz") as file:
        return dict(file)


@pytest.fixture
def batch(rng):
    """Classes of 4, 3, 2 and 1 vectors."""
    return rng.normal(size=(10, 6)), np.array([2, 0, 1, 0, 2, 0, 3, 1, 0, 2])


def value_and_gradient(function, array, labels):
    x = torch.tensor(array, requires_grad=True)
    value = function(x, torch.tensor(labels).long())
    value.backward()
    return value.item(), x.grad.numpy()


@pytest.mark.parametrize("tag", ["raw", "l2n"])
@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_batch_hard_is_that_of_two_programs(reference, tag, margin):
    loss = losses.BatchHardTriplet(margin)

    def of(x, labels):
        return loss(F.normalize(x, dim=1) if tag == "l2n" else x, labels)

    value, gradient = value_and_gradient(of, reference["embeddings"], reference["labels"])
    for program in ("lt", "pml"):
        kind = "_mean" if program == "pml" else ""
        np.testing.assert_allclose(value, reference[f"{program}_{tag}_m{margin}{kind}_loss"], rtol=1e-12)
        agree("batch-hard", gradient, reference[f"{program}_{tag}_m{margin}{kind}_grad"], 1e-12)
    np.testing.assert_allclose(value, reference[f"own_{tag}_m{margin}_per_anchor"].mean(), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("smoothing", [0.1, 0.0])
def test_cross_entropy_is_the_reference_programs(reference, temperature, smoothing):
    loss = losses.CrossEntropy(temperature, smoothing)
    value, gradient = value_and_gradient(loss, reference["logits"], reference["class_targets"])
    key = f"ce_tau{temperature}_ls{smoothing}"
    np.testing.assert_allclose(value, reference[f"{key}_loss"], rtol=1e-12)
    agree("cross-entropy", gradient, reference[f"{key}_grad"], 1e-12)
    expected = twin.cross_entropy(reference["logits"], reference["class_targets"], temperature, smoothing)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("branches", ["SG", "MG", "GS", "SM"])
def test_head_is_the_reference_programs(reference, branches):
    head = CombinedDescriptors(24, branches=branches, n_components=16).double()
    with torch.no_grad():
        for layer, weight in zip(head.reductions, reference["head_fc"], strict=True):
            layer.weight.copy_(torch.tensor(weight))
    x = torch.tensor(reference["head_x"])
    agree("cgd-head", head(x).detach(), reference[f"head_{branches}"], 1e-12)
    first = head.descriptors(x)[0].detach()
    np.testing.assert_allclose(first, reference[f"head_{branches}_aux"], rtol=1e-10, atol=1e-12)


@each
def test_losses_are_their_definitions(loss, definition, batch, rng):
    x, labels = batch
    for array, classes in ((x, labels), (x * 0.1, labels), (x[:4], labels[:4]), (rng.normal(size=(12, 3)), [0, 1] * 6)):
        found = loss(torch.tensor(array), torch.tensor(classes))
        np.testing.assert_allclose(found, definition(array, np.asarray(classes)), rtol=1e-9)
        single = loss(torch.tensor(array).float(), torch.tensor(classes))
        np.testing.assert_allclose(single, definition(array, np.asarray(classes)), rtol=1e-4)


@each
def test_gradients_are_finite_differences(loss, definition, batch):
    x, labels = batch
    assert torch.autograd.gradcheck(lambda v: loss(v, torch.tensor(labels)), torch.tensor(x, requires_grad=True))


@each
def test_order_of_a_batch_does_not_matter_and_moving_against_the_gradient_helps(loss, definition, batch, rng):
    x, labels = batch
    order = rng.permutation(len(x))
    value, gradient = value_and_gradient(loss, x, labels)
    np.testing.assert_allclose(loss(torch.tensor(x[order]), torch.tensor(labels[order])), value, rtol=1e-12)
    assert loss(torch.tensor(x - 1e-3 * gradient), torch.tensor(labels)) < value


@each
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5]])
def test_batches_without_positives_or_negatives_have_finite_gradients(loss, definition, labels):
    x = torch.ones(len(labels), 4, requires_grad=True)
    loss(x, torch.tensor(labels)).backward()
    assert bool(torch.isfinite(x.grad).all())


@each
def test_repeated_vectors_have_finite_gradients(loss, definition):
    x = torch.ones(4, 3, requires_grad=True)
    value = loss(x, torch.tensor([0, 0, 1, 1]))
    value.backward()
    assert bool(torch.isfinite(value)) and bool(torch.isfinite(x.grad).all())


@each
def test_half_precision_is_computed_in_single(loss, definition, batch):
    x, labels = (torch.tensor(array) for array in batch)
    found = loss(x.bfloat16(), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(x.bfloat16().float(), labels))


def test_weak_ranking_is_its_definition(rng):
    query, positives, negatives = rng.normal(size=6), rng.normal(size=(4, 6)), rng.normal(size=(7, 6))
    loss = losses.WeaklySupervisedRanking(0.4)
    arrays = [torch.tensor(array, requires_grad=True) for array in (query, positives, negatives)]
    np.testing.assert_allclose(loss(*arrays).detach(), twin.weak_ranking(query, positives, negatives, 0.4), rtol=1e-12)
    assert torch.autograd.gradcheck(loss, arrays)
    with pytest.raises(ValueError, match="needs potential positives and negatives. Got 0 and 7"):
        loss(arrays[0], arrays[1][:0], arrays[2])


def test_bad_losses_are_refused():
    with pytest.raises(ValueError, match="'margin' parameter of BatchHardTriplet"):
        losses.BatchHardTriplet(-0.1)
    with pytest.raises(ValueError, match="'temperature' parameter of CrossEntropy"):
        losses.CrossEntropy(0)
    with pytest.raises(ValueError, match="'label_smoothing' parameter of CrossEntropy"):
        losses.CrossEntropy(label_smoothing=1)
    with pytest.raises(ValueError, match=r"Got shapes \[3, 2\] and \[4\]"):
        losses.Contrastive()(torch.zeros(3, 2), torch.zeros(4))


@pytest.mark.parametrize("combine", ["concatenate", "concatenate_before_fc", "sum_before_fc"])
def test_heads_by_their_definitions(combine, rng):
    head = CombinedDescriptors(5, branches="SGM", n_components=6, p=2.0, train_p=True, combine=combine).double()
    x = torch.tensor(rng.random((3, 5, 4, 3)))
    parts = [x.mean((2, 3)), GeM(2.0).double()(x), MAC()(x)]
    if combine == "concatenate":
        weighted = [F.normalize(p @ layer.weight.T) for p, layer in zip(parts, head.reductions, strict=True)]
        expected = torch.cat(weighted, 1) / np.sqrt(3)
        assert [tuple(layer.weight.shape) for layer in head.reductions] == [(2, 5)] * 3
    else:
        unit = [F.normalize(part) for part in parts]
        together = torch.cat(unit, 1) if combine == "concatenate_before_fc" else sum(unit)
        expected = F.normalize(together @ head.reductions[0].weight.T)
    torch.testing.assert_close(head(x), expected)
    assert torch.autograd.gradcheck(head, x.requires_grad_())


def test_exponents_are_trained_where_asked():
    fixed, trained = (CombinedDescriptors(4, branches="G", n_components=2, train_p=train) for train in (False, True))
    for head in (fixed, trained):
        head(torch.rand(2, 4, 3, 3)).sum().backward()
    assert fixed.poolings[0].p.grad is None and trained.poolings[0].p.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": "MX"}, "letters out of S, M and G.*Got 'MX'"),
        ({"branches": "MM"}, "at most once"),
        ({"branches": ""}, "'branches' parameter of CombinedDescriptors"),
        ({"branches": "SGM", "n_components": 10}, "a multiple of the 3 branches. Got 10"),
        ({"combine": "mean"}, "'combine' parameter of CombinedDescriptors"),
        ({"branches": "G", "p": -1.0}, "'p' parameter of GeM"),
    ],
)
def test_bad_heads_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CombinedDescriptors(4, **{"n_components": 4, **options})
    with pytest.raises(ValueError, match="has 3 channels, but the layer was made for 4"):
        CombinedDescriptors(4, n_components=4)(torch.zeros(1, 3, 2, 2))
