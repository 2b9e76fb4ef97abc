"""`ImageRetriever`: the main job from end to end, and everything users do to it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    SIFT,
    VLAD,
    ImageReader,
    ImageReadError,
    ImageRetriever,
    PCAWhitening,
    SpatialVerifier,
    StoreError,
)
from cvretrieval.datasets import make_scenes
from cvretrieval.images import ImageRegion

N_SCENES, N_VIEWS = 5, 4


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(n_scenes=N_SCENES, n_views=N_VIEWS, random_state=3)


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    """View 0 of every scene is a query, the other views are the photos."""
    root = tmp_path_factory.mktemp("scenes")
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / ("queries" if view == 0 else "photos") / f"{label}_{view}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path, compress_level=1)
    return root


def make(**parameters):
    defaults = {
        "extractor": SIFT(root=True, max_features=600),
        "encoder": VLAD(n_words=16, random_state=0),
        "verifier": SpatialVerifier(),
        "n_verify": 8,
    }
    return ImageRetriever(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def retriever(folder):
    with make().fit(folder / "photos") as fitted:
        yield fitted


@pytest.fixture
def queries(folder):
    return sorted((folder / "queries").iterdir())


def scene_of(name):
    return name.rpartition("/")[2].split("_")[0]


def test_finds_the_scene_of_every_query(retriever, queries):
    result = retriever.search(queries, k=N_VIEWS - 1)
    for query in result:
        assert query.hits[0].verified and scene_of(query.hits[0].id) == scene_of(query.query)
    assert retriever.ids == sorted(retriever.ids) and len(retriever) == N_SCENES * (N_VIEWS - 1)


def test_transform_maps_the_query_onto_the_hit(retriever, scenes, queries):
    """The transform found agrees with the one the scene was photographed with."""
    at = {(label, view): i for i, (label, view) in enumerate(zip(scenes.labels, scenes.views, strict=True))}
    hit = retriever.search(queries[:1], k=1)[0].hits[0]
    label, view = map(int, hit.id.removesuffix(".png").split("_"))
    truth = scenes.homographies[at[label, view]] @ np.linalg.inv(scenes.homographies[at[label, 0]])
    points = hit.matches[:, :2].astype(float)
    ones = np.ones((len(points), 1))
    by_truth = np.hstack([points, ones]) @ truth.T
    by_hit = np.hstack([points, ones]) @ hit.transform.T
    error = np.linalg.norm(by_truth[:, :2] / by_truth[:, 2:] - by_hit[:, :2] / by_hit[:, 2:], axis=1)
    assert np.median(error) < 3
    assert hit.n_inliers >= 10 and np.median(np.abs(by_hit[:, :2] / by_hit[:, 2:] - hit.matches[:, 2:])) < 3


def test_verified_first_by_inliers_then_by_score(retriever, queries):
    for query in retriever.search(queries, k=100):
        keys = [(not hit.verified, -(hit.n_inliers or 0) if hit.verified else 0, -hit.score) for hit in query.hits]
        assert keys == sorted(keys) and [hit.rank for hit in query.hits] == list(range(1, len(keys) + 1))
        assert len(query.hits) == len(retriever)  # k larger than the index
        assert [hit.n_inliers is None for hit in sorted(query.hits, key=lambda hit: -hit.score)] == [False] * 8 + [
            True
        ] * 7


def test_an_indexed_image_finds_itself_with_score_one(retriever, folder):
    path = folder / "photos" / "2_1.png"
    hit = retriever.search([path], k=1)[0].hits[0]
    assert hit.id == "2_1.png" and hit.score == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(hit.transform / hit.transform[2, 2], np.eye(3), atol=1e-3)


def test_search_by_id_leaves_the_image_itself_out(retriever, folder):
    by_id = retriever.search(ids=["2_1.png"], k=5)[0]
    by_path = retriever.search([folder / "photos" / "2_1.png"], k=6)[0]
    assert [hit.id for hit in by_id.hits] == [hit.id for hit in by_path.hits if hit.id != "2_1.png"]
    with pytest.raises(KeyError, match="'none.png'"):
        retriever.search(ids=["2_1.png", "none.png"])


def test_search_by_region(retriever, queries):
    whole = retriever.search(queries[:1], k=1)[0]
    x, y = np.median(whole.hits[0].matches[:, :2], axis=0)
    box = (x - 120, y - 120, x + 120, y + 120)
    region = retriever.search(queries[:1], k=1, boxes=[box])[0]
    assert region.hits[0].id.split("_")[0] == scene_of(region.query) and region.box == tuple(map(float, box))
    assert (region.hits[0].matches[:, :2] >= np.array(box[:2]) - 1).all()
    assert (region.hits[0].matches[:, :2] <= np.array(box[2:]) + 1).all()
    same = retriever.search([ImageRegion(queries[0], box)], k=1)[0]
    assert same.hits[0].id == region.hits[0].id and same.hits[0].n_inliers == region.hits[0].n_inliers


def test_search_within(retriever, queries):
    allowed = ["0_1.png", "3_2.png"]
    assert set(retriever.search(queries[:1], k=5, within=allowed).ids[0]) == set(allowed)


def test_every_form_of_query(retriever, queries):
    names = retriever.search(str(queries[0]), k=3).ids
    for query in (
        [queries[0]],
        [np.asarray(Image.open(queries[0]))],
        [Image.open(queries[0])],
        [queries[0].open("rb")],
    ):
        assert retriever.search(query, k=3).ids == names
        if hasattr(query[0], "close"):
            query[0].close()


def test_query_without_features_finds_nothing(retriever):
    result = retriever.search([np.full((80, 80), 128, np.uint8)], k=3)
    assert result[0].hits == () and result[0].n_features == 0


def test_jobs_do_not_change_anything(folder, queries):
    outcomes = []
    for n_jobs in (1, 3):
        with make(n_jobs=n_jobs).fit(folder / "photos") as fitted:
            outcomes.append([json.loads(line)["results"] for line in fitted.search(queries, k=20).to_json_lines()])
    assert outcomes[0] == outcomes[1]


def test_save_load_and_no_pickle(retriever, queries, tmp_path):
    path = retriever.save(tmp_path / "photos.cvr")
    with ImageRetriever.load(path) as loaded:
        assert loaded.search(queries, k=20).ids == retriever.search(queries, k=20).ids
        assert loaded.n_verify == 8 and repr(loaded.encoder) == repr(retriever.encoder)
    with pytest.raises(StoreError, match="exists"):
        retriever.save(path)
    with pytest.raises(TypeError, match=r"use save\(path\)"):
        pickle.dumps(retriever)
    assert pickle.loads(pickle.dumps(make())).n_verify == 8
    with pytest.raises(TypeError, match="metric cannot be changed"):
        ImageRetriever.load(path, metric="l2")


def test_without_verifier(retriever, queries, tmp_path):
    with ImageRetriever.load(retriever.save(tmp_path / "p.cvr"), verifier=None) as plain:
        hits = plain.search(queries[:1], k=5)[0].hits
        assert all(hit.n_inliers is None and not hit.verified for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_add_remove_compact(folder, queries, tmp_path):
    with make(location=tmp_path / "p.cvr").fit(folder / "photos") as fitted:
        before = fitted.search(queries, k=20).ids
        report = fitted.add(queries, ids=[f"new {i}" for i in range(len(queries))])
        assert (report.n_added, report.n_unchanged, report.n_replaced) == (N_SCENES, 0, 0)
        assert fitted.search(queries, k=1).ids == [[f"new {i}"] for i in range(len(queries))]
        again = fitted.add(folder / "photos")
        assert (again.n_added, again.n_unchanged) == (0, N_SCENES * (N_VIEWS - 1))
        fitted.remove([f"new {i}" for i in range(len(queries))])
        assert fitted.search(queries, k=20).ids == before
        size = fitted.info()["n_bytes"]
        fitted.compact()
        assert fitted.info()["n_bytes"] < size and fitted.search(queries, k=20).ids == before
        with pytest.raises(KeyError, match="new 0"):
            fitted.remove(["0_1.png", "new 0"])
        assert "0_1.png" in fitted.ids


def test_changed_file_replaces_the_old_image(folder, scenes, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(scenes.images[0]).save(path)
    with make(verifier=None).fit([folder / "photos", path]) as fitted:
        Image.fromarray(scenes.images[-1]).save(path)
        report = fitted.add([path])
        assert report.n_replaced == 1 and len(fitted) == N_SCENES * (N_VIEWS - 1) + 1
        assert fitted.search([scenes.images[-1]], k=2).scores[0][0] == pytest.approx(1, abs=1e-5)
        assert path.as_posix() in fitted.search([scenes.images[-1]], k=2).ids[0]


def test_two_retrievers_see_each_others_commits(folder, queries, tmp_path):
    with (
        make(location=tmp_path / "p.cvr").fit(folder / "photos") as one,
        ImageRetriever.load(tmp_path / "p.cvr") as other,
    ):
        one.add(queries[:1], ids=["query"])
        assert other.search(queries[:1], k=1).ids == [["query"]]
        other.remove(["query"])
        assert "query" not in one.search(queries[:1], k=20).ids[0]


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_unreadable_images(folder, tmp_path, on_error):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    images = [folder / "photos" / "0_1.png", bad, folder / "photos" / "1_1.png", tmp_path / "none.jpg"]
    location = tmp_path / "p.cvr"
    model = make(on_error=on_error, location=location, encoder=VLAD(4, random_state=0))
    if on_error == "raise":
        with pytest.raises(ImageReadError, match="bad"):
            model.fit(images)
        # what was finished before the error is kept, and the index goes on from there
        with ImageRetriever.load(location, on_error="skip") as resumed:
            resumed.add(images)
            assert len(resumed) == 2
        return
    with model.fit(images) as fitted:
        assert len(fitted) == 2
        assert fitted.report_.failures == fitted.failures
        assert [(path, "known format" in why or "not exist" in why) for path, why in fitted.failures] == [
            (str(bad), True),
            (str(tmp_path / "none.jpg"), True),
        ]
        Image.open(images[0]).rotate(10).save(bad)
        assert fitted.add([bad]).n_added + fitted.report_.n_replaced == 1
        assert [path for path, _ in fitted.failures] == [str(tmp_path / "none.jpg")]
        result = fitted.search([images[0], tmp_path / "none.jpg"], k=1)
        assert len(result) == 1 and result.failures[0][0] == str(tmp_path / "none.jpg")


def test_images_without_features_are_kept_and_never_found(folder, queries):
    blank = [np.full((60, 60), 90, np.uint8), np.zeros((1, 1), np.uint8)]
    with make(n_verify=50).fit([folder / "photos"]) as fitted:
        report = fitted.add(blank, ids=["blank", "dot"])
        assert report.n_empty == 2 and "blank" in fitted.ids
        found = fitted.search(queries, k=100).ids
        assert all("blank" not in names and "dot" not in names for names in found)
        assert fitted.search(ids=["blank"], k=3)[0].hits == ()


def test_only_images_without_features():
    with make().fit([np.full((60, 60), 90, np.uint8)]) as fitted:
        assert len(fitted) == 1 and fitted.search([np.full((60, 60), 90, np.uint8)])[0].hits == ()
        # the encoder is learned once there is something to learn from
        noise = np.random.default_rng(0).integers(0, 256, (2, 80, 80)).astype(np.uint8)
        fitted.add(noise)
        assert fitted.search(noise[:1], k=1).ids == [["image-000002"]]


def test_nothing_at_all():
    with make().fit([]) as fitted:
        assert len(fitted) == 0 and fitted.search([np.full((60, 60), 90, np.uint8)])[0].hits == ()


def test_pipeline_as_encoder(folder, queries, tmp_path):
    encoder = make_pipeline(VLAD(8, random_state=0), PCAWhitening(6, power=0.25))
    with make(encoder=encoder).fit(folder / "photos") as fitted:
        found = fitted.search(queries, k=5)
        assert fitted.encoder_.transform(SIFT(root=True).transform(queries[:1])).shape == (1, 6)
        with ImageRetriever.load(fitted.save(tmp_path / "p.cvr")) as loaded:
            again = loaded.search(queries, k=5)
            assert again.ids == found.ids
            for one, other in zip(found.scores, again.scores, strict=True):
                np.testing.assert_array_equal(one, other)


def test_fitted_codebook_is_kept(folder):
    features = SIFT(root=True).transform(sorted((folder / "photos").iterdir())[:4])
    from sklearn.cluster import KMeans

    words = KMeans(5, n_init=1, random_state=0).fit(features.descriptors)
    with make(encoder=VLAD(codebook=words)).fit(folder / "photos") as fitted:
        assert fitted.search([next((folder / "photos").iterdir())], k=1)[0].hits[0].score == pytest.approx(1, abs=1e-5)


def test_temporary_index_goes_with_the_object(folder):
    fitted = make().fit(folder / "photos")
    location = fitted.path_
    assert location.is_dir()
    fitted.close()
    assert not location.exists()


def test_location_must_be_free(folder, tmp_path):
    make(location=tmp_path / "p.cvr").fit(folder / "photos").close()
    with pytest.raises(StoreError, match="exists"):
        make(location=tmp_path / "p.cvr").fit(folder / "photos")


def test_policy_is_stored_with_the_index(folder, tmp_path):
    extractor = SIFT(root=True, reader=ImageReader(max_size=200, exif="ignore"))
    with make(extractor=extractor).fit(folder / "photos") as fitted:
        with ImageRetriever.load(fitted.save(tmp_path / "p.cvr")) as loaded:
            assert loaded.extractor.reader.max_size == 200 and loaded.extractor.reader.exif == "ignore"


def test_clone_is_unfitted_and_unfitted_is_said(retriever):
    fresh = clone(retriever)
    for use in (lambda: fresh.search(["a"]), lambda: fresh.add(["a"]), lambda: fresh.remove(["a"]), lambda: fresh.ids):
        with pytest.raises(NotFittedError):
            use()


@pytest.mark.parametrize(
    "parameters", [{"metric": "euclid"}, {"on_error": "ignore"}, {"n_verify": 0}, {"max_train_images": 0.5}]
)
def test_bad_parameters(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of ImageRetriever"):
        make(**parameters).fit([])


def test_bad_searches(retriever, queries):
    with pytest.raises(ValueError, match="either X"):
        retriever.search()
    with pytest.raises(ValueError, match="either X"):
        retriever.search(queries, ids=["0_1.png"])
    with pytest.raises(ValueError, match="5 queries, but 1 boxes"):
        retriever.search(queries, boxes=[None])
    with pytest.raises(ValueError, match="outside of"):
        retriever.search(queries[:1], boxes=[(5000, 0, 6000, 10)])
    with pytest.raises(ValueError, match="'k' parameter"):
        retriever.search(queries, k=0)
    with pytest.raises(KeyError, match="nowhere"):
        retriever.search(queries, within=["nowhere"])
    with pytest.raises(ImageReadError, match="does not exist"):
        retriever.search(["none.jpg"])


def test_json_lines(retriever, queries):
    lines = list(retriever.search(queries[:2], k=2).to_json_lines())
    value = json.loads(lines[0])
    assert value["query"] == str(queries[0]) and value["seconds"] > 0
    assert list(value["results"][0])[:5] == ["rank", "id", "path", "score", "n_inliers"]
    assert value["results"][0]["rank"] == 1 and len(lines) == 2


def test_report_and_figure(retriever, queries, tmp_path):
    result = retriever.search(queries[:2], k=3)
    text = result.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<html" in text and result.ids[0][0] in text
    import matplotlib

    matplotlib.use("Agg")
    assert result.show().axes
    assert "SearchResult of 2 queries" in repr(result) and len(result[:1]) == 1


def test_encoder_of_images_learns_from_files_and_arrays(folder, scenes, tmp_path):
    """What takes images is given them, not stored features; the verifier's features are of another extractor."""
    encoder = make_pipeline(SIFT(root=True, max_features=200), VLAD(4, random_state=0))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    photos = sorted((folder / "photos").iterdir())
    with make(encoder=encoder, on_error="skip").fit([broken, *photos]) as retriever:
        assert [path for path, _ in retriever.failures] == [str(broken)] and len(retriever) == len(photos)
        expected = make_pipeline(SIFT(root=True, max_features=200), VLAD(4, random_state=0)).fit_transform(photos)
        (hits,) = retriever.search([photos[3]], k=len(photos))
        scores = {hit.id: hit.score for hit in hits.hits}
        for path, vector in zip(photos, expected, strict=True):
            if str(path) in scores:
                assert scores[str(path)] == pytest.approx(float(vector @ expected[3]), abs=1e-5)
        assert hits.hits[0].id == str(photos[3]) and hits.hits[0].verified
        retriever.add(scenes.images[:1], ids=["array"])
        retriever.save(tmp_path / "copy.cvr")
    with ImageRetriever.load(tmp_path / "copy.cvr") as opened:
        assert opened.search(scenes.images[:1], k=1).ids == [["array"]]
    with make(encoder=encoder).fit(scenes.images[:4]) as of_arrays:
        assert of_arrays.search(scenes.images[2:3], k=1).ids == [["image-000003"]]
    with pytest.raises(ImageReadError, match="broken"):
        make(encoder=encoder).fit([broken, *photos])
