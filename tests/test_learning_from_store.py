"""Indexes larger than memory: features of a store in chunks, and encoders that learn from them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer

from cvretrieval import (
    SIFT,
    VLAD,
    BagOfWords,
    ImageRetriever,
    KMeansCodebook,
    LocalFeatures,
    PCAWhitening,
    PerDescriptor,
    SpatialCoordinates,
    SpatialPyramid,
    TfIdf,
    VocabularyTree,
)
from cvretrieval._state import get_state
from cvretrieval._validation import StoreError
from cvretrieval.datasets import make_scenes
from cvretrieval.retrieval import learning
from cvretrieval.retrieval.learning import StoredFeatures, learn

EXTRACTOR = SIFT(max_features=40, root=True)


@pytest.fixture(scope="module")
def images():
    scenes = make_scenes(n_scenes=3, n_views=3, random_state=0).images
    return [*scenes[:4], np.zeros((80, 90), np.uint8), *scenes[4:]]


@pytest.fixture
def retriever(images):
    with ImageRetriever(extractor=EXTRACTOR, encoder=VLAD(4, random_state=0)).fit(images) as retriever:
        yield retriever


def stored(X, images_per_chunk=3):
    return StoredFeatures(lambda keys: X[list(keys)], range(len(X)), images_per_chunk)


@pytest.fixture(scope="module")
def X(images):
    return EXTRACTOR.transform(images)


def test_features_come_in_the_order_of_ids_and_as_often_as_asked(retriever, X, monkeypatch):
    monkeypatch.setattr(learning.StoredFeatures.__init__, "__defaults__", (3,))
    for keep in (range(10), [0, 1, 2, 4, 5, 6, 8, 9]):
        gone = [retriever.ids[i] for i in range(len(retriever)) if i not in keep] if len(keep) < 10 else []
        retriever.remove(gone)
        chunks = retriever.iter_features()
        assert len(chunks) == len(list(chunks)) == -(-len(keep) // 3)
        together = LocalFeatures.concatenate(list(chunks))
        expected = X[list(keep)]
        np.testing.assert_array_equal(together.offsets, expected.offsets)
        np.testing.assert_array_equal(together.keypoints, expected.keypoints)
        np.testing.assert_allclose(together.descriptors, expected.descriptors, atol=0.51 / 512)
        assert len(together) == len(retriever.ids)
    first = next(iter(retriever.iter_features())).descriptors
    retriever.compact()
    np.testing.assert_array_equal(next(iter(retriever.iter_features())).descriptors, first)


def test_codebooks_and_encoders_fit_on_an_index(retriever, monkeypatch):
    together = LocalFeatures.concatenate(list(retriever.iter_features()))
    monkeypatch.setattr(learning.StoredFeatures.__init__, "__defaults__", (2,))
    for estimator in (
        KMeansCodebook(6, max_samples=100, random_state=0),
        VocabularyTree(3, 2, max_samples=100, random_state=0),
        BagOfWords(6, assignment="soft", random_state=0),
    ):
        expected = get_state(estimator.fit(together))[0]
        found = get_state(estimator.fit(retriever.iter_features()))[0]
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_features_of_an_index_that_was_compacted_meanwhile(images, tmp_path):
    retriever = ImageRetriever(extractor=EXTRACTOR, encoder=VLAD(4, random_state=0), location=tmp_path / "a.cvr")
    retriever.fit(images)
    with ImageRetriever.load(tmp_path / "a.cvr") as reader:
        chunks = reader.iter_features()
        retriever.remove(retriever.ids[-1:])
        retriever.compact()
        with pytest.raises(StoreError, match="removed by another process"):
            list(chunks)
        expected = list(reader.iter_features())
        chunks = reader.iter_features()
        retriever.add(images[-1:], ids=["again"])
        retriever.remove(["again"])
        retriever.compact()
        for one, other in zip(chunks, expected, strict=True):
            np.testing.assert_array_equal(one.descriptors, other.descriptors)
    retriever.close()


class Foreign(TransformerMixin, BaseEstimator):
    """An encoder of somebody else, which knows containers only."""

    input_kind = "local_features"

    def fit(self, X, y=None):
        self.sum_ = X.descriptors.sum(axis=0)
        return self

    def transform(self, X):
        return np.array([image.descriptors.sum(axis=0) for image in X])


def as_pipeline(*steps):
    return Pipeline([(f"step{i}", step) for i, step in enumerate(steps)])


@pytest.mark.parametrize(
    "encoder",
    [
        VLAD(4, random_state=0),
        make_pipeline(VLAD(4, random_state=0), PCAWhitening(3), Normalizer()),
        make_pipeline(BagOfWords(5, sparse=True, norm=None, random_state=0), TfIdf()),
        make_pipeline(PerDescriptor(PCA(6, random_state=0)), SpatialCoordinates(), VLAD(4, random_state=0)),
        make_pipeline(SpatialPyramid(BagOfWords(4, random_state=0), levels=2), "passthrough", PCA(2, random_state=0)),
        as_pipeline("passthrough", VLAD(4, random_state=0), None),
        make_pipeline(Foreign(), PCA(2, random_state=0)),
        SpatialPyramid(Foreign(), levels=2),
        make_pipeline(VLAD(4, random_state=0), PCAWhitening(3), memory="cache"),
    ],
    ids=[
        "alone",
        "whitened",
        "sparse",
        "per-descriptor",
        "pyramid",
        "passthrough",
        "foreign",
        "foreign-within",
        "memory",
    ],
)
def test_learning_by_chunks_is_learning_from_all(encoder, X, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from sklearn.base import clone

    expected = clone(encoder).fit(X)
    found = clone(encoder)
    learn(found, stored(X))
    one, other = expected.transform(X), found.transform(X)
    if hasattr(one, "toarray"):
        one, other = one.toarray(), other.toarray()
    np.testing.assert_array_equal(one, other)


def test_only_one_chunk_is_in_memory():
    """The chunks are larger than what is learned from them, and there are many."""
    import tracemalloc

    def read(keys):
        rng = np.random.default_rng(keys[0])
        return LocalFeatures(rng.random((4000 * len(keys), 32), dtype=np.float32), 4000 * np.arange(len(keys) + 1))

    features = StoredFeatures(read, range(80), 1)
    encoder = make_pipeline(VLAD(4, max_samples=2000, random_state=0), PCAWhitening(3))
    learn(encoder, StoredFeatures(read, range(4), 1))  # compile
    tracemalloc.start()
    learn(encoder, features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    chunk = 4000 * 32 * 4
    assert peak < 10 * chunk, "all chunks together are 80"


def test_the_retriever_learns_by_chunks(images, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cvretrieval.retrieval.ingestion.learn",
        lambda encoder, chunks: seen.append(len(list(chunks))) or learn(encoder, chunks),
    )
    monkeypatch.setattr(learning.StoredFeatures.__init__, "__defaults__", (2,))
    with ImageRetriever(
        extractor=EXTRACTOR, encoder=VLAD(4, random_state=0), max_train_images=7, random_state=0
    ) as retriever:
        retriever.fit(images)
        assert seen == [4]  # seven images, two at a time
        assert len(retriever.search(images[:1], k=2).ids[0]) == 2
