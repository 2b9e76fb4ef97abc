"""VLAD: residual accumulation, local coordinates, and the normalisations of one image."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


# No fast-math: reassociation could turn the sum of residuals into Σ x − n·c_k, which rounds a zero residual to
# something else, and the power and per-word norms would blow that up to a full-size block.
@njit
def aggregate_residuals(descriptors, words, centroids, vlad, masses):
    """Add up residuals per word: v_k += Σ_{i: w_i = k} (x_i − c_k), and count the descriptors of each word.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    words : int32 (n_descriptors,)
    centroids : float32 (n_words, n_dims)
    vlad : float32 (n_words, n_dims)
        # OUT, added to
    masses : float64 (n_words,)
        # OUT, added to

    References
    ----------
    Jégou, Douze, Schmid and Pérez, "Aggregating local descriptors into a compact image representation", CVPR 2010,
    equation 1.
    """
    n_descriptors, n_dims = descriptors.shape
    for i in range(n_descriptors):
        k = words[i]
        masses[k] += 1
        for d in range(n_dims):
            vlad[k, d] += descriptors[i, d] - centroids[k, d]


@njit(fastmath=True)
def aggregate_unit_residuals(descriptors, words, centroids, vlad, masses):
    """Add up residuals of unit length: v_k += Σ_{i: w_i = k} (x_i − c_k) / ‖x_i − c_k‖, zero residuals as zero.

    Arguments as for `aggregate_residuals`.

    References
    ----------
    Delhumeau, Gosselin, Jégou and Pérez, "Revisiting the VLAD image representation", ACM Multimedia 2013, section 3.
    """
    n_descriptors, n_dims = descriptors.shape
    for i in range(n_descriptors):
        k = words[i]
        masses[k] += 1
        square = np.float32(0.0)
        for d in range(n_dims):
            difference = descriptors[i, d] - centroids[k, d]
            square += difference * difference
        scale = np.float32(1.0 / max(np.sqrt(square), 1e-12))
        for d in range(n_dims):
            vlad[k, d] += (descriptors[i, d] - centroids[k, d]) * scale


@njit
def aggregate_weighted_residuals(descriptors, words, weights, centroids, vlad, masses):
    """Add up weighted residuals, v_k += Σ_{i, j: w_ji = k} q_ji (x_i − c_k), and masses m_k += Σ_{i, j: w_ji = k} q_ji.

    Parameters
    ----------
    descriptors : float32 (n_descriptors, n_dims)
    words : int32 (n_nearest, n_descriptors)
    weights : float32 (n_nearest, n_descriptors)
    centroids : float32 (n_words, n_dims)
    vlad : float32 (n_words, n_dims)
        # OUT, added to
    masses : float64 (n_words,)
        # OUT, added to

    References
    ----------
    VLFeat 0.9.21, vl/vlad.c, whose assignments need not be zeros and ones.
    """
    n_descriptors, n_dims = descriptors.shape
    for i in range(n_descriptors):
        for j in range(len(words)):
            k, weight = words[j, i], weights[j, i]
            masses[k] += weight
            for d in range(n_dims):
                vlad[k, d] += weight * (descriptors[i, d] - centroids[k, d])


@njit(fastmath=True)
def aggregate_weighted_unit_residuals(descriptors, words, weights, centroids, vlad, masses):
    """Add up weighted residuals of unit length: v_k += Σ_{i, j: w_ji = k} q_ji (x_i − c_k) / ‖x_i − c_k‖.

    Zero residuals count as zero, weights of zero cost nothing. Arguments as for `aggregate_weighted_residuals`; masses
    are sums of q.
    """
    n_descriptors, n_dims = descriptors.shape
    for i in range(n_descriptors):
        for j in range(len(words)):
            k, weight = words[j, i], weights[j, i]
            if weight == 0:
                continue
            masses[k] += weight
            square = np.float32(0.0)
            for d in range(n_dims):
                difference = descriptors[i, d] - centroids[k, d]
                square += difference * difference
            scale = np.float32(weight / max(np.sqrt(square), 1e-12))
            for d in range(n_dims):
                vlad[k, d] += (descriptors[i, d] - centroids[k, d]) * scale


@njit(fastmath=True)
def rotate_blocks(rotations, masses, vlads):
    """Rotate the block of each word into its own coordinate system, in place: v_k ← R_k v_k.

    Word by word over all images, so that R_k stays in cache; what an image becomes depends on itself alone.

    Parameters
    ----------
    rotations : float32 (n_words, n_dims, n_dims)
        The rows of R_k are the new axes.
    masses : float64 (n_images, n_words)
        Blocks of mass zero are left alone.
    vlads : float32 (n_images, n_words, n_dims)
        # OUT

    References
    ----------
    Delhumeau, Gosselin, Jégou and Pérez, "Revisiting the VLAD image representation", ACM Multimedia 2013, section 4: as
    R_k is the same for all descriptors of a word, rotating their sum is rotating each of them.
    """
    n_images, n_words, n_dims = vlads.shape
    rotated = np.empty(n_dims, dtype=np.float32)
    for k in range(n_words):
        for i in range(n_images):
            if masses[i, k] == 0:
                continue
            for d in range(n_dims):
                value = np.float32(0.0)
                for e in range(n_dims):
                    value += rotations[k, d, e] * vlads[i, k, e]
                rotated[d] = value
            vlads[i, k] = rotated


@njit(fastmath=True)
def normalize_vlad(vlad, masses, mass_norm, power, intra_norm, l2_norm):
    """Normalise in place, in this order: mass, signed power, per-word L2, global L2; norms are max(n, 1e-12).

    mass: v_k / m_k; power: sign(z)|z|^power; per-word: v_k / ‖v_k‖; global: v / ‖v‖.

    Parameters
    ----------
    vlad : float32 (n_words, n_dims)
        # OUT
    masses : float64 (n_words,)
        m_k: numbers or weights of descriptors; blocks of mass zero are left alone.
    mass_norm, intra_norm, l2_norm : bool
    power : float64
        1 leaves the values as they are.
    """
    n_words, n_dims = vlad.shape
    total = 0.0
    for k in range(n_words):
        if masses[k] == 0:
            continue
        scale = np.float32(1.0 / masses[k]) if mass_norm else np.float32(1.0)
        square = np.float32(0.0)
        if power == 0.5:
            for d in range(n_dims):
                value = vlad[k, d] * scale
                # |sign(z) sqrt|z||² = |z|
                square += abs(value)
                vlad[k, d] = np.copysign(np.sqrt(abs(value)), value)
        elif power == 1.0:
            for d in range(n_dims):
                value = vlad[k, d] * scale
                square += value * value
                vlad[k, d] = value
        else:
            for d in range(n_dims):
                value = vlad[k, d] * scale
                value = np.copysign(np.float32(abs(value) ** power), value)
                square += value * value
                vlad[k, d] = value
        if intra_norm:
            norm = np.sqrt(square)
            scale = np.float32(1.0 / max(norm, 1e-12))
            for d in range(n_dims):
                vlad[k, d] *= scale
            total += 1.0 if norm > 1e-12 else (np.float64(norm) * 1e12) ** 2
        else:
            total += np.float64(square)
    if l2_norm:
        scale = np.float32(1.0 / max(np.sqrt(total), 1e-12))
        for k in range(n_words):
            if masses[k] > 0:
                for d in range(n_dims):
                    vlad[k, d] *= scale
