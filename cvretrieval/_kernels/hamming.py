"""Hamming distances of binary descriptors, 64 bits at a time."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

_PAIRS = np.uint64(0x5555555555555555)
_FOURS = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM = np.uint64(0x0101010101010101)
_1, _2, _4, _56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@njit(inline=True)
def count_ones(bits):
    """Number of ones in a uint64: sums of 2, of 4, of 8 bits, then all bytes by one product.

    LLVM recognises the pattern and puts the processor's own instruction in its place.
    """
    bits = bits - ((bits >> _1) & _PAIRS)
    bits = (bits & _FOURS) + ((bits >> _2) & _FOURS)
    return (((bits + (bits >> _4)) & _BYTES) * _SUM) >> _56


@njit
def pack_bytes(descriptors):
    """Return descriptors as uint64 (n_descriptors, ceil(n_bytes / 8)): byte b is byte b mod 8 of word b div 8.

    Missing bytes of the last word are zero: they differ from nothing.

    Parameters
    ----------
    descriptors : uint8 (n_descriptors, n_bytes)
    """
    n_descriptors, n_bytes = descriptors.shape
    packed = np.zeros((n_descriptors, (n_bytes + 7) // 8), dtype=np.uint64)
    for i in range(n_descriptors):
        for b in range(n_bytes):
            packed[i, b // 8] |= np.uint64(descriptors[i, b]) << np.uint64(8 * (b % 8))
    return packed


@njit
def hamming_distances(rows, columns, distances):
    """distances[j, i] = number of bits in which row j and column i differ.

    Parameters
    ----------
    rows : uint64 (n_rows, n_words)
        Binary descriptors as `pack_bytes` returns them.
    columns : uint64 (n_columns, n_words)
    distances : float32 (n_rows, n_columns)
        Whole numbers.  # OUT
    """
    n_rows, n_words = rows.shape
    n_columns = len(columns)
    for j in range(n_rows):
        for i in range(n_columns):
            total = np.uint64(0)
            for k in range(n_words):
                total += count_ones(rows[j, k] ^ columns[i, k])
            distances[j, i] = total


@njit
def nearest_by_hamming(rows, centers, words, distances):
    """words[i] = argmin_k of the Hamming distance of row i and centre k, ties to the lowest k; and that distance.

    Parameters
    ----------
    rows : uint64 (n_rows, n_words)
    centers : uint64 (n_centers, n_words)
    words : int32 (n_rows,)
        # OUT
    distances : int32 (n_rows,)
        # OUT
    """
    n_rows, n_words = rows.shape
    for i in range(n_rows):
        least, at = np.uint64(64 * n_words + 1), 0
        for k in range(len(centers)):
            total = np.uint64(0)
            for w in range(n_words):
                total += count_ones(rows[i, w] ^ centers[k, w])
            if total < least:
                least, at = total, k
        words[i] = at
        distances[i] = least


@njit
def count_bits(descriptors, words, ones, sizes):
    """Count the ones of each bit over the descriptors of each word: ones[k, b] += Σ_{i: w_i = k} bit b of x_i.

    Bit b is bit 7 − b mod 8 of byte b div 8, numpy's order in ``unpackbits``.

    Parameters
    ----------
    descriptors : uint8 (n_descriptors, n_bytes)
    words : int32 (n_descriptors,)
    ones : int64 (n_words, 8 n_bytes)
        # OUT, added to
    sizes : int64 (n_words,)
        Number of descriptors of each word.  # OUT, added to
    """
    n_descriptors, n_bytes = descriptors.shape
    for i in range(n_descriptors):
        k = words[i]
        sizes[k] += 1
        for byte in range(n_bytes):
            value = np.int64(descriptors[i, byte])
            for bit in range(8):
                ones[k, 8 * byte + bit] += (value >> (7 - bit)) & 1
