"""The NetVLAD models of its authors, as MATLAB structures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from cvretrieval._validation import StoreError
from cvretrieval.deep.backbones import Backbone
from cvretrieval.deep.backbones.matconvnet import read_matconvnet
from cvretrieval.deep.descriptors import NetVLAD
from cvretrieval.deep.published.projections import linear_layer

# Layers of VGG16 up to conv5_3 without its ReLU; the normalisation of pixels; NetVLAD; after two normalisations the
# whitening, a convolution.
_LAST_CONVOLUTION, _NETVLAD, _WHITENING = 28, 30, 33


def load_netvlad(path: str | os.PathLike[str], *, whitening: bool = True, **parameters: Any) -> Any:
    """Return NetVLAD of VGG16 as its authors trained it, as a fitted estimator: images → vectors.

    Parameters
    ----------
    path : path
        ``Pitts30K_struct.mat`` or ``TokyoTM_struct.mat``, the authors' models converted to plain MATLAB structures, as
        hloc uses them ("VGG16-NetVLAD-Pitts30K"). The estimator reads the network from there whenever it is used.
    whitening : bool, default=True
        Whiten to 4096 dimensions, as the authors do. The whole takes a minute to load: the projection has half a
        gigabyte.
    **parameters
        Of `NetVLAD`: ``scales``, ``image_size``, ``device``, ``dtype``, ``batch_size``, ``n_workers``, ….

    Returns
    -------
    FrozenEstimator
        Of `NetVLAD`, or of a Pipeline of it and `LearnedWhitening`: ``fit`` leaves it as it is.

    Raises
    ------
    StoreError
        If the file is no such structure, or damaged.

    Notes
    -----
    Numbers alone are taken from the file. Layout, from hloc's ``extractors/netvlad.py`` and the conversion in
    uzh-rpg/netvlad_tf_open: ``net.layers`` begins with VGG16, whose filters are (height, width, in, out); layer 30 has
    the weights of the assignment, (n_channels, n_clusters), and the centres with their sign reversed; layer 33 is the
    whitening of vectors in which the cluster index runs fastest. ``net.meta.normalization.averageImage`` is subtracted
    from R, G, B in [0, 255].

    References
    ----------
    .. [1] R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, "NetVLAD: CNN architecture for weakly
       supervised place recognition", CVPR 2016.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: give a file of NetVLAD.")
    net = read_matconvnet(path)
    if net.mean is None or len(net.layers) <= _NETVLAD or len(net.layers[_NETVLAD]) != 2:
        raise StoreError(f"{path} holds no NetVLAD of VGG16 with the mean of its images.")
    assignment: NDArray[Any] = np.asarray(net.layers[_NETVLAD][0], dtype=np.float32)
    assignment = assignment.reshape(assignment.shape[-2:])
    centers: NDArray[Any] = np.asarray(net.layers[_NETVLAD][1], dtype=np.float32)
    if list(assignment.shape) != list(centers.shape):
        raise StoreError(f"{path}: layer {_NETVLAD} has an assignment {assignment.shape} and centres {centers.shape}.")
    n_channels, n_clusters = centers.shape[0], centers.shape[1]
    estimator = NetVLAD(
        Backbone(
            "vgg16",
            weights=path,
            layer=f"features.{_LAST_CONVOLUTION}",
            mean=tuple(float(value) / 255 for value in net.mean),
            std=(1 / 255,) * 3,
        ),
        n_clusters=n_clusters,
        form="authors",
        **parameters,
    )
    estimator.centers_ = np.ascontiguousarray(-centers.T)
    estimator.assignment_ = np.ascontiguousarray(assignment.T)
    estimator.alpha_ = 1.0
    estimator.remember_network()
    if not whitening:
        return FrozenEstimator(estimator)
    if len(net.layers) <= _WHITENING or len(net.layers[_WHITENING]) != 2:
        raise StoreError(f"{path} has no whitening at layer {_WHITENING}; give whitening=False.")
    weight, bias = net.layers[_WHITENING]
    rows = weight.reshape(weight.shape[-2:]).T
    if rows.shape[1] != n_channels * n_clusters:
        raise StoreError(f"{path}: the whitening takes {rows.shape[1]} of {n_channels * n_clusters} dimensions.")
    by_cluster = rows.reshape(len(rows), n_channels, n_clusters).transpose(0, 2, 1).reshape(len(rows), -1)
    return FrozenEstimator(make_pipeline(estimator, linear_layer(by_cluster, bias)))
