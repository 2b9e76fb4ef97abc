"""Activations of fully connected layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.deep.descriptors.base import MapDescriptor
from cvretrieval.deep.inference.batches import ImageSource, limited_reader
from cvretrieval.deep.inference.fixed_size import RESIZINGS, FixedSizeReader
from cvretrieval.images import ImageReader


class NeuralCodes(MapDescriptor):
    """Neural codes: what a layer of a network, by custom a fully connected one, answers to an image of fixed size.

    Parameters
    ----------
    backbone : str, Module or Backbone, default="vgg16"
        The network: a name, or a module that returns vectors (B, D) or maps, or a `Backbone` whose `layer` names the
        layer. Without one it is what the last fully connected layer takes: fc7 of VGG and AlexNet, the pooled map of
        ResNet and MobileNet, the scores of the classes of SqueezeNet, which has no such layer.
    input_size : int, default=224
        Side in pixels of the square that every image becomes: what the network was trained with.
    resize : {"squash", "crop"}, default="squash"
        How it becomes one. "squash" resizes both sides, so that all of the image is seen, out of proportion; "crop"
        resizes the square in its middle, and leaves out what is beside it.
    relu : bool, default=True
        Set negative activations to zero, as the paper does; without effect on a layer that is a ReLU or follows one.
    norm : {"l2", None}, default="l2"
        L2-normalise the vectors.
    reader : ImageReader, optional
        How images are read before; the default one if None.
    device : str or torch.device, default="auto"
        "auto" is a GPU where there is one.
    dtype : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in; vectors are float32.
    batch_size : int, default=16
        Images that are computed at once. Halved, with a warning, where memory does not suffice.
    n_workers : int or None, default=4
        Threads that read images while the network runs; None is 1, -1 as many as there are processors.
    verbose : bool, default=False
        Show a progress bar on a terminal.

    Notes
    -----
    Activations of the layer, ReLU, L2. The paper compares the outputs of the last convolutional part, which is
    flattened (its L5), and of the first and second fully connected layer (L6 and L7), and finds L6 the best:
    ``Backbone("vgg16", layer="classifier.0")``, of AlexNet "classifier.1"; L7 are "classifier.3" and "classifier.4".
    These are the layers before their ReLU, for ``relu=False``; the next number is after it. Compressed codes are
    ``make_pipeline(NeuralCodes(…), PCAWhitening(128, power=0))``.

    Images are enlarged, too, if they are smaller than `input_size`.

    References
    ----------
    .. [1] A. Babenko, A. Slesarev, A. Chigorin and V. Lempitsky, "Neural codes for image retrieval", ECCV 2014,
       section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval.deep import Backbone, NeuralCodes
    >>> images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    >>> NeuralCodes(Backbone("mobilenet_v2", weights=None), input_size=96).transform(images).shape
    (2, 1280)
    >>> NeuralCodes(Backbone("mobilenet_v2", weights=None, layer="classifier"), relu=False).transform(images).shape
    (2, 1000)
    """

    scales = (1.0,)
    image_size = None

    def __init__(
        self,
        backbone: Any = "vgg16",
        *,
        input_size: int = 224,
        resize: str = "squash",
        relu: bool = True,
        norm: str | None = "l2",
        reader: ImageReader | None = None,
        device: Any = "auto",
        dtype: str = "float32",
        batch_size: int = 16,
        n_workers: int | None = 4,
        verbose: bool | int = False,
    ) -> None:
        self.backbone = backbone
        self.input_size = input_size
        self.resize = resize
        self.relu = relu
        self.norm = norm
        self.reader = reader
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.n_workers = n_workers
        self.verbose = verbose

    def _make_pooling(self, n_channels: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.ReLU() if self.relu else nn.Identity())

    def _pooling_key(self) -> tuple[Any, ...]:
        return (self.relu,)

    def _check_pooling(self) -> None:
        check_number(self, "input_size", self.input_size, low=1, integer=True)
        check_choice(self, "resize", self.resize, RESIZINGS)
        check_flag(self, "relu", self.relu)

    def _image_reader(self) -> ImageSource:
        return FixedSizeReader(limited_reader(self.reader, None), int(self.input_size), self.resize)

    def _network_options(self) -> dict[str, Any]:
        return {"size": int(self.input_size), "end": "vector"}

    @property
    def _n_features_out(self) -> int:
        return self._prepare().n_values
