"""Product quantisation, written from the definitions on whole vectors."""

from __future__ import annotations

import numpy as np


def encode(vectors, codewords, bounds):
    """Codes (n_vectors, n_subvectors): the nearest codeword of each sub-vector, ties to the lowest."""
    codes = np.empty((len(vectors), len(bounds) - 1), dtype=np.uint8)
    for i, x in enumerate(vectors.astype(np.float64)):
        for m in range(len(bounds) - 1):
            part = slice(bounds[m], bounds[m + 1])
            codes[i, m] = ((x[part] - codewords[:, part].astype(np.float64)) ** 2).sum(axis=1).argmin()
    return codes


def decode(codes, codewords, bounds):
    """The vectors that codes stand for, float64."""
    decoded = np.empty((len(codes), bounds[-1]))
    for i, code in enumerate(codes):
        for m in range(len(bounds) - 1):
            decoded[i, bounds[m] : bounds[m + 1]] = codewords[code[m], bounds[m] : bounds[m + 1]]
    return decoded
