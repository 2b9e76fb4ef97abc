"""Spatial pyramids and coordinates: definitions, cells, weights, any encoder, and what is said without geometry."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from cvretrieval import (
    SIFT,
    VLAD,
    BagOfWords,
    KMeansCodebook,
    LocalFeatures,
    PerDescriptor,
    PowerNormalizer,
    SpatialCoordinates,
    SpatialPyramid,
    TfIdf,
)
from cvretrieval.encoders.cells import group_by_cell
from cvretrieval.positions import relative_positions
from tests.reference.spatial_pyramid import in_cell_naive, lazebnik_weights_naive, pyramid_naive

GRIDS = {1: ((1, 1),), 2: ((1, 1), (2, 2)), 3: ((1, 1), (2, 2), (4, 4)), ((1, 1), (3, 1)): ((1, 1), (3, 1)),
         ((2, 5),): ((2, 5),)}  # fmt: skip


def features(rng, lengths=(60, 0, 3, 200), n_dims=5):
    images = []
    for i, n in enumerate(lengths):
        size = np.array([40 + 13 * i % 97, 91 - 7 * i % 60])
        # Whole and half numbers hit the boundaries of cells; some keypoints lie outside of the image.
        places = np.round(rng.uniform(-2, size + 2, size=(n, 2)) * 2) / 2
        keypoints = np.column_stack([places, np.ones((n, 2))])
        images.append((rng.normal(size=(n, n_dims)), keypoints, tuple(size)))
    return LocalFeatures.from_images(images, n_dims=n_dims)


@pytest.fixture
def X(rng):
    return features(rng)


@pytest.fixture
def codebook(X):
    return KMeansCodebook(4, random_state=0).fit(X)


def dense(Z):
    return Z.toarray() if issparse(Z) else Z


class MeanDescriptor(TransformerMixin, BaseEstimator):
    """An encoder that knows nothing of words."""

    def fit(self, X, y=None):
        self.n_dims_ = X.n_dims
        return self

    def transform(self, X):
        return np.array([image.descriptors.sum(axis=0) for image in X], dtype=np.float32).reshape(len(X), self.n_dims_)

    def get_feature_names_out(self):
        return np.array([f"d{i}" for i in range(self.n_dims_)], dtype=object)


def encoders(codebook):
    yield BagOfWords(codebook=codebook, norm=None)
    yield BagOfWords(codebook=codebook, norm="l1", sparse=True)
    yield BagOfWords(codebook=codebook, assignment="soft")
    yield BagOfWords(codebook=codebook, assignment="multiple", n_nearest=2, sparse=True)
    yield VLAD(codebook=codebook)
    yield VLAD(codebook=codebook, assignment="soft", n_nearest=2, sigma=1.0)
    yield VLAD(codebook=codebook, assignment="soft", n_nearest=9, sigma=1.0, residual_norm=True)
    yield VLAD(codebook=codebook, local_coordinates=True, intra_norm=True)
    yield MeanDescriptor()
    yield make_pipeline(BagOfWords(codebook=codebook, norm=None), TfIdf())
    yield make_pipeline(BagOfWords(codebook=codebook, norm=None, sparse=True), PowerNormalizer())


@pytest.mark.parametrize("levels", list(GRIDS), ids=str)
@pytest.mark.parametrize("weights", [None, "lazebnik", "numbers"])
def test_any_encoder_encodes_every_cell(levels, weights, X, codebook):
    grids = GRIDS[levels]
    if weights == "numbers":
        weights = tuple(2.0 + level for level in range(len(grids)))
    factors = {None: [1] * len(grids), "lazebnik": lazebnik_weights_naive(len(grids))}.get(weights, weights)
    for encoder in encoders(codebook):
        fitted = clone(encoder).fit(X)

        def encode(descriptors, fitted=fitted):
            return dense(fitted.transform(LocalFeatures.from_images([descriptors], n_dims=5)))[0]

        pyramid = SpatialPyramid(encoder, levels, weights=weights, norm=None)
        vectors = pyramid.fit(X).transform(X)
        assert vectors.dtype == np.float32 and pyramid.grids_ == grids
        expected = [pyramid_naive(image.descriptors, image.keypoints, image.image_size, grids, factors, encode)
                    for image in X]  # fmt: skip
        np.testing.assert_allclose(dense(vectors), expected, rtol=1e-5, atol=1e-5)
        assert len(pyramid.get_feature_names_out()) == vectors.shape[1]


def test_sparse_encoders_give_sparse_pyramids(X, codebook):
    encoder = BagOfWords(codebook=codebook, norm=None)
    for norm in (None, "l1", "l2"):
        whole = SpatialPyramid(encoder, norm=norm).fit_transform(X)
        sparse = SpatialPyramid(clone(encoder).set_params(sparse=True), norm=norm).fit_transform(X)
        assert issparse(sparse) and sparse.format == "csr" and sparse.indices.dtype == np.int32
        np.testing.assert_allclose(sparse.toarray(), whole, rtol=1e-6)


def test_levels_of_counts_add_up(X, codebook):
    """Every level holds every descriptor once."""
    counts = SpatialPyramid(BagOfWords(codebook=codebook, norm=None), 3, weights=None, norm=None).fit_transform(X)
    whole, quarters, sixteenths = counts[:, :4], counts[:, 4:20], counts[:, 20:]
    np.testing.assert_array_equal(quarters.reshape(4, 4, 4).sum(axis=1), whole)
    # Cells of level 2, row-major, in the quarters that hold them.
    blocks = sixteenths.reshape(4, 2, 2, 2, 2, 4).sum(axis=(2, 4)).reshape(4, 16)
    np.testing.assert_array_equal(blocks, quarters)


def test_lazebnik_pyramid_match_kernel(X, codebook):
    """Equation 3 of the paper: I^L + Σ_l 1/2^(L−l) (I^l − I^(l+1)), each level's intersections of relative counts."""
    levels = SpatialPyramid(BagOfWords(codebook=codebook, norm=None), 3, weights=None, norm=None).fit_transform(X)
    levels /= np.maximum(X.lengths, 1)[:, None]
    intersections = [
        np.minimum(level[:, None], level).sum(axis=2) for level in np.split(levels.astype(float), [4, 20], axis=1)
    ]
    kernel = intersections[2] + sum((intersections[l] - intersections[l + 1]) / 2 ** (2 - l) for l in (0, 1))  # noqa: E741
    vectors = SpatialPyramid(BagOfWords(codebook=codebook, norm=None), 3, norm="l1").fit_transform(X)
    ours = np.minimum(vectors[:, None], vectors).sum(axis=2)
    # The L1 norm divides by the number of descriptors and by the sum of the weights, 1/4 + 1/4 + 1/2.
    np.testing.assert_allclose(ours, kernel, atol=1e-6)


