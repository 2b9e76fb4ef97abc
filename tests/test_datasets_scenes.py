"""Rendered scenes: the homographies are true, the pixels repeatable, the files loadable."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from cvretrieval.datasets import load_dataset, make_scenes
from cvretrieval.datasets._camera import SUPERSAMPLING, paste_face, place_camera
from cvretrieval.datasets._drawing import PALETTES, Supplies, write_text
from cvretrieval.datasets._motifs import MOTIFS
from cvretrieval.datasets._objects import PAINTERS, load_photographs, paint_object
from cvretrieval.datasets._solids import ART_SCALE, Face, PaintedObject, flat_object, reference_image

SMALL = {"image_size": (160, 120), "random_state": 7}


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_scenes=6, n_views=3, random_state=0, n_jobs=2)


def map_points(homography, points):
    mapped = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def test_shapes_and_names(scenes):
    assert len(scenes.references) == len(scenes.kinds) == 6
    assert len(set(scenes.kinds)) == 6
    assert len(scenes.images) == 18
    assert all(image.shape == (480, 640, 3) and image.dtype == np.uint8 for image in scenes.images)
    assert all(reference.dtype == np.uint8 and reference.shape[2] == 3 for reference in scenes.references)
    assert scenes.labels.tolist() == [label for label in range(6) for _ in range(3)]
    assert scenes.views.tolist() == [0, 1, 2] * 6
    assert scenes.names[4] == "scene_001_view_1"
    assert scenes.homographies.shape == (18, 3, 3)
    assert (scenes.homographies[:, 2, 2] == 1).all()


def test_same_seed_same_pixels_with_any_number_of_threads():
    first = make_scenes(3, 2, **SMALL)
    n_threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        serial = make_scenes(3, 2, n_jobs=1, **SMALL)
        cv2.setNumThreads(4)
        threaded = make_scenes(3, 2, n_jobs=2, **SMALL)
    finally:
        cv2.setNumThreads(n_threads)
    for other in (serial, threaded):
        assert all(np.array_equal(a, b) for a, b in zip(first.images, other.images, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(first.references, other.references, strict=True))
        assert np.array_equal(first.homographies, other.homographies)


def test_a_larger_set_begins_like_a_smaller_one():
    small, large = make_scenes(2, 1, **SMALL), make_scenes(3, 2, **SMALL)
    assert np.array_equal(small.images[1], large.images[2])
    assert np.array_equal(small.references[1], large.references[1])


def test_seeds_differ_and_leave_the_global_generator_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy generator is what must not move
    first = make_scenes(1, 2, image_size=(64, 64), random_state=0)
    other = make_scenes(1, 2, image_size=(64, 64), random_state=np.random.RandomState(1))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert not np.array_equal(first.images[0], other.images[0])
    assert not np.array_equal(first.images[0], first.images[1])
    assert not np.array_equal(first.homographies[0], first.homographies[1])


@pytest.mark.parametrize("size", [(64, 64), (120, 300)])
def test_any_size(size):
    result = make_scenes(2, 1, image_size=size, difficulty=1, random_state=0)
    assert all(image.shape == (size[1], size[0], 3) for image in result.images)


def test_most_of_the_object_is_in_the_picture():
    for difficulty, spill in ((0.0, 0.0), (1.0, 0.1)):
        rng = np.random.default_rng(0)
        painted = paint_object(1, rng, Supplies(rng))
        width, height = painted.front.size
        corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]])
        for _ in range(200):
            camera = place_camera(painted, (640, 480), difficulty, rng)
            mapped = map_points(camera.homography(painted.front), corners)
            assert (mapped > -np.array([640, 480]) * spill - 0.51).all()
            assert (mapped < np.array([640, 480]) * (1 + spill) - 0.49).all()
            # The front is never seen from behind.
            assert camera.sees(painted.front)


def test_homography_maps_pixel_centres():
    """The centroid of a painted mark lands where the homography says, to a few hundredths of a pixel."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        art = Image.new("RGB", (600, 800), (0, 0, 0))
        # A mark of 12 x 12 reference pixels, columns 200..211 and rows 90..101.
        art.paste((255, 255, 255), (200 * ART_SCALE, 90 * ART_SCALE, 212 * ART_SCALE, 102 * ART_SCALE))
        painted = flat_object("mark", art)
        camera = place_camera(painted, (320, 240), 0.6, rng)
        canvas = np.zeros((240 * SUPERSAMPLING, 320 * SUPERSAMPLING, 3), dtype=np.uint8)
        paste_face(canvas, camera, painted.front, 1.0)
        view = cv2.resize(canvas, (320, 240), interpolation=cv2.INTER_AREA)[:, :, 0].astype(np.float64)
        y, x = np.mgrid[:240, :320]
        centroid = np.array([(x * view).sum(), (y * view).sum()]) / view.sum()
        # The centroid of a square under perspective is the mean of its mapped points, not of its mapped corners.
        u, v = np.meshgrid(np.linspace(199.5, 211.5, 49), np.linspace(89.5, 101.5, 49))
        grid = np.column_stack([u.ravel(), v.ravel()])
        homography = camera.homography(painted.front)
        third = np.column_stack([grid, np.ones(len(grid))]) @ homography[2]
        weights = 1 / third**3
        expected = (map_points(homography, grid) * weights[:, None]).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(centroid, expected, atol=0.06)


