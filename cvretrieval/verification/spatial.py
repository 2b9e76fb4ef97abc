"""Geometric verification: does the arrangement of the matched features agree?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cvretrieval._parallel import block_slices, map_blocks
from cvretrieval._saving import SavableMixin
from cvretrieval._validation import check_choice, check_flag, check_number
from cvretrieval.local_features import ImageFeatures, LocalFeatures, check_local_features
from cvretrieval.verification.correspondences import Agreement, Correspondences
from cvretrieval.verification.epipolar import FUNDAMENTAL, estimate_fundamental
from cvretrieval.verification.estimation import MODELS, estimate_transform
from cvretrieval.verification.hypotheses import HYPOTHESES
from cvretrieval.verification.matching import MATCHINGS, METRICS, Matcher, check_same_dims, make_matcher
from cvretrieval.verification.verification import Verification, rejected

# Candidates verified by one task: some milliseconds each.
_BLOCK_CANDIDATES = 5


class SpatialVerifier(SavableMixin, BaseEstimator):
    """Geometric verification of pairs of images by a transform that explains many of their matches.

    Features are matched one-to-one; each match, with the scales and angles of its two keypoints, implies a similarity
    transform; the best of them are refined to the model asked for (Philbin et al. 2007, Schönberger et al. 2016).

    Parameters
    ----------
    model : {"homography", "affine", "upright_affine", "similarity", "translation_scale", "fundamental"}
        What is fitted in the end, by default the homography; with 8, 6, 5, 4 or 3 degrees of freedom.
        "translation_scale" and "upright_affine" are the models of Philbin et al. for photos taken upright: one scale
        and no turn; vertical lines stay vertical. "fundamental" is the epipolar geometry of a scene that is not flat;
        it says where the camera was, not where the object is, so there is no outline to draw.
    ratio : float, default=0.9
        In (0, 1]: ratio test of the matches; 1 switches it off.
    mutual : bool, default=True
        Matches must be the nearest neighbours of each other. They are one-to-one in any case.
    tolerance : float, default=0.008
        Largest error of a match, in both directions, as a fraction of the longer side of the image: 8 pixels in an
        image of 1000.
    max_scale_ratio : float, default=2.0
        The keypoints' change of scale differs from that of the transform at their place by at most this factor.
    max_turn_deg : float, default=30.0
        The keypoints' change of angle differs from that of the transform by at most so many degrees.
    min_inliers : int, default=10
        A pair with fewer inliers is rejected.
    n_hypotheses : int, default=5
        So many hypotheses, the best ones that earlier ones have not explained, are refined.
    hypotheses : {"single_correspondence", "vote_and_verify"}, default="single_correspondence"
        The similarities of all matches, each scored by all others; or those of the cells that most matches vote for in
        the space of translation, scale and turn, at several resolutions: for thousands of matches, its cost does not
        grow with their square.
    score : {"inliers", "effective_inliers"}, default="inliers"
        What ranks the accepted images of a search: the number of inliers, or of cells of a grid over them, which is
        smaller where they crowd (see `Verification`).
    metric : {"euclidean", "hamming"}, default="euclidean"
        Distance of descriptors; "hamming" for binary ones, such as ORB's or AKAZE's (see `OpenCVFeatures`).
    matching : {"words", "exhaustive", "quantized"}, default="words"
        Which descriptors of the query and a candidate are compared, see `match_descriptors`: those that share one of
        the visual words that the query's own descriptors form, a fifth of the time and 98 % of the inliers; all; or all
        rounded to 16-bit integers. `verify` always compares all, and so do binary descriptors.
    n_assignments : float, default=5
        For ``matching="words"``: words of a descriptor of the query on average; more find more and take longer.
    n_jobs : int, optional
        Threads over blocks of candidates; the number does not change the result.

    Notes
    -----
    Nothing is random. Inliers nearer to each other than the tolerance, in either image, are one piece of evidence and
    count once: a word of text or a patch of texture that two images share is many keypoints in a few places. A pair
    without features, without matches or with points that determine no transform is rejected with a reason, never an
    error.

    References
    ----------
    .. [1] J. Philbin, O. Chum, M. Isard, J. Sivic and A. Zisserman, "Object retrieval with large vocabularies and fast
       spatial matching", CVPR 2007, section 5.
    .. [2] J. L. Schönberger, T. Price, T. Sattler, J.-M. Frahm and M. Pollefeys, "A vote-and-verify strategy for fast
       spatial verification in image retrieval", ACCV 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from cvretrieval import SIFT, SpatialVerifier
    >>> image = np.kron(np.random.default_rng(0).integers(0, 256, (20, 20)), np.ones((10, 10))).astype(np.uint8)
    >>> a, b = SIFT(root=True).transform([image, np.rot90(image)])
    >>> result = SpatialVerifier().verify(a, b)
    >>> bool(result), np.round(result.transform[:2, :2]).astype(int).tolist()
    (True, [[0, 1], [-1, 0]])
    """

    def __init__(
        self,
        model: str = "homography",
        *,
        ratio: float = 0.9,
        mutual: bool = True,
        tolerance: float = 0.008,
        max_scale_ratio: float = 2.0,
        max_turn_deg: float = 30.0,
        min_inliers: int = 10,
        n_hypotheses: int = 5,
        hypotheses: str = "single_correspondence",
        score: str = "inliers",
        metric: str = "euclidean",
        matching: str = "words",
        n_assignments: float = 5,
        n_jobs: int | None = None,
    ) -> None:
        self.model = model
        self.ratio = ratio
        self.mutual = mutual
        self.tolerance = tolerance
        self.max_scale_ratio = max_scale_ratio
        self.max_turn_deg = max_turn_deg
        self.min_inliers = min_inliers
        self.n_hypotheses = n_hypotheses
        self.hypotheses = hypotheses
        self.score = score
        self.metric = metric
        self.matching = matching
        self.n_assignments = n_assignments
        self.n_jobs = n_jobs

    def verify(self, a: Any, b: Any) -> Verification:
        """Verify one pair of images, with all descriptors compared whatever `matching` says.

        Parameters
        ----------
        a, b : ImageFeatures
            ``X[i]`` of a `LocalFeatures`, or a tuple ``(descriptors, keypoints, (width, height))``.

        Returns
        -------
        Verification
            Its transform maps the pixels of `a` to those of `b`.
        """
        return self._verify_candidates(a, [b], "exhaustive", 1)[0]

    def verify_candidates(self, query: Any, candidates: Any, *, n_jobs: int | None = None) -> list[Verification]:
        """Verify one image against many.

        Parameters
        ----------
        query : ImageFeatures
            See `verify`.
        candidates : LocalFeatures or sequence of ImageFeatures
        n_jobs : int, optional
            Overrides the parameter of the same name.

        Returns
        -------
        list of Verification
            In the order of the candidates; the transforms map from the query to the candidate.
        """
        return self._verify_candidates(query, candidates, self.matching, self.n_jobs if n_jobs is None else n_jobs)

    def _verify_candidates(self, query: Any, candidates: Any, matching: str, n_jobs: int | None) -> list[Verification]:
        self._check_parameters()
        X = check_local_features(candidates, estimator=self)
        if not len(X):
            return []
        X = check_local_features(X, estimator=self, keypoints=X.n_descriptors > 0)
        a = check_local_features([query], estimator=self)
        a = check_local_features(a, estimator=self, keypoints=a.n_descriptors > 0)
        check_same_dims(a.descriptors, X.descriptors)
        first = a[0]
        matcher = make_matcher(
            first.descriptors, ratio=self.ratio, mutual=self.mutual, metric=self.metric, matching=matching,
            n_assignments=self.n_assignments,
        )  # fmt: skip
        blocks = block_slices(len(X), _BLOCK_CANDIDATES)
        parts = map_blocks(
            lambda block: self._verify_block(first, matcher, X[block]),
            blocks,
            n_jobs=n_jobs,
        )
        return [result for part in parts for result in part]

    def _verify_block(self, a: ImageFeatures, matcher: Matcher, X: LocalFeatures) -> list[Verification]:
        return [self._verify(a, matcher, b) for b in X]

    def _verify(self, a: ImageFeatures, matcher: Matcher, b: ImageFeatures) -> Verification:
        if not len(a.descriptors) or not len(b.descriptors):
            which = "first" if not len(a.descriptors) else "second"
            return rejected(f"the {which} image has no features")
        matches = matcher.match(b.descriptors)
        keypoints_a, keypoints_b = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]  # type: ignore[index]
        usable = _have_a_frame(keypoints_a) & _have_a_frame(keypoints_b)
        if not usable.all():
            matches, keypoints_a, keypoints_b = matches[usable], keypoints_a[usable], keypoints_b[usable]
        if len(matches) < self.min_inliers:
            return rejected(f"{_count(len(matches), 'match')}, fewer than min_inliers={self.min_inliers}", matches)
        correspondences = Correspondences(keypoints_a, keypoints_b)
        agreement = Agreement(
            self.tolerance * _longer_side(a),
            self.tolerance * _longer_side(b),
            float(np.log(self.max_scale_ratio)),
            float(np.cos(np.deg2rad(self.max_turn_deg))),
        )
        if self.model == FUNDAMENTAL:
            found = estimate_fundamental(correspondences, agreement, int(self.n_hypotheses), self.hypotheses)
        else:
            found = estimate_transform(correspondences, agreement, self.model, int(self.n_hypotheses), self.hypotheses)
        if found is None:
            return rejected(f"no transform explains any of the {_count(len(matches), 'match')}", matches)
        matrix, weights, model = found
        is_transform = model != FUNDAMENTAL
        n_inliers = correspondences.count_places(weights, agreement.tolerance_a, agreement.tolerance_b)
        reason = ""
        if n_inliers < self.min_inliers:
            reason = f"{_count(n_inliers, 'inlier')}, fewer than min_inliers={self.min_inliers}"
        return Verification(
            n_inliers, matches, weights > 0, matrix if is_transform else None, model, reason,
            n_effective_inliers=correspondences.count_cells(weights), ranked_by=self.score,
            fundamental=None if is_transform else matrix,
        )  # fmt: skip

    def _check_parameters(self) -> None:
        check_choice(self, "model", self.model, (*MODELS, FUNDAMENTAL))
        check_number(self, "ratio", self.ratio, low=0, high=1, low_open=True)
        check_flag(self, "mutual", self.mutual)
        check_number(self, "tolerance", self.tolerance, low=0, high=1, low_open=True)
        check_number(self, "max_scale_ratio", self.max_scale_ratio, low=1)
        check_number(self, "max_turn_deg", self.max_turn_deg, low=0, high=180)
        check_number(self, "min_inliers", self.min_inliers, low=1, integer=True)
        check_number(self, "n_hypotheses", self.n_hypotheses, low=1, integer=True)
        check_choice(self, "hypotheses", self.hypotheses, tuple(HYPOTHESES))
        check_choice(self, "score", self.score, ("inliers", "effective_inliers"))
        check_choice(self, "metric", self.metric, METRICS)
        check_choice(self, "matching", self.matching, MATCHINGS)
        check_number(self, "n_assignments", self.n_assignments, low=1)


def _have_a_frame(keypoints: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark keypoints with finite place, scale and angle and a positive scale."""
    return np.isfinite(keypoints).all(axis=1) & (keypoints[:, 2] > 0)


def _longer_side(image: ImageFeatures) -> float:
    """Return the longer side of an image, or of the extent of its keypoints where its size is not known."""
    if image.image_size is not None and max(image.image_size) > 0:
        return float(max(image.image_size))
    keypoints: NDArray[np.float32] = image.keypoints  # type: ignore[assignment]
    return max(float(np.ptp(keypoints[:, 0])), float(np.ptp(keypoints[:, 1])), 1.0)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{'es' if noun.endswith('ch') else 's'}"
