"""What training makes of images: transforms of torchvision, the same for the same seed, in any number of threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torchvision.transforms import v2

from cvretrieval import ImageReader
from cvretrieval.deep import CGD, GeM
from cvretrieval.deep.training import trainer as training_loop
from cvretrieval.deep.training.augmentation import AugmentingReader, CropReader, make_training_reader
from cvretrieval.deep.training.seeded_draws import SeededDraws
from tests.deep.test_training import NAMED, Small, photos, small, tuned  # noqa: F401

#: Each draws in a way of its own.
TRANSFORMS = {
    "resized crop": v2.RandomResizedCrop(32),
    "trivial": v2.Compose([v2.RandomCrop(32), v2.TrivialAugmentWide()]),
    "mix": v2.Compose([v2.AugMix(), v2.RandomCrop(32)]),
    "rand": v2.Compose([v2.RandAugment(), v2.RandomCrop(32)]),
    "jitter": v2.Compose([v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomCrop(32)]),
    "choice": v2.Compose([v2.RandomChoice([v2.RandomInvert(1.0), v2.RandomRotation(30)]), v2.RandomCrop(32)]),
    "erasing": v2.Compose([v2.RandomErasing(1.0), v2.RandomCrop(32)]),
    "elastic": v2.Compose([v2.ElasticTransform(), v2.RandomCrop(32)]),
    "order": v2.RandomOrder([v2.RandomHorizontalFlip(), v2.RandomCrop(32)]),
    "noise": lambda x: ((x[:, :32, :32] / 255 + 0.1 * torch.randn_like(x[:, :32, :32] / 255)).clip(0, 1) * 255).byte(),
}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_transforms_draw_from_the_seed_alone(rng, name):
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    kept = image.copy()
    reader = make_training_reader(ImageReader(), TRANSFORMS[name], 36, 32, True)
    state = torch.get_rng_state()

    def read(seed):
        return reader.read(image, np.random.default_rng(seed))

    expected = [read(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(read, range(12))), expected)
    assert torch.equal(torch.get_rng_state(), state) and len({found.tobytes() for found in expected}) > 6
    np.testing.assert_array_equal(image, kept)
    reader.check_repeatable(image)
    # What the transform returns, pixel for pixel.
    with SeededDraws(int(np.random.default_rng(3).integers(2**63))):
        by_hand = TRANSFORMS[name](torch.tensor(image).permute(2, 0, 1).contiguous())
    np.testing.assert_array_equal(expected[3], by_hand.permute(1, 2, 0))


def test_seeded_draws_are_those_of_a_generator():
    generator = torch.Generator().manual_seed(5)
    expected = [torch.rand(3, generator=generator), torch.empty(2).uniform_(1, 2, generator=generator),
                torch.randn(2, 2, generator=generator)]  # fmt: skip
    with SeededDraws(5):
        found = [torch.rand(3), torch.empty(2).uniform_(1, 2), torch.randn_like(torch.ones(2, 2))]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    given = torch.Generator().manual_seed(1)
    with SeededDraws(5):
        kept = torch.rand(3, generator=given)
    assert torch.equal(kept, torch.rand(3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: x[:, : 32 + random.randrange(2) * 0, :32] * random.randrange(2),
        lambda x: (x[:, :32, :32] * np.random.rand()).byte(),  # noqa: NPY002
        lambda x: (torch.nn.functional.dropout(x[:, :32, :32] * 1.0)).byte(),
    ],
    ids=["random", "numpy", "dropout"],
)
def test_other_draws_are_refused(photos, augment):  # noqa: F811
    with pytest.raises(ValueError, match="augment makes different images with the same seed"):
        small(augment=augment).fit(*photos)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (v2.Compose([v2.RandomCrop(31)]), r"shape \(3, 32, 32\), uint8 .* Got torch.uint8 of shape \(3, 31, 31\)"),
        (v2.Compose([v2.RandomCrop(32), v2.ToDtype(torch.float32, scale=True)]), "Got torch.float32 of shape"),
        (lambda x: x.numpy(), "Got uint8 of shape"),
        (lambda x: None, "Got NoneType"),
        ("flip", "'augment' parameter of CGD must be one of 'random_resized_crop', 'trivial_augment'. Got 'flip'"),
        (3, "'augment' parameter of CGD must be one of"),
    ],
)
def test_what_an_augmentation_returns(photos, augment, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        small(augment=augment).fit(*photos)


def test_names_are_recipes(rng):
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    assert isinstance(make_training_reader(ImageReader(), None, 36, 32, True), CropReader)
    for flip in (True, False):
        cropped = make_training_reader(ImageReader(), "random_resized_crop", 36, 32, flip)
        assert isinstance(cropped, AugmentingReader)
        flat = np.zeros((60, 80, 3), dtype=np.uint8)
        flat[:, :, 0] = np.arange(80) * 3  # darker to the left
        found = [cropped.read(flat, np.random.default_rng(seed)) for seed in range(20)]
        mirrored = sum(int(one[0, 0, 0] > one[0, -1, 0]) for one in found)
        assert 4 < mirrored < 16 if flip else mirrored == 0
        widths = [abs(int(one[0, 0, 0]) - int(one[0, -1, 0])) / 3 for one in found]
        assert min(widths) < 45 and max(widths) > 55  # parts of several sizes
    trivial = make_training_reader(ImageReader(), "trivial_augment", 36, 32, True)
    crops = CropReader(ImageReader(), 36, 32, True)
    pairs = [(trivial.read(image, np.random.default_rng(s)), crops.read(image, np.random.default_rng(s)))
             for s in range(20)]  # fmt: skip
    assert all(one.shape == other.shape for one, other in pairs)
    assert sum(not np.array_equal(one, other) for one, other in pairs) > 10


def test_an_augmented_training_is_resumed_bit_by_bit(photos, tmp_path, monkeypatch):  # noqa: F811
    images, labels = photos
    cgd = small(augment=TRANSFORMS["trivial"])  # and dropout, which draws from torch, too
    whole = clone(cgd).fit(images, labels)
    threads = clone(cgd).set_params(n_workers=3).fit(images, labels)
    np.testing.assert_array_equal(threads.weights_, whole.weights_)
    assert not np.array_equal(small().fit(images, labels).weights_, whole.weights_)
    original = training_loop.Trainer._epoch

    def interrupted(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.Trainer, "_epoch", interrupted)
        with pytest.warns(UserWarning, match="interrupted after epoch 1 of 3"):
            clone(cgd).fit(images, labels, checkpoint_to=tmp_path)
    resumed = clone(cgd).fit(images, labels, resume_from=tmp_path)
    np.testing.assert_array_equal(resumed.weights_, whole.weights_)
    with pytest.raises(Exception, match="of another training: augment was"):
        clone(cgd).set_params(augment="trivial_augment").fit(images, labels, resume_from=tmp_path)


def test_a_callable_is_taken_out_to_be_stored(photos, tmp_path):  # noqa: F811
    images, labels = photos
    cgd = small(backbone=NAMED, augment=v2.Compose([v2.RandomCrop(32)]), n_epochs=1).fit(images, labels)
    with pytest.raises(TypeError, match=r"CGD\.augment is a Compose, which cannot be stored"):
        cgd.save(tmp_path / "cgd.cvm")
    expected = cgd.transform(images[:2])
    loaded = CGD.load(cgd.set_params(augment=None).save(tmp_path / "cgd.cvm"))
    np.testing.assert_array_equal(loaded.transform(images[:2]), expected)


def test_transforms_that_look_like_estimators_are_to_be_wrapped(photos):  # noqa: F811
    with pytest.raises(TypeError, match=r"is a RandomCrop, whose get_params .* Wrap it: v2.Compose\(\[RandomCrop"):
        small(augment=v2.RandomCrop(32)).fit(*photos)


def test_fine_tuning_is_augmented(photos):  # noqa: F811
    images, labels = photos
    plain, other = (
        tuned(GeM(Small()), augment=augment, n_epochs=1).fit(images, labels)
        for augment in (None, "random_resized_crop")
    )
    assert not np.array_equal(plain.weights_, other.weights_)
