"""A network to search and SIFT to verify, in one retriever: batches, files, images that only one of the two can use."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    SIFT,
    AverageQueryExpansion,
    ImageReader,
    ImageRetriever,
    PCAWhitening,
    SpatialVerifier,
    StoreError,
)
from cvretrieval._validation import ImageReadError
from cvretrieval.datasets import load_dataset, make_scenes
from cvretrieval.deep import AML, MAC, RMAC, Backbone, GeM, NetVLAD
from cvretrieval.deep.inference import runner
from cvretrieval.images import ImageRegion
from cvretrieval.retrieval.evaluation import evaluate_method
from tests.deep.instances import BACKBONE


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep photos")
    scenes = make_scenes(n_scenes=4, n_views=3, image_size=(160, 120), random_state=5)
    for image, label, view in zip(scenes.images, scenes.labels, scenes.views, strict=True):
        path = root / f"scene {label}" / f"{view}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def build(encoder, **parameters):
    parameters = {"extractor": SIFT(max_features=150), "verifier": SpatialVerifier(), **parameters}
    return ImageRetriever(encoder=encoder, random_state=0, **parameters)


@pytest.mark.parametrize(
    "encoder",
    [
        GeM(BACKBONE, scales=(1, 0.5)),
        RMAC(BACKBONE, whitening=PCAWhitening(6), random_state=0),
        make_pipeline(MAC(BACKBONE), PCAWhitening(5)),
        NetVLAD(BACKBONE, n_clusters=3, random_state=0),
    ],
    ids=["GeM", "RMAC", "pipeline", "NetVLAD"],
)
def test_index_search_save_load_add(encoder, photos, tmp_path):
    retriever = build(encoder, location=tmp_path / "a.cvr", n_jobs=2).fit([photos / "scene 0", photos / "scene 1"])
    query = [photos / "scene 2" / "0.png"]
    vectors = encoder.fit(sorted(photos.glob("scene [01]/*.png"))).transform(query)
    np.testing.assert_allclose(retriever.encoder_.transform(query), vectors, atol=1e-4)
    loaded = ImageRetriever.load(tmp_path / "a.cvr")
    assert loaded.add(photos).n_added == 6 and len(loaded) == 12
    found = loaded.search(query, k=12)
    assert found.ids[0][0] == "scene 2/0.png" and found.n_inliers[0][0] > 20
    assert found.scores[0][0] == pytest.approx(1, abs=1e-5)
    stored = loaded._store.vectors([record.key for record in loaded._store.records()])
    paths = [record.path for record in loaded._store.records()]
    np.testing.assert_allclose(stored, loaded.encoder_.transform(paths), atol=2e-4)
    assert loaded.search(ids=["scene 2/0.png"], k=3).ids[0][0] != "scene 2/0.png"
    again = ImageRetriever.load(loaded.save(tmp_path / "b.cvr"))
    assert again.search(query, k=3).ids == loaded.search(query, k=3).ids and again.check() == []


def test_images_reach_the_network_in_its_batches(photos, monkeypatch):
    shapes = []
    run = runner._run
    monkeypatch.setattr(
        runner, "_run", lambda net, pixels, *rest: shapes.append(pixels.shape) or run(net, pixels, *rest)
    )
    retriever = build(GeM(BACKBONE, batch_size=8, image_size=80), n_jobs=2).fit(photos)
    assert [shape[0] for shape in shapes] == [1, 8, 4]  # one vector is tried out before
    shapes.clear()
    retriever.search(sorted(photos.glob("*/1.png")), k=2)
    assert [shape[0] for shape in shapes] == [4]


def test_the_network_is_loaded_once(photos, tmp_path, monkeypatch):
    backbone = Backbone("resnet18", weights=None, layer="layer1", random_state=77)
    build(GeM(backbone), location=tmp_path / "a.cvr").fit(photos / "scene 0").close()
    built = []
    build_network = Backbone.build
    monkeypatch.setattr(Backbone, "build", lambda self, **options: built.append(1) or build_network(self, **options))
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded:
        for _ in range(3):
            loaded.search(photos / "scene 0" / "1.png")
    assert len(built) == 1


def test_unreadable_images_are_named_and_the_others_are_described(photos, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, path in enumerate(sorted(photos.glob("*/*.png"))):
        os.link(path, folder / f"{i}.png")
    (folder / "3x.png").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(folder / "tiny.png")  # enough for SIFT, not for this network
    encoder = GeM(Backbone("vgg11", weights=None))
    for verifier in (SpatialVerifier(), None):
        retriever = build(encoder, verifier=verifier, extractor=None, on_error="skip", n_jobs=2).fit(folder)
        assert len(retriever) == 12 and retriever.report_.n_added == 12
        reasons = {os.path.basename(path): reason for path, reason in retriever.failures}
        assert set(reasons) == {"3x.png", "tiny.png"} and "network cannot take" in reasons["tiny.png"]
        found = retriever.search([folder / "tiny.png", folder / "5.png"], k=1)
        assert found.ids == [["5.png"]] and len(found.failures) == 1


def test_without_a_verifier_no_local_features_are_extracted(photos, tmp_path):
    retriever = build(GeM(BACKBONE), extractor=None, verifier=None, location=tmp_path / "a.cvr").fit(photos)
    assert retriever.info()["n_features"] == 0 and retriever.report_.n_empty == 0
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded:
        assert loaded.extractor is None
        result = loaded.search(photos / "scene 1" / "1.png", k=2)
        assert result.ids[0][0] == "scene 1/1.png" and result[0].n_features is None
        result.to_html(tmp_path / "r.html")
        loaded.remove(["scene 1/1.png"]).compact()
        assert len(loaded) == 11 and loaded.check() == []
        loaded.set_params(verifier=SpatialVerifier())
        with pytest.raises(ValueError, match="no local features to verify"):
            loaded.search(photos / "scene 1" / "1.png")
    with pytest.raises(ValueError, match="no local features to verify"):
        ImageRetriever.load(tmp_path / "a.cvr", verifier=SpatialVerifier())


def test_an_image_without_local_features_is_found_by_the_network(photos):
    red, blue = (np.full((60, 80, 3), colour, dtype=np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    retriever = build(GeM(BACKBONE)).fit([*sorted(photos.glob("*/*.png")), red, blue])
    assert retriever.report_.n_empty == 0
    found = retriever.search([red], k=3)
    assert found[0].n_features == 0 and found.ids[0][0] == "image-000001" and not found[0].hits[0].verified


def test_what_is_missing_is_said_before_an_index_is_made(photos, tmp_path):
    with pytest.raises(StoreError, match=r"none\.pth does not exist"):
        build(GeM(Backbone("resnet18", weights=tmp_path / "none.pth")), location=tmp_path / "a.cvr").fit(photos)
    assert not (tmp_path / "a.cvr").exists()


def test_an_index_knows_its_file_of_weights(photos, tmp_path):
    def write(seed):
        network = Backbone("resnet18", weights=None, random_state=seed).build().network.network
        torch.save(network.state_dict(), tmp_path / "w.pth")

    write(1)
    encoder = GeM(Backbone("resnet18", weights=tmp_path / "w.pth", layer="layer1"))
    build(encoder, location=tmp_path / "a.cvr").fit(photos / "scene 0").close()
    write(2)
    query = photos / "scene 0" / "1.png"
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded, pytest.raises(StoreError, match="not those that GeM"):
        loaded.search(query)
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded, pytest.raises(StoreError, match="not those that GeM"):
        loaded.add(photos / "scene 1")
    (tmp_path / "w.pth").unlink()
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded, pytest.raises(StoreError, match=r"w\.pth does not exist"):
        loaded.search(query)
    write(1)
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded:
        assert len(loaded) == 3 and loaded.search(query, k=1).ids == [["1.png"]]


def test_an_interrupted_index_goes_on(photos, tmp_path, monkeypatch):
    from cvretrieval.retrieval import describing

    monkeypatch.setattr(describing, "_CHUNK_IMAGES", 4)
    run, calls = runner._run, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(*arguments)

    monkeypatch.setattr(runner, "_run", interrupted)
    encoder = make_pipeline(GeM(BACKBONE, batch_size=1), PCAWhitening(3))
    with pytest.raises(KeyboardInterrupt):
        build(GeM(BACKBONE, batch_size=1), location=tmp_path / "a.cvr", extractor=None).fit(photos)
    monkeypatch.setattr(runner, "_run", run)
    with ImageRetriever.load(tmp_path / "a.cvr") as loaded:
        report = loaded.add(photos)
        assert report.n_added + report.n_unchanged == 12 and len(loaded) == 12
    # Interrupted while it is learned, nothing is there yet.
    calls.clear()
    monkeypatch.setattr(runner, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(encoder, location=tmp_path / "b.cvr").fit(photos)
    monkeypatch.setattr(runner, "_run", run)
    with ImageRetriever.load(tmp_path / "b.cvr") as loaded:
        assert loaded.add(photos).n_added == 12
        assert loaded.search(photos / "scene 1" / "1.png", k=1).ids == [["scene 1/1.png"]]


def test_protocols_decide_how_the_network_reads_images(photos):
    retriever = build(make_pipeline(GeM(BACKBONE, image_size=80), PCAWhitening(4)), verifier=None, extractor=None)
    from cvretrieval.retrieval.evaluation import _set_exif

    _set_exif(retriever, "ignore")
    assert retriever.encoder[0].reader.exif == "ignore" and retriever.extractor is None
    measured = evaluate_method(retriever, load_dataset(photos), ["recall@1"])
    assert 0 <= next(iter(measured.result.figures.values())) <= 1 and "extractor" not in measured.stages
    named = build(GeM(BACKBONE, reader=ImageReader(max_size=90)), extractor=None)
    _set_exif(named, "ignore")
    assert (named.encoder.reader.max_size, named.encoder.reader.exif) == (90, "ignore")
    assert named.extractor.reader.exif == "ignore"


def test_regions_of_the_best_candidates_decide(photos, tmp_path):
    aml = AML(BACKBONE, n_expand=1)
    build(RMAC(BACKBONE), extractor=None, verifier=aml, n_verify=5, location=tmp_path / "a.cvr").fit(photos).close()
    retriever = ImageRetriever.load(tmp_path / "a.cvr")
    assert retriever.verifier.get_params()["n_expand"] == 1
    query, box = photos / "scene 3" / "2.png", (30, 20, 110, 100)
    (result,) = retriever.search(query, k=8, boxes=[box])
    plain = ImageRetriever.load(tmp_path / "a.cvr", verifier=None).search(query, k=8, boxes=[box])
    candidates = plain.ids[0][:5]
    ranking = aml.rerank(ImageRegion(query, box), [photos / name for name in candidates])
    assert [hit.id for hit in result.hits] == [candidates[i] for i in ranking.order] + plain.ids[0][5:]
    np.testing.assert_allclose([hit.score for hit in result.hits[:5]], ranking.scores[ranking.order], atol=1e-5)
    for hit, i in zip(result.hits, ranking.order, strict=False):
        np.testing.assert_allclose([*hit.outline[0], *hit.outline[2]], ranking.boxes[i], atol=1e-6)
    assert result.hits[7].outline is None and result.hits[7].n_inliers is None and not result.hits[0].verified
    assert "localisation" in result.timings
    by_id = retriever.search(ids=["scene 3/2.png"], k=3)[0]
    assert by_id.hits[0].id != "scene 3/2.png" and by_id.hits[0].outline is not None


def test_regions_need_the_files(photos, tmp_path):
    files = tmp_path / "photos"
    shutil.copytree(photos / "scene 0", files)
    retriever = build(MAC(BACKBONE), extractor=None, verifier=AML(BACKBONE), location=tmp_path / "a.cvr").fit(files)
    (files / "1.png").unlink()
    with pytest.raises(ImageReadError, match=r"1\.png"):
        retriever.search(photos / "scene 0" / "0.png")
    hits = ImageRetriever.load(tmp_path / "a.cvr", on_error="skip").search(photos / "scene 0" / "0.png")[0].hits
    assert hits[0].outline is not None and hits[-1].id == "1.png" and hits[-1].outline is None
    retriever.add([np.asarray(Image.open(photos / "scene 0" / "1.png"))], ids=["array"])
    with pytest.raises(ValueError, match="'array' was indexed from an array"):
        retriever.search(photos / "scene 0" / "1.png")
    with pytest.raises(ValueError, match="give a verifier, such as"):
        build(MAC(BACKBONE), verifier=AML(BACKBONE), reranker=AverageQueryExpansion(verified_only=True)).fit(files)
