"""Ranking losses from elsewhere: those of the form of pytorch-metric-learning, and its own where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from cvretrieval.deep import FineTuned, GeM
from cvretrieval.deep.losses import BatchHardTriplet, Mined, MultiSimilarity
from cvretrieval.deep.training import trainer as training_loop
from tests.deep.test_training import NAMED, Small, photos, small, tuned  # noqa: F401
from tests.deep.training_process import Proxies


def batch(rng, n_classes=5, n_dims=6):
    vectors = torch.tensor(rng.normal(size=(24, n_dims)), requires_grad=True)
    return vectors, torch.tensor(rng.integers(0, n_classes, 24))


def test_a_mined_loss_sees_what_the_miner_chose(rng):
    vectors, labels = batch(rng)
    seen = []

    def loss(embeddings, classes, chosen):
        seen.append((embeddings, classes, chosen))
        return embeddings[chosen[0]].sum()

    found = Mined(loss, lambda embeddings, classes: (classes.argsort()[:3], embeddings.shape))(vectors, labels)
    torch.testing.assert_close(found, vectors[labels.argsort()[:3]].sum())
    assert seen[0][0] is vectors and seen[0][1] is labels and seen[0][2][1] == vectors.shape
    assert "loss=" in repr(Mined(loss, loss)) and "MultiSimilarity" in repr(Mined(MultiSimilarity(), loss))


def test_weights_of_a_loss_are_trained_and_resumed(photos, tmp_path, monkeypatch):  # noqa: F811
    images, labels = photos
    proxies = Proxies(3, 8)
    before = proxies.proxies.detach().clone()
    cgd = small(ranking_loss=proxies, classification_weight=0)
    trained = {}
    original = training_loop.Trainer._keep

    def keep(self, row):
        original(self, row)
        trained.update({name: value for name, value in self.kept.items() if name.startswith("ranking.")})

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_keep", keep)
        whole = clone(cgd).fit(images, labels)
    moved = (trained["ranking.proxies"] - before).abs()
    assert moved.min() > 0 and torch.equal(proxies.proxies, before)
    assert not any(name.startswith("ranking.") for name, _, _ in whole.layout_)
    assert whole.history_["loss"][-1] < whole.history_["loss"][0]
    epoch = training_loop.Trainer._epoch

    def interrupted(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_epoch", interrupted)
        with pytest.warns(UserWarning, match="interrupted after epoch 2 of 3"):
            clone(cgd).fit(images, labels, checkpoint_to=tmp_path)
    resumed = clone(cgd).fit(images, labels, resume_from=tmp_path)
    np.testing.assert_array_equal(resumed.weights_, whole.weights_)


def test_fine_tuning_with_a_given_module(photos):  # noqa: F811
    images, labels = photos
    model = tuned(GeM(Small()), ranking_loss=Proxies(3, 12), n_epochs=1).fit(images, labels)
    assert isinstance(model, FineTuned) and np.isfinite(model.history_["ranking"]).all()


class TestPytorchMetricLearning:
    """Its losses and miners as they are."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("pytorch_metric_learning")

    @pytest.mark.parametrize("name", ["batch hard", "multi-similarity"])
    def test_losses_that_it_has_agree(self, rng, name):
        from pytorch_metric_learning import distances, losses, miners, reducers

        if name == "batch hard":
            plain = distances.LpDistance(normalize_embeddings=False)
            theirs = Mined(losses.TripletMarginLoss(margin=0.3, distance=plain, reducer=reducers.MeanReducer()),
                           miners.BatchHardMiner(distance=plain))  # fmt: skip
            own = BatchHardTriplet(margin=0.3)
        else:
            theirs = Mined(losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5), miners.MultiSimilarityMiner(0.1))
            own = MultiSimilarity(alpha=2, beta=50, base=0.5, margin=0.1)
        vectors = torch.tensor(rng.normal(size=(24, 6)), requires_grad=True)
        labels = torch.tensor(rng.integers(0, 5, 24))
        gradients = []
        for loss in (theirs, own):
            value = loss(vectors, labels)
            gradients.append((value, *torch.autograd.grad(value, vectors)))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)

    def test_they_are_trained_with(self, photos):  # noqa: F811
        from pytorch_metric_learning import losses, miners

        images, labels = photos
        for loss in (
            losses.ProxyAnchorLoss(num_classes=3, embedding_size=8),
            losses.NTXentLoss(),
            Mined(losses.TripletMarginLoss(margin=0.2), miners.MultiSimilarityMiner()),
        ):
            cgd = small(ranking_loss=loss, n_epochs=1, classification_weight=0).fit(images, labels)
            assert np.isfinite(cgd.history_["loss"]).all() and cgd.transform(images).shape == (12, 8)
