"""Votes of single correspondences for similarity transforms, in cells of four dimensions at several resolutions."""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit

#: Finest cells of each dimension: translation (x and y) within the extent, logarithm of the scale, turn.
TRANSLATION_CELLS, SCALE_CELLS, TURN_CELLS = 64, 32, 8

# Cells of translation go on beyond the extent: of an object that is small in one image only, the middle moves far.
_FARTHEST = 512

# Scales from 1/10 to 10, as in the paper.
_MAX_LOG_SCALE = np.log(10.0)


@njit
def vote_similarities(pairs, log_scale, cos_turn, sin_turn, extent, frames, seeds):
    """Let each correspondence vote for the similarity it implies, and return the number of the best cells, best first.

    With scale s, turn φ and T_i of `score_similarities`, correspondence i votes for the cell of (T_i(0), ln s, φ):
    64 × 64 cells of translation over [−extent, extent)² and more of that size around, 32 of scale over [−ln 10, ln 10),
    8 of the turn. Two coarser resolutions join 2⁴ cells each. A finest cell with n₀ votes, n₁ and n₂ in the coarser
    cells around it, has the score n₀ + n₁/2 + n₂/4. Cells are shifted by 2½ finest ones, so that no resolution cuts at
    the identity. The similarity of a cell is the mean of its voters': of T_i(0), of ln s, and of the direction of φ.
    Equal scores keep the order of cells.

    The cells of all resolutions are runs of one sorted list, the four bits of each resolution beside each other: the
    cost grows with n log n.

    Parameters
    ----------
    pairs : float32 (4, n_pairs)
        Rows x, y, x′, y′, around an origin in the middle.
    log_scale, cos_turn, sin_turn : float32 (n_pairs,)
    extent : float
        Pixels.
    frames : float32 (max_frames, 4)
        a, b, x, y of T(p) = (a p_x − b p_y + x, b p_x + a p_y + y) of the best cells.  # OUT
    seeds : int64 (max_frames,)
        A voter of each.  # OUT

    Returns
    -------
    int
        At most max_frames.

    References
    ----------
    Schönberger, Price, Sattler, Frahm and Pollefeys, "A vote-and-verify strategy for fast spatial verification in image
    retrieval", ACCV 2016, section 3.1; bounds and numbers of cells as in COLMAP.
    """
    n_pairs = len(log_scale)
    keys = np.empty(n_pairs, dtype=np.int64)
    voters = np.empty(n_pairs, dtype=np.int64)
    frame_of = np.empty((n_pairs, 5))
    n_voters = 0
    for i in range(n_pairs):
        scale = np.exp(np.float64(log_scale[i]))
        a, b = scale * cos_turn[i], scale * sin_turn[i]
        shift_x = pairs[2, i] - (a * pairs[0, i] - b * pairs[1, i])
        shift_y = pairs[3, i] - (b * pairs[0, i] + a * pairs[1, i])
        key = _cell_key(shift_x, shift_y, log_scale[i], np.arctan2(sin_turn[i], cos_turn[i]), extent)
        if key >= 0:
            keys[n_voters], voters[n_voters] = key, i
            frame_of[n_voters, 0], frame_of[n_voters, 1] = cos_turn[i], sin_turn[i]
            frame_of[n_voters, 2], frame_of[n_voters, 3] = shift_x, shift_y
            frame_of[n_voters, 4] = log_scale[i]
            n_voters += 1
    order = np.argsort(keys[:n_voters], kind="mergesort")
    keys = keys[:n_voters][order]
    starts = np.empty(n_voters + 1, dtype=np.int64)
    scores = np.zeros(n_voters, dtype=np.int64)
    n_cells = 0
    first, first_1, first_2 = 0, 0, 0
    for at in range(1, n_voters + 1):
        # A run ends where the next key differs in the bits of its resolution.
        if at < n_voters and keys[at] == keys[at - 1]:
            continue
        starts[n_cells] = first
        scores[n_cells] += 4 * (at - first)
        n_cells += 1
        first = at
        if at == n_voters or keys[at] >> 4 != keys[at - 1] >> 4:
            _add_to_run(starts, scores, n_cells, first_1, 2 * (at - first_1))
            first_1 = at
        if at == n_voters or keys[at] >> 8 != keys[at - 1] >> 8:
            _add_to_run(starts, scores, n_cells, first_2, at - first_2)
            first_2 = at
    starts[n_cells] = n_voters
    n_best = min(n_cells, len(frames))
    best = np.argsort(-scores[:n_cells], kind="mergesort")[:n_best]
    for k in range(n_best):
        mean = np.zeros(5)
        for at in range(starts[best[k]], starts[best[k] + 1]):
            mean += frame_of[order[at]]
        mean[2:] /= starts[best[k] + 1] - starts[best[k]]
        length = np.sqrt(mean[0] * mean[0] + mean[1] * mean[1])
        scale = np.exp(mean[4])
        # A cell spans at most an eighth of a turn, so directions never cancel.
        frames[k, 0], frames[k, 1] = scale * mean[0] / length, scale * mean[1] / length
        frames[k, 2], frames[k, 3] = mean[2], mean[3]
        seeds[k] = voters[order[starts[best[k]]]]
    return n_best


@njit
def _add_to_run(starts, scores, n_cells, first, votes):
    """Add votes to the scores of the finished cells that start at voter `first` or later.

    Parameters
    ----------
    starts, scores : int64 (n_voters + 1,), (n_voters,)
        First voter of each cell, ascending; scores are changed.  # OUT
    n_cells, first, votes : int
    """
    cell = n_cells - 1
    while cell >= 0 and starts[cell] >= first:
        scores[cell] += votes
        cell -= 1


@njit
def _cell_key(shift_x, shift_y, log_scale, turn, extent):
    """Return the number of a similarity's cell, −1 outside of all: at each resolution four bits, the finest last.

    With c the index of the finest cell of a dimension, the key is (c_x >> 2, c_y >> 2, c_scale >> 2, c_turn >> 2), then
    the second bit of each, then the first of each. Turns wrap.

    Parameters
    ----------
    shift_x, shift_y, log_scale, turn, extent : float
    """
    x = int(np.floor(shift_x * (TRANSLATION_CELLS / (2.0 * extent)) + 0.5)) + _FARTHEST
    y = int(np.floor(shift_y * (TRANSLATION_CELLS / (2.0 * extent)) + 0.5)) + _FARTHEST
    s = int(np.floor((log_scale + _MAX_LOG_SCALE) * (SCALE_CELLS / (2.0 * _MAX_LOG_SCALE)) + 0.5))
    if not (0 <= x < 2 * _FARTHEST and 0 <= y < 2 * _FARTHEST and 0 <= s < SCALE_CELLS):
        return np.int64(-1)
    t = int(np.floor(turn * (TURN_CELLS / (2.0 * np.pi)) + 2.5)) % TURN_CELLS
    x, y, s = x + 2, y + 2, s + 2
    key = np.int64((x >> 2 << 20) | (y >> 2 << 10) | (s >> 2 << 4) | t >> 2)
    for bit in (1, 0):
        key = key << 4 | (x >> bit & 1) << 3 | (y >> bit & 1) << 2 | (s >> bit & 1) << 1 | (t >> bit & 1)
    return key
