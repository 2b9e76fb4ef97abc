"""Poolings of feature maps (C, H, W) by their definitions, in float64, one image, loops over pixels and regions."""

from __future__ import annotations

import numpy as np


def unit(vector):
    return vector / max(np.sqrt((vector**2).sum()), 1e-12)


def mac(x):
    return np.array([channel.max() for channel in x])


def spoc(x, center_prior=True):
    _, height, width = x.shape
    sigma = min(height, width) / 6
    total = np.zeros(len(x))
    for i in range(height):
        for j in range(width):
            distance = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
            total += x[:, i, j] * (np.exp(-distance / (2 * sigma**2)) if center_prior else 1.0)
    return total


def gem(x, p, eps=1e-6, weights=None):
    w = np.ones(x.shape[1:]) if weights is None else weights
    powers = [(w * np.maximum(channel, eps) ** q).sum() / w.sum() for channel, q in zip(x, p, strict=True)]
    return np.array(powers) ** (1 / np.asarray(p))


def crow(x, spatial_weighting=True, channel_weighting=True):
    total = x.sum(0)
    weights = np.sqrt(total / np.sqrt((total**2).sum())) if spatial_weighting else np.ones(x.shape[1:])
    pooled = np.array([(channel * weights).sum() for channel in x])
    density = np.array([(channel != 0).mean() for channel in x])
    idf = np.array([np.log(density.sum() / q) if q > 0 else 0.0 for q in density])
    return pooled * idf if channel_weighting else pooled


def rmac(x, regions, whiten=None, include_global=False):
    total = 0.0
    areas = [x[:, top : top + side, left : left + side] for _, top, left, side in regions]
    for area in [*areas, x] if include_global else areas:
        vector = unit(area.max((1, 2)))
        total = total + (vector if whiten is None else unit(whiten(vector)))
    return unit(total)


def netvlad(x, centers, alpha, form="paper", normalize_input=True):
    columns = x.reshape(len(x), -1).T
    if normalize_input:
        columns = np.array([unit(column) for column in columns])
    blocks = np.zeros(centers.shape)
    for column in columns:
        if form == "paper":
            scores = -alpha * ((column - centers) ** 2).sum(1)
        else:
            scores = alpha * np.array([column @ unit(center) for center in centers])
        shares = np.exp(scores - scores.max())
        blocks += (shares / shares.sum())[:, None] * (column - centers)
    return unit(np.concatenate([unit(block) for block in blocks]))
