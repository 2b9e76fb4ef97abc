"""One similarity transform per correspondence, each scored by all correspondences."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit(fastmath=True)
def score_similarities(pairs, log_scale, cos_turn, sin_turn, tolerance_a, tolerance_b, max_log_scale, min_cos, scores):
    """Count the correspondences that agree with the similarity that each single one implies.

    Correspondence i of keypoints (x, y, σ, θ) and (x′, y′, σ′, θ′) implies scale s = σ′/σ, turn φ = θ′ − θ and
    T_i(p) = s R(φ)(p − p_i) + p′_i. Correspondence j agrees if

        ‖T_i(p_j) − p′_j‖ ≤ min(tolerance_b, s · tolerance_a),   |ln s_j − ln s_i| ≤ max_log_scale,
        cos(φ_j − φ_i) ≥ min_cos:

    the error is small in both images, and so is the difference of the local scale and turn.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′.
    log_scale, cos_turn, sin_turn : float32 (n_pairs,)
        ln(σ′/σ), cos φ, sin φ.
    tolerance_a, tolerance_b : float32
        Pixels of the first and of the second image.
    max_log_scale, min_cos : float32
    scores : int32 (n_pairs,)
        # OUT

    References
    ----------
    Philbin, Chum, Isard, Sivic and Zisserman, "Object retrieval with large vocabularies and fast spatial matching",
    CVPR 2007, section 5.
    """
    for i in range(len(log_scale)):
        scale = np.float32(np.exp(log_scale[i]))
        a, b = scale * cos_turn[i], scale * sin_turn[i]
        shift_x = pairs[2, i] - (a * pairs[0, i] - b * pairs[1, i])
        shift_y = pairs[3, i] - (b * pairs[0, i] + a * pairs[1, i])
        tolerance = min(tolerance_b, scale * tolerance_a)
        scores[i] = _count_agreeing(
            pairs, log_scale, cos_turn, sin_turn, a, b, shift_x, shift_y, log_scale[i], cos_turn[i], sin_turn[i],
            tolerance * tolerance, max_log_scale, min_cos,
        )  # fmt: skip


@njit(fastmath=True)
def score_frames(
    pairs, log_scale, cos_turn, sin_turn, frames, tolerance_a, tolerance_b, max_log_scale, min_cos, scores
):
    """Count the correspondences that agree with each of given similarities, as `score_similarities` counts.

    Parameters
    ----------
    pairs, log_scale, cos_turn, sin_turn, tolerance_a, tolerance_b, max_log_scale, min_cos
        As for `score_similarities`.
    frames : float32 (n_frames, 4)
        a, b, x, y of T(p) = (a p_x − b p_y + x, b p_x + a p_y + y).
    scores : int32 (n_frames,)
        # OUT
    """
    for i in range(len(frames)):
        a, b = frames[i, 0], frames[i, 1]
        scale = np.sqrt(a * a + b * b)
        tolerance = min(tolerance_b, scale * tolerance_a)
        scores[i] = _count_agreeing(
            pairs, log_scale, cos_turn, sin_turn, a, b, frames[i, 2], frames[i, 3], np.log(scale), a / scale,
            b / scale, tolerance * tolerance, max_log_scale, min_cos,
        )  # fmt: skip


@njit(inline=True)
def _count_agreeing(pairs, log_scale, cos_turn, sin_turn, a, b, shift_x, shift_y, own_log_scale, own_cos, own_sin,
                    square, max_log_scale, min_cos):  # fmt: skip
    """Count the correspondences that agree with one similarity T(p) = (a p_x − b p_y + x, b p_x + a p_y + y).

    Parameters
    ----------
    pairs, log_scale, cos_turn, sin_turn, max_log_scale, min_cos
        As for `score_similarities`.
    a, b, shift_x, shift_y, own_log_scale, own_cos, own_sin : float32
        The similarity, and ln s, cos φ and sin φ of it.
    square : float32
        The squared tolerance in the second image.
    """
    count = np.int32(0)
    for j in range(len(log_scale)):
        error_x = a * pairs[0, j] - b * pairs[1, j] + shift_x - pairs[2, j]
        error_y = b * pairs[0, j] + a * pairs[1, j] + shift_y - pairs[3, j]
        near = error_x * error_x + error_y * error_y <= square
        same_scale = abs(log_scale[j] - own_log_scale) <= max_log_scale
        same_turn = cos_turn[j] * own_cos + sin_turn[j] * own_sin >= min_cos
        count += np.int32(near & same_scale & same_turn)
    return count


@njit
def similarity_of_pair(pairs, log_scale, cos_turn, sin_turn, i, transform):
    """Write T_i of `score_similarities` as a 3 × 3 matrix.

    Parameters
    ----------
    pairs, log_scale, cos_turn, sin_turn
        As for `score_similarities`.
    i : int
    transform : float64 (3, 3)
        # OUT
    """
    scale = np.exp(np.float64(log_scale[i]))
    a, b = scale * cos_turn[i], scale * sin_turn[i]
    transform[:] = 0.0
    transform[0, 0], transform[0, 1] = a, -b
    transform[1, 0], transform[1, 1] = b, a
    transform[0, 2] = pairs[2, i] - (a * pairs[0, i] - b * pairs[1, i])
    transform[1, 2] = pairs[3, i] - (b * pairs[0, i] + a * pairs[1, i])
    transform[2, 2] = 1.0