def test_cells_and_their_boundaries():
    """A 4 × 2 image covers [−½, 3½) × [−½, 1½): a boundary belongs to the cell right of or below it."""
    places = {(-0.5, -0.5): 0, (1.4, 0.4): 0, (1.5, 0.4): 1, (1.5, 0.5): 3, (0, 0.5): 2, (3.49, 1.49): 3,
              (-7, 0): 0, (99, -9): 1, (3.5, 1.5): 3}  # fmt: skip
    keypoints = np.array([[x, y, 1, 0] for x, y in places])
    X = LocalFeatures.from_images([(np.zeros((len(places), 1)), keypoints, (4, 2))])
    rows, offsets = group_by_cell(relative_positions(X), X.image_index(), 1, (2, 2))
    cells = np.empty(len(places), dtype=int)
    cells[rows] = np.repeat(np.arange(4), np.diff(offsets))
    assert cells.tolist() == list(places.values())
    for (x, y), cell in places.items():
        assert in_cell_naive(x, y, 4, 2, *divmod(cell, 2), 2, 2)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 1), (4, 4)])
def test_rows_are_grouped_by_image_and_cell_and_keep_their_order(grid, X):
    rows, offsets = group_by_cell(relative_positions(X), X.image_index(), len(X), grid)
    assert sorted(rows) == list(range(X.n_descriptors)) and offsets[-1] == X.n_descriptors
    n_cells = grid[0] * grid[1]
    np.testing.assert_array_equal(offsets[::n_cells], X.offsets)
    for cell, (start, stop) in enumerate(pairwise(offsets)):
        members = rows[start:stop]
        assert (np.diff(members) > 0).all()
        image, place = divmod(cell, n_cells)
        width, height = X.image_sizes[image]
        for x, y in X.keypoints[members, :2].tolist():
            assert in_cell_naive(x, y, width, height, *divmod(place, grid[1]), *grid)


