"""ImageRetriever whose vectors are in Milvus: crashes between the two, copies, moving there and back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    SIFT,
    VLAD,
    BagOfWords,
    DenseIndex,
    ImageRetriever,
    InvertedIndex,
    KMeansCodebook,
    MilvusIndex,
    StoreError,
    TfIdf,
)
from cvretrieval.datasets import make_scenes
from cvretrieval.index.milvus_collection import Collection
from tests.milvus_lite import HAS_MILVUS, database, make_index

pytestmark = pytest.mark.skipif(not HAS_MILVUS, reason="needs pymilvus and milvus-lite")

EXTRACTOR = SIFT(root=True, max_features=100)


@pytest.fixture(scope="module")
def images():
    scenes = make_scenes(n_scenes=4, n_views=4, image_size=(200, 150), random_state=1).images
    return [*scenes[:9], np.zeros((60, 80), np.uint8), *scenes[9:]]


@pytest.fixture(scope="module")
def codebook(images):
    return KMeansCodebook(16, random_state=0).fit(EXTRACTOR.transform(images))


@pytest.fixture
def make(codebook, tmp_path):
    def build(index, location="photos.cvr", encoder=None):
        return ImageRetriever(
            extractor=EXTRACTOR, encoder=encoder or VLAD(codebook=codebook), index=index, location=tmp_path / location
        )

    return build


def names(n):
    return [f"{i:02d}" for i in range(n)]


def answers(retriever, queries, **options):
    result = retriever.search(queries, k=20, **options)
    return [[(hit.id, hit.score) for hit in query.hits] for query in result]


def held_in_milvus(retriever):
    """Vectors in Milvus, whoever put them there, and nothing of what is removed."""
    return retriever._current_engine()._collection.list_keys()


def test_through_all_changes_it_finds_what_dense_index_finds(make, images):
    retriever, expected = make(make_index()), make(None, "dense.cvr")
    retriever.fit(images[:8], ids=names(8))
    expected.fit(images[:8], ids=names(8))
    assert answers(retriever, images[-3:]) == answers(expected, images[-3:])
    for each in (retriever, expected):
        each.add(images[8:], ids=names(17)[8:])
        each.remove(["02", "11"])
    assert answers(retriever, images[-3:]) == answers(expected, images[-3:])
    within = names(17)[3:9]
    assert answers(retriever, images[-2:], within=within) == answers(expected, images[-2:], within=within)
    assert answers(retriever, None, ids=["05"]) == answers(expected, None, ids=["05"])
    assert len(held_in_milvus(retriever)) == 14  # of 17 images two are removed, one is blank
    opened = ImageRetriever.load(retriever.path_)
    assert answers(opened, images[-3:]) == answers(expected, images[-3:])
    assert opened.compact() is opened
    assert answers(opened, images[-3:]) == answers(expected, images[-3:])
    shutil.rmtree(opened.path_ / "engine")  # it is a copy
    assert answers(ImageRetriever.load(opened.path_), images[-3:]) == answers(expected, images[-3:])


@pytest.mark.parametrize("place", ["before", "between", "behind"])
def test_a_crash_between_milvus_and_the_key_list_leaves_no_double_and_no_ghost(make, images, monkeypatch, place):
    """Before anything is inserted, after a part of it, and when all is in Milvus and nothing of it is written here."""
    expected = make(None, "dense.cvr").fit(images, ids=names(17)).remove(["04"])
    retriever = make(make_index()).fit(images[:6], ids=names(6))

    class Crash(BaseException):
        pass

    def crash(*arguments, **options):
        raise Crash

    with monkeypatch.context() as patch:
        if place == "behind":
            patch.setattr(MilvusIndex, "flush", crash)
        else:
            whole = Collection.upsert

            def part(self, keys, rows):
                if place == "between":
                    whole(self, keys[:4], rows[:4])
                raise Crash

            patch.setattr(Collection, "upsert", part)
        with pytest.raises(Crash):
            retriever.add(images[6:], ids=names(17)[6:])
    # Another process, which removes an image before it does anything else, and the run again.
    again = ImageRetriever.load(retriever.path_)
    again.remove(["04"])
    assert answers(again, images[-3:]) == answers(expected, images[-3:])
    keys = held_in_milvus(again)
    assert len(keys) == 15 and set(keys) == {r.key for r in again._store.records() if r.status == "ok"}


def test_an_image_that_is_removed_after_a_crash_is_no_ghost(make, images, monkeypatch):
    """It is in Milvus, its key never came into the list, and the manifest has let it go."""
    retriever = make(make_index()).fit(images[:6], ids=names(6))

    def crash(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MilvusIndex, "flush", crash)
        with pytest.raises(KeyboardInterrupt):
            retriever.add(images[6:9], ids=names(9)[6:])
    again = ImageRetriever.load(retriever.path_)
    again.remove(["07"])
    assert "07" not in [name for name, _ in answers(again, [images[7]])[0]]
    assert len(held_in_milvus(again)) == 9
    again.compact()
    assert len(held_in_milvus(again)) == 8


def test_a_reader_of_an_older_state_takes_nothing_away_from_others(make, images):
    retriever = make(make_index()).fit(images[:6], ids=names(6))
    reader = ImageRetriever.load(retriever.path_)
    before = answers(reader, images[-1:])
    store = reader._store  # as of now, whatever is committed
    retriever.add(images[6:], ids=names(17)[6:])
    engine = reader._engine._up_to_date(store, reader._template(), None, by_writer=False)
    assert len(engine) == 6 and len(held_in_milvus(retriever)) == 16
    assert len(MilvusIndex.open(retriever.path_ / "engine")) == 16
    assert len(before[0]) == 6 and len(answers(reader, images[-1:])[0]) == 16


def test_where_the_vectors_are_is_in_the_settings_and_a_new_index_takes_no_others(make, images):
    retriever = make(make_index()).fit(images[:5])
    stored = json.loads((retriever.path_ / "index.json").read_text())["config"]["index"]["params"]
    assert stored["uri"] == database() and stored["collection"].startswith("cvretrieval_")
    with pytest.raises(ValueError, match=f"has a collection '{stored['collection']}' already"):
        make(make_index(collection=stored["collection"]), "second.cvr").fit(images[:5])


def test_a_copy_has_a_collection_of_its_own(make, images, tmp_path):
    retriever = make(make_index()).fit(images[:9], ids=names(9))
    copied = ImageRetriever.load(retriever.save(tmp_path / "copy.cvr"))
    assert copied.index.collection != retriever._template().collection
    copied.remove(["03"])
    assert answers(retriever, images[3:4])[0][0][0] == "03"
    assert len(answers(copied, images[3:4])[0]) == 8


def test_a_temporary_index_leaves_nothing_in_milvus(codebook, images, tmp_path):
    index = MilvusIndex(tmp_path / "own.db")
    retriever = ImageRetriever(extractor=EXTRACTOR, encoder=VLAD(codebook=codebook), index=index).fit(images[:5])
    collection = retriever._current_engine()._collection
    retriever.close()
    with pytest.raises(StoreError, match="no collection"):
        collection.open()
    collection.close()


def test_too_many_dimensions_are_refused_before_anything_is_in_milvus(make, images):
    features = EXTRACTOR.transform(images)
    encoder = VLAD(codebook=KMeansCodebook(257, random_state=0).fit(features))
    retriever = make(make_index(collection="too_wide"), encoder=encoder)
    with pytest.raises(ValueError, match=r"32896 dimensions, but Milvus holds at most 32768.*PCAWhitening"):
        retriever.fit(images)
    with pytest.raises(StoreError, match="has no collection 'too_wide'"):
        MilvusIndex(database(), "too_wide")._new_collection(3).open()


def test_moved_to_milvus_and_back_it_ranks_the_same(make, images):
    retriever = make(DenseIndex("l2")).fit(images[:-2], ids=names(15))
    expected = answers(retriever, images[-3:])
    assert retriever.change_index(make_index(metric="l2")) is retriever
    assert answers(retriever, images[-3:]) == expected
    opened = ImageRetriever.load(retriever.path_)
    assert type(opened.index) is MilvusIndex and answers(opened, images[-3:]) == expected
    opened.change_index(DenseIndex("l2"))
    assert answers(opened, images[-3:]) == expected and not (opened.path_ / "engine").exists()
    opened = ImageRetriever.load(retriever.path_)
    assert opened.index is None and opened.metric == "l2" and answers(opened, images[-3:]) == expected
    with pytest.raises(ValueError, match="holds dense vectors, but InvertedIndex takes sparse ones"):
        opened.change_index(InvertedIndex())
    assert answers(opened, images[-3:]) == expected


def test_bags_of_words_move_to_a_sparse_collection_and_back(make, images, codebook):
    encoder = make_pipeline(BagOfWords(codebook=codebook, norm=None, sparse=True), TfIdf())
    retriever = make(InvertedIndex("inner_product", idf=None), encoder=encoder).fit(images[:-2], ids=names(15))
    expected = answers(retriever, images[-3:])
    retriever.change_index(make_index(metric="inner_product", structure="sparse"))
    assert answers(retriever, images[-3:]) == expected and len(expected[0]) > 3
    retriever.change_index(InvertedIndex("inner_product", idf=None))
    assert answers(ImageRetriever.load(retriever.path_), images[-3:]) == expected
