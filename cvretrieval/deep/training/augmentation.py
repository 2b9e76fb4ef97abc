"""Images as training sees them: a random part of a square, mirrored or not, or what a given function makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cvretrieval._validation import check_choice
from cvretrieval.deep.backbones.torchvision_import import import_torchvision
from cvretrieval.deep.inference.fixed_size import FixedSizeReader
from cvretrieval.deep.training.seeded_draws import SeededDraws
from cvretrieval.images import ImageReader

#: Augmentations by name.
AUGMENTATIONS = ("random_resized_crop", "trivial_augment")

_N_TRIALS = 4


class CropReader:
    """Reads images as squares of one size and cuts a random square out of each.

    Parameters
    ----------
    reader : ImageReader
    resize_to : int
        Side in pixels of the square that the whole image becomes, out of proportion.
    crop_to : int
        Side of what is cut out.
    flip : bool
        Mirror every other image, left to right.
    """

    def __init__(self, reader: ImageReader, resize_to: int, crop_to: int, flip: bool) -> None:
        self.reader = FixedSizeReader(reader, resize_to, "squash")
        self.room = resize_to - crop_to
        self.crop_to = crop_to
        self.flip = flip

    def read(self, source: Any, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image (crop_to, crop_to, 3), RGB; what is drawn depends on `rng` alone."""
        top, left = rng.integers(self.room + 1, size=2)
        is_flipped = self.flip and rng.random() < 0.5
        pixels = self.reader.read(source).pixels[top : top + self.crop_to, left : left + self.crop_to]
        return pixels[:, ::-1] if is_flipped else pixels


class AugmentingReader:
    """Reads images and hands each to a function that makes a square of it.

    Parameters
    ----------
    read : callable
        From a source and a generator of numpy to pixels (H, W, 3), uint8.
    augment : callable
        From a tensor (3, H, W), uint8, to one (3, size, size), uint8. It draws by functions of torch.
    size : int
    """

    def __init__(
        self,
        read: Callable[[Any, np.random.Generator], NDArray[np.uint8]],
        augment: Callable[[torch.Tensor], torch.Tensor],
        size: int,
    ) -> None:
        self._read = read
        self._augment = augment
        self._size = size

    def read(self, source: Any, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image (size, size, 3), RGB; what is drawn by torch depends on `rng` alone."""
        pixels = np.ascontiguousarray(self._read(source, rng))
        # A copy: a transform may work in place, and pixels may be the caller's.
        image = torch.tensor(pixels.transpose(2, 0, 1))
        with torch.no_grad(), SeededDraws(int(rng.integers(2**63))):
            found = self._augment(image)
        expected = (3, self._size, self._size)
        if not isinstance(found, torch.Tensor) or found.dtype != torch.uint8 or tuple(found.shape) != expected:
            got = f"{found.dtype} of shape {tuple(found.shape)}" if hasattr(found, "dtype") else type(found).__name__
            raise ValueError(
                f"augment must return tensors of shape {expected}, uint8 (input_size; the network normalises by "
                f"itself). Got {got}."
            )
        made: NDArray[np.uint8] = found.permute(1, 2, 0).numpy()
        return made

    def check_repeatable(self, source: Any) -> None:
        """Check on an image that the same seed gives the same image, and that no other generator is drawn from.

        Raises
        ------
        ValueError
            If not.
        """
        state = torch.get_rng_state()
        for seed in range(_N_TRIALS):
            one, other = (self.read(source, np.random.default_rng(seed)) for _ in range(2))
            if not np.array_equal(one, other) or not torch.equal(state, torch.get_rng_state()):
                raise ValueError(
                    "augment makes different images with the same seed, so training could not be repeated. Let it draw "
                    "by functions of torch alone, as the transforms of torchvision.transforms.v2 do."
                )


def make_training_reader(
    reader: ImageReader, augment: Any, resize_to: int, size: int, flip: bool
) -> CropReader | AugmentingReader:
    """Return what reads training images; `augment` is None, a name of `AUGMENTATIONS`, or a callable."""
    if augment is None:
        return CropReader(reader, resize_to, size, flip)
    if augment == "trivial_augment":
        v2 = import_torchvision("torchvision.transforms.v2")
        return AugmentingReader(CropReader(reader, resize_to, size, flip).read, v2.TrivialAugmentWide(), size)

    def read(source: Any, _: np.random.Generator) -> NDArray[np.uint8]:
        return reader.read(source, color="rgb").pixels

    if augment == "random_resized_crop":
        v2 = import_torchvision("torchvision.transforms.v2")
        steps = [v2.RandomResizedCrop(size, scale=(0.16, 1.0)), v2.RandomHorizontalFlip(0.5 if flip else 0.0)]
        return AugmentingReader(read, v2.Compose(steps), size)
    return AugmentingReader(read, augment, size)


def check_augmentation(owner: Any, augment: Any) -> None:
    """Refuse what is neither None, nor a name, nor a callable that scikit-learn leaves alone."""
    if callable(augment) and hasattr(augment, "get_params"):
        kind = type(augment).__name__
        raise TypeError(
            f"The 'augment' parameter is a {kind}, whose get_params scikit-learn would take for an estimator's when it "
            f"clones. Wrap it: v2.Compose([{kind}(…)])."
        )
    if augment is not None and not callable(augment):
        check_choice(owner, "augment", augment, AUGMENTATIONS)