def test_mirrored_images_mirror_their_cells(X, codebook):
    width = X.image_sizes[X.image_index(), 0]
    inside = X.keypoints.copy()
    inside[:, :2] += 0.1  # off the boundaries, which are not symmetric
    mirrored = inside.copy()
    mirrored[:, 0] = width - 1 - inside[:, 0]
    pyramid = SpatialPyramid(BagOfWords(codebook=codebook, norm=None), ((2, 4),), norm=None).fit(X)
    one, other = (
        pyramid.transform(LocalFeatures(X.descriptors, X.offsets, keypoints, X.image_sizes)).reshape(-1, 2, 4, 4)
        for keypoints in (inside, mirrored)
    )
    np.testing.assert_array_equal(one, other[:, :, ::-1])


def test_each_descriptor_is_assigned_once(X, codebook):
    """An encoder that can assign and pool is asked to assign once, and never to encode."""

    class Counting(BagOfWords):
        n_assigned = 0

        def assign(self, X):
            type(self).n_assigned += X.n_descriptors
            return super().assign(X)

        def transform(self, X):
            raise AssertionError("cells were encoded anew")

    SpatialPyramid(Counting(codebook=codebook)).fit(X).transform(X)
    assert Counting.n_assigned == X.n_descriptors


def test_many_blocks_give_the_same_bits(rng, codebook):
    X = features(rng, lengths=[n % 19 for n in range(600)])
    for encoder in (BagOfWords(codebook=codebook, assignment="soft"), VLAD(codebook=codebook)):
        pyramid = SpatialPyramid(encoder, 2).fit(X)
        whole = pyramid.transform(X)
        np.testing.assert_array_equal(whole[500:], pyramid.transform(X[500:]))
        np.testing.assert_array_equal(pyramid.set_params(encoder__n_jobs=2).fit(X).transform(X), whole)


def test_no_images(X, codebook):
    for encoder in encoders(codebook):
        if not hasattr(encoder, "steps"):
            assert SpatialPyramid(encoder, 2).fit(X).transform(X[:0]).shape[0] == 0
    assert SpatialPyramid(BagOfWords(codebook=codebook), 3).fit(X).transform(X[:0]).shape == (0, 84)


def test_the_encoder_is_a_fitted_clone(X):
    encoder = BagOfWords(4, random_state=0)
    pyramid = SpatialPyramid(encoder).fit(X)
    assert not hasattr(encoder, "codebook_") and pyramid.encoder_ is not encoder
    np.testing.assert_array_equal(
        pyramid.encoder_.codebook_.cluster_centers_, clone(encoder).fit(X).codebook_.cluster_centers_
    )


@pytest.mark.parametrize("stage", [SpatialPyramid(BagOfWords(2, random_state=0)), SpatialCoordinates()], ids=["p", "c"])
def test_missing_geometry_is_named(stage, X):
    name = type(stage).__name__
    bare = LocalFeatures(X.descriptors, X.offsets)
    with pytest.raises(ValueError, match=rf"{name} needs keypoints and image sizes, but X has no keypoints and no im"):
        clone(stage).fit(bare)
    without_sizes = LocalFeatures(X.descriptors, X.offsets, X.keypoints)
    with pytest.raises(ValueError, match=rf"{name} needs keypoints and image sizes, but X has no image_sizes\."):
        clone(stage).fit(X).transform(without_sizes)
    sizes = X.image_sizes.copy()
    sizes[2, 1] = 0
    with pytest.raises(ValueError, match=rf"{name} needs positive image sizes. Image 2 has width 66 and height 0"):
        clone(stage).fit(LocalFeatures(X.descriptors, X.offsets, X.keypoints, sizes))
    keypoints = X.keypoints.copy()
    keypoints[61, 0] = np.nan
    with pytest.raises(ValueError, match=rf"{name} needs finite keypoints. A keypoint of image 2 is NaN"):
        clone(stage).fit(LocalFeatures(X.descriptors, X.offsets, keypoints, X.image_sizes))