def test_warped_reference_lies_on_the_view():
    """At difficulty 0 the reference, warped by the homography, correlates with the view, and best where it is."""
    easy = make_scenes(n_scenes=6, n_views=1, difficulty=0.0, random_state=4)
    for image, label, homography in zip(easy.images, easy.labels, easy.homographies, strict=True):
        reference = cv2.cvtColor(easy.references[label], cv2.COLOR_RGB2GRAY).astype(np.float32)
        view = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        inside = cv2.warpPerspective(np.ones_like(reference), homography, (640, 480)) > 0.999
        inside &= cv2.erode(inside.astype(np.uint8), np.ones((9, 9))).astype(bool)
        scores = {}
        for shift in (-1.5, 0.0, 1.5):
            moved = np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1]]) @ homography
            warped = cv2.warpPerspective(reference, moved, (640, 480))
            scores[shift] = np.corrcoef(warped[inside], view[inside])[0, 1]
        assert scores[0.0] > 0.75
        assert scores[0.0] == max(scores.values())


def test_views_match_under_their_homography(scenes):
    sift = cv2.SIFT_create(1200)
    references = [sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in scenes.references]
    n_good = []
    for image, label, homography in zip(scenes.images, scenes.labels, scenes.homographies, strict=True):
        keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        reference_keypoints, reference_descriptors = references[label]
        pairs = cv2.BFMatcher().knnMatch(reference_descriptors, descriptors, k=2)
        matches = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        sources = np.array([reference_keypoints[match.queryIdx].pt for match in matches])
        targets = np.array([keypoints[match.trainIdx].pt for match in matches])
        errors = np.linalg.norm(map_points(homography, sources) - targets, axis=1)
        n_good.append((errors < 3).sum())
    assert np.mean(np.array(n_good) >= 30) >= 0.9
    assert np.median(n_good) < 600  # photographs, not copies


def test_written_files_load(scenes, tmp_path):
    folder = scenes.write(tmp_path / "deep" / "scenes")
    dataset = load_dataset(folder)
    assert dataset.form == "csv"
    assert len(dataset.database) == 6 * 3
    assert dataset.query_ids == [f"queries/scene_{label:03d}_view_2.jpg" for label in range(6)]
    assert not dataset.query_in_database
    query = dataset.queries[3]
    assert query.relevant == {
        "database/scene_003_reference.jpg",
        "database/scene_003_view_0.jpg",
        "database/scene_003_view_1.jpg",
    }
    truth = json.loads((folder / "homographies.json").read_text(encoding="utf-8"))
    assert set(truth) == {query.id for query in dataset.queries} | {i for i in dataset.database if "view" in i}
    entry = truth["queries/scene_003_view_2.jpg"]
    assert entry["reference"] == "database/scene_003_reference.jpg"
    np.testing.assert_array_equal(entry["homography"], scenes.homographies[11])
    written = np.asarray(Image.open(query.path), dtype=float)
    assert np.abs(written - scenes.images[11]).mean() < 4
    reference = np.asarray(Image.open(folder / entry["reference"]))
    assert reference.shape == scenes.references[3].shape


