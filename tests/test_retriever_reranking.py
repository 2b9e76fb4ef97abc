"""Reranking inside `ImageRetriever`, and from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone

from cvretrieval import (
    SIFT,
    VLAD,
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    Diffusion,
    DiscriminativeQueryExpansion,
    ImageRetriever,
    KReciprocal,
    RerankingPipeline,
    SpatialQueryExpansion,
    SpatialVerifier,
)
from cvretrieval.cli.rerankers import Rerank, make_reranker
from cvretrieval.datasets import make_scenes

N_SCENES, N_VIEWS = 5, 4

RERANKERS = {
    "aqe": AverageQueryExpansion(2),
    "alpha-qe": AlphaQueryExpansion(3),
    "verified": AverageQueryExpansion(2, verified_only=True),
    "spatial": SpatialQueryExpansion(),
    "spatial-region": SpatialQueryExpansion(features="region"),
    "dqe": DiscriminativeQueryExpansion(2, 8),
    "dqe-verified": DiscriminativeQueryExpansion(2, 8, verified_only=True),
    "dba": DatabaseAugmentation(2),
    "k-reciprocal": KReciprocal(4, 2),
    "diffusion": Diffusion(4, 2),
    "chain": RerankingPipeline(
        [("dba", DatabaseAugmentation(2)), ("spatial", SpatialQueryExpansion()), ("d", Diffusion(4, 2))]
    ),
}


@pytest.fixture(scope="module")
def images():
    scenes = make_scenes(n_scenes=N_SCENES, n_views=N_VIEWS, random_state=3)
    names = [f"{label}_{view}" for label, view in zip(scenes.labels, scenes.views, strict=True)]
    return dict(zip(names, scenes.images, strict=True))


def make(**parameters):
    defaults = {
        "extractor": SIFT(root=True, max_features=250),
        "encoder": VLAD(n_words=16, random_state=0),
        "verifier": SpatialVerifier(),
        "n_verify": 6,
    }
    return ImageRetriever(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted(images):
    """View 0 of each scene is a query; a blank image is in the index, too."""
    photos = {name: image for name, image in images.items() if not name.endswith("_0")}
    photos["blank"] = np.zeros((80, 80), dtype=np.uint8)
    with make().fit(list(photos.values()), ids=list(photos)) as retriever:
        yield retriever


@pytest.fixture
def retriever(fitted):
    yield fitted
    fitted.set_params(reranker=None, verifier=SpatialVerifier())


@pytest.fixture(scope="module")
def queries(images):
    return [image for name, image in images.items() if name.endswith("_0")]


@pytest.fixture(params=RERANKERS.values(), ids=RERANKERS.keys())
def reranker(request):
    return clone(request.param)


def test_finds_the_other_views(retriever, reranker, queries):
    retriever.reranker = reranker
    result = retriever.search(queries, k=15)
    for scene, (query, ids) in enumerate(zip(result, result.ids, strict=True)):
        assert {name.split("_")[0] for name in ids[:3]} == {str(scene)}
        assert sorted(ids) == sorted(name for name in retriever.ids if name != "blank")
        assert "reranking" in query.timings
        assert [hit.rank for hit in query.hits] == list(range(1, 16))
    assert type(reranker).__name__ in result.method["reranker"]


def test_queries_together_or_alone(retriever, reranker, queries):
    retriever.reranker = reranker
    together = retriever.search(queries, k=6)
    for i, query in enumerate(queries):
        alone = retriever.search([query], k=6)
        assert alone.ids[0] == together.ids[i]
        np.testing.assert_allclose(alone.scores[0], together.scores[i], rtol=1e-6)


def test_an_indexed_image_does_not_find_itself(retriever, reranker):
    retriever.reranker = reranker
    for name, ids in zip(retriever.ids[:4], retriever.search(ids=retriever.ids[:4], k=30).ids, strict=True):
        assert name not in ids and len(ids) == len(retriever) - 2


def test_within(retriever, reranker, queries):
    retriever.reranker = reranker
    allowed = ["0_1", "1_2", "3_3", "blank"]
    for ids in retriever.search(queries, k=10, within=allowed).ids:
        assert sorted(ids) == ["0_1", "1_2", "3_3"]


def test_a_blank_query_finds_nothing(retriever, reranker):
    retriever.reranker = reranker
    assert retriever.search([np.zeros((60, 60), dtype=np.uint8)]).ids == [[]]
    assert retriever.search(ids=["blank"]).ids == [[]]


def test_the_same_without_the_store(retriever, queries):
    """The lists are those of the reranker on the bare vectors."""
    vectors = retriever.encoder_.transform(SIFT(root=True, max_features=250).transform(queries))
    index_ids = [name for name in retriever.ids if name != "blank"]
    retriever.verifier = None
    retriever.reranker = None
    first = retriever.search(ids=index_ids, k=1)
    assert len(first) == len(index_ids)
    keys = np.array([record.key for record in retriever._store.records()[: len(index_ids)]])
    stored = retriever._current_engine().reconstruct(keys)
    for reranker in (Diffusion(4, 2), KReciprocal(4, 2), AlphaQueryExpansion(3)):
        retriever.reranker = reranker
        found = retriever.search(queries, k=5).ids
        expected = clone(reranker).fit(stored).rerank(vectors, k=5)[0]
        assert np.mean(np.array(found) == np.array(index_ids)[expected]) > 0.9


def test_verified_expansion_uses_verified_images_only(retriever, queries):
    """With a verifier that accepts nothing the query stays as it is."""
    plain = retriever.search(queries, k=8)
    retriever.verifier = SpatialVerifier(min_inliers=10_000)
    for reranker in (AverageQueryExpansion(2, verified_only=True), SpatialQueryExpansion()):
        retriever.reranker = reranker
        result = retriever.search(queries, k=8)
        assert not any(hit.verified for query in result for hit in query.hits)
        retriever.reranker = None
        assert result.ids == retriever.search(queries, k=8).ids
    assert any(hit.verified for query in plain for hit in query.hits)


def test_verified_expansion_raises_the_score_of_what_was_verified(retriever, queries):
    plain = retriever.search(queries, k=8)
    for reranker in (AverageQueryExpansion(3, verified_only=True), SpatialQueryExpansion()):
        retriever.reranker = reranker
        expanded = retriever.search(queries, k=8)
        for before, after in zip(plain, expanded, strict=True):
            scores = {hit.id: hit.score for hit in after.hits}
            gains = [scores[hit.id] - hit.score for hit in before.hits if hit.verified]
            assert np.mean(gains) > 0.01


def test_parameters_may_be_changed_between_searches(retriever, queries):
    retriever.reranker = Diffusion(4, 2)
    first = retriever.search(queries, k=5).scores
    kept = retriever._fitted_reranker
    retriever.search(queries, k=5)
    assert retriever._fitted_reranker is kept  # the graph is built once
    retriever.set_params(reranker__alpha=0.5)
    assert (np.array(first) != np.array(retriever.search(queries, k=5).scores)).any()
    assert not hasattr(retriever.reranker, "graph_")  # a parameter stays as it was given


def test_sees_what_was_added_and_removed(images, queries):
    photos = {name: image for name, image in images.items() if name[2] in "12"}
    with make(reranker=Diffusion(4, 2), verifier=None).fit(list(photos.values()), ids=list(photos)) as retriever:
        retriever.search(queries[:1])
        retriever.add([images["0_3"]], ids=["0_3"])
        assert "0_3" in retriever.search(queries[:1], k=3).ids[0]
        retriever.remove(["0_1"])
        found = retriever.search(queries[:1], k=20).ids[0]
        assert "0_1" not in found and len(found) == 10
        retriever.remove([name for name in retriever.ids if name != "0_3"])
        assert retriever.search(queries[:1]).ids == [["0_3"]]
        retriever.remove(["0_3"])
        assert retriever.search(queries[:1]).ids == [[]]


def test_an_index_remembers_its_reranker(images, queries, tmp_path):
    chain = RerankingPipeline([("qe", AlphaQueryExpansion(3, 2.0)), ("sets", KReciprocal(4, 2))])
    with make(reranker=chain, verifier=None).fit(list(images.values()), ids=list(images)) as retriever:
        expected = retriever.search(queries, k=4)
        path = retriever.save(tmp_path / "scenes.cvr")
    with ImageRetriever.load(path) as loaded:
        assert repr(loaded.reranker) == repr(chain)
        assert loaded.search(queries, k=4).ids == expected.ids
        assert "reranker" in loaded.search(queries[:1]).method
    with ImageRetriever.load(path, reranker=None) as loaded:
        assert "reranker" not in loaded.search(queries[:1]).method


def test_an_index_of_an_older_version_has_none(images, tmp_path):
    with make(location=tmp_path / "old.cvr").fit(list(images.values())[:3]):
        pass
    description = tmp_path / "old.cvr" / "index.json"
    content = json.loads(description.read_text())
    del content["config"]["reranker"]
    description.write_text(json.dumps(content))
    with ImageRetriever.load(tmp_path / "old.cvr") as loaded:
        assert loaded.reranker is None and len(loaded) == 3


def test_bad_rerankers(images):
    photos = list(images.values())[:2]
    with pytest.raises(TypeError, match="AlphaQueryExpansion"):
        make(reranker="aqe").fit(photos)
    with pytest.raises(ValueError, match="cosine"):
        make(reranker=AverageQueryExpansion(), metric="l2").fit(photos)
    with pytest.raises(ValueError, match="give a verifier"):
        make(reranker=SpatialQueryExpansion(), verifier=None).fit(photos)


def test_set_to_something_bad_later(retriever, queries):
    retriever.reranker = AverageQueryExpansion(verified_only=True)
    retriever.verifier = None
    with pytest.raises(ValueError, match="give a verifier"):
        retriever.search(queries[:1])
    retriever.reranker = AverageQueryExpansion(-1)
    with pytest.raises(ValueError, match="n_neighbors"):
        retriever.search(queries[:1])


def test_names_of_the_command_line():
    made = {name.value: make_reranker([name.value]) for name in Rerank if name is not Rerank.none}
    assert len({repr(reranker) for reranker in made.values()}) == len(made)
    assert make_reranker(["none"]) is None
    chain = make_reranker(["dba", "diffusion"])
    assert [name for name, _ in chain.steps] == ["dba", "diffusion"]
    with pytest.raises(ValueError, match="stands alone"):
        make_reranker(["none", "aqe"])
    with pytest.raises(ValueError, match="once"):
        make_reranker(["aqe", "aqe"])


@pytest.mark.parametrize("names", [["alpha-qe"], ["dba", "diffusion"], ["none"]])
def test_search_from_the_command_line(retriever, tmp_path, capsys, names):
    from cvretrieval.cli.main import main

    path = retriever.save(tmp_path / "scenes.cvr")
    options = [part for name in names for part in ("--rerank", name)]
    with pytest.raises(SystemExit) as end:
        main(["search", str(path), "--id", "0_1", "-k", "2", "--json", *options])
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert [hit["id"][0] for hit in found["results"]] == ["0", "0"]