@pytest.mark.parametrize("levels", [0, -1, True, 1.5, "3", None, (), ((1, 1), (0, 2)), ((1, 1, 1),), (1, 2), {1: 2}])
def test_wrong_levels_are_named(levels, X):
    with pytest.raises(ValueError, match="'levels' parameter of SpatialPyramid must be a positive integer or a seq"):
        SpatialPyramid(BagOfWords(2), levels).fit(X)


@pytest.mark.parametrize("weights", ["lazy", 1.0, (1, 2), (1, 2, "3"), (1, 2, np.nan), (1, 2, 3, 4)])
def test_wrong_weights_are_named(weights, X):
    with pytest.raises(ValueError, match="'weights' parameter of SpatialPyramid must be 'lazebnik', None or one"):
        SpatialPyramid(BagOfWords(2), 3, weights=weights).fit(X)


def test_wrong_norm_is_named(X):
    with pytest.raises(ValueError, match="'norm' parameter of SpatialPyramid must be one of"):
        SpatialPyramid(BagOfWords(2), norm="max").fit(X)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_coordinates_are_their_definition(weight, dtype, X):
    X = X.with_descriptors(np.abs(20 * X.descriptors).astype(dtype))
    augmented = SpatialCoordinates(weight).fit_transform(X)
    assert augmented.descriptors.dtype == np.float32 and augmented.n_dims == 7
    np.testing.assert_array_equal(augmented.keypoints, X.keypoints)
    expected = [
        [*descriptor, weight * ((x + 0.5) / width - 0.5), weight * ((y + 0.5) / height - 0.5)]
        for descriptors, keypoints, (width, height) in X
        for descriptor, (x, y, *_) in zip(descriptors, keypoints, strict=True)
    ]
    np.testing.assert_allclose(augmented.descriptors, expected, rtol=1e-6, atol=1e-6)


def test_coordinates_of_the_corners_and_the_middle():
    keypoints = [[-0.5, -0.5, 1, 0], [3.5, 1.5, 1, 0], [1.5, 0.5, 1, 0]]
    X = SpatialCoordinates().fit_transform([(np.ones((3, 1)), keypoints, (4, 2))])
    np.testing.assert_array_equal(X.descriptors[:, 1:], [[-0.5, -0.5], [0.5, 0.5], [0, 0]])


@pytest.mark.parametrize("weight", [-1, np.nan, "1", None])
def test_wrong_weight_of_coordinates_is_named(weight, X):
    with pytest.raises(ValueError, match="'weight' parameter of SpatialCoordinates must be a number"):
        SpatialCoordinates(weight).fit(X)


def test_layout_tells_images_apart_that_have_the_same_parts():
    """Two textures side by side, in either order: alike to a bag of words, not to a pyramid or with coordinates."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 256, (24, 16)), np.ones((10, 10)))
    blobs = np.kron(rng.integers(0, 2, (12, 8)) * 255, np.ones((20, 20)))
    images, labels = [], []
    for i in range(24):
        parts = [np.roll(part, rng.integers(0, 240, 2), axis=(0, 1)) for part in (coarse, blobs)]
        images.append(np.concatenate(parts[:: 1 if i % 2 else -1], axis=1).astype(np.uint8))
        labels.append(i % 2)
    X, y = SIFT(max_features=150).transform(images), np.array(labels)

    def accuracy(*line):
        model = make_pipeline(*line, LinearSVC()).fit(X[:16], y[:16])
        return model.score(X[16:], y[16:])

    bag = BagOfWords(20, random_state=0)
    small = PerDescriptor(PCA(16, random_state=0), random_state=0)
    assert accuracy(SpatialPyramid(bag, 2, weights=None)) == 1
    assert accuracy(small, SpatialCoordinates(weight=2000), BagOfWords(40, random_state=0)) == 1
    assert accuracy(bag) < 0.9