def test_written_queries(tmp_path):
    small = make_scenes(2, 3, image_size=(64, 64), random_state=0)
    dataset = load_dataset(small.write(tmp_path, n_queries=3))
    assert len(dataset.queries) == 6
    assert dataset.database_ids == ["database/scene_000_reference.jpg", "database/scene_001_reference.jpg"]
    for wrong in (0, 4, 1.5):
        with pytest.raises(ValueError, match="'n_queries' parameter of Scenes.write"):
            small.write(tmp_path, n_queries=wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_scenes": 0},
        {"n_views": 1.5},
        {"difficulty": 1.5},
        {"difficulty": "hard"},
        {"image_size": (640, 10)},
        {"image_size": (640,)},
    ],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"'{next(iter(arguments))}' parameter of make_scenes"):
        make_scenes(**arguments)


@pytest.mark.parametrize("index", [*range(len(PAINTERS)), 2 + len(PAINTERS) * 6])
def test_painted_objects(index):
    rng = np.random.default_rng(index)
    painted = paint_object(index, rng, Supplies(rng))
    assert isinstance(painted, PaintedObject)
    for face in painted.faces:
        assert isinstance(face, Face)
        height, width = face.art.shape[:2]
        assert height % ART_SCALE == width % ART_SCALE == 0
        assert face.art.shape[2] == 4
        assert (face.art[face.art[:, :, 3] == 0] == 0).all()
    reference = reference_image(painted)
    assert reference.shape[1::-1] == painted.front.size
    gray = cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY)
    assert len(cv2.SIFT_create().detect(gray, None)) > 100


def test_photographs_are_not_repeated():
    """Postcards stand in once every crop was framed."""
    crops = load_photographs()
    rng = np.random.default_rng(0)
    kinds = [paint_object(2 + len(PAINTERS) * turn, rng, Supplies(rng)).kind for turn in range(len(crops) + 1)]
    assert kinds == ["photograph"] * len(crops) + ["postcard"]


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.__name__)
def test_motifs_stay_in_their_box(motif):
    image = Image.new("RGB", (400, 300), (9, 8, 7))
    motif(image, (100, 60, 300, 240), PALETTES[0], np.random.default_rng(0))
    pixels = np.asarray(image)
    outside = np.ones((300, 400), dtype=bool)
    outside[60:240, 100:300] = False
    assert (pixels[outside] == (9, 8, 7)).all()
    assert len(np.unique(pixels[60:240, 100:300].reshape(-1, 3), axis=0)) >= 4


def test_text_stays_in_its_box():
    for text, box in (("MMMM", (20, 30, 120, 60)), ("i", (20, 30, 220, 60)), ("A LONG LINE OF TEXT", (20, 30, 90, 70))):
        image = Image.new("L", (240, 100), 0).convert("RGB")
        left, top, right, bottom = write_text(image, text, box, (255, 255, 255), bold=0.05)
        ys, xs = np.nonzero(np.asarray(image)[:, :, 0])
        assert box[0] <= left <= xs.min()
        assert xs.max() < right <= box[2]
        assert box[1] <= top <= ys.min()
        assert ys.max() < bottom <= box[3] + 1


def test_supplies_deal_everything_before_repeating():
    supplies = Supplies(np.random.default_rng(0))
    rounds = [[supplies.take("letters", "abcde") for _ in range(5)] for _ in range(2)]
    assert all(sorted(dealt) == list("abcde") for dealt in rounds)
    assert supplies.take("other", "x") == "x"


def test_import_needs_no_opencv():
    program = "import sys, cvretrieval.datasets; print('cv2' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
