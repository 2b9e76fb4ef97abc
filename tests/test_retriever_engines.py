"""ImageRetriever with each engine: the same as the engine by itself, through every change, fault and process."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    ASMK,
    ITQ,
    SIFT,
    VLAD,
    AverageQueryExpansion,
    BagOfWords,
    BinaryIndex,
    DenseIndex,
    HammingEmbedding,
    ImageRetriever,
    InvertedIndex,
    KMeansCodebook,
    PQIndex,
    ProductQuantizer,
    SpatialVerifier,
    StoreError,
    TfIdf,
)
from cvretrieval.datasets import make_scenes
from cvretrieval.retrieval import engine as engine_module
from cvretrieval.retrieval.reranking import NumberedVectors
from cvretrieval.retrieval.rows import as_rows, join_rows, rows_from_arrays, rows_to_arrays

EXTRACTOR = SIFT(root=True, max_features=150)


@pytest.fixture(scope="module")
def images():
    scenes = make_scenes(n_scenes=5, n_views=4, image_size=(240, 180), random_state=1).images
    blank = np.zeros((60, 80), np.uint8)
    return [*scenes[:9], blank, *scenes[9:]]


@pytest.fixture(scope="module")
def codebook(images):
    return KMeansCodebook(150, random_state=0).fit(EXTRACTOR.transform(images))


METHODS = {
    "bow": (lambda codebook: BagOfWords(codebook=codebook, norm=None, sparse=True), InvertedIndex()),
    "bow-inner-product": (lambda codebook: BagOfWords(codebook=codebook), InvertedIndex("inner_product", idf=None)),
    "hamming": (
        lambda codebook: HammingEmbedding(codebook=codebook, random_state=0),
        InvertedIndex("hamming_embedding", burstiness="both"),
    ),
    "hamming-multiple": (
        lambda codebook: HammingEmbedding(codebook=codebook, n_query_words=3, random_state=0),
        InvertedIndex("hamming_embedding"),
    ),
    "asmk": (lambda codebook: ASMK(codebook=codebook), InvertedIndex("asmk", idf=None)),
    "asmk-binary": (lambda codebook: ASMK(codebook=codebook, binary=True, n_query_words=2), InvertedIndex("asmk")),
    "dense": (lambda codebook: VLAD(codebook=codebook), None),
    "tf-idf": (lambda codebook: make_pipeline(BagOfWords(codebook=codebook, norm=None), TfIdf()), DenseIndex("l2")),
}
WORDS = ("hamming", "hamming-multiple", "asmk", "asmk-binary")


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def make(codebook, tmp_path):
    def build(name, location=None, **parameters):
        encoder, index = METHODS[name]
        return ImageRetriever(
            extractor=EXTRACTOR, encoder=encoder(codebook), index=None if index is None else clone(index),
            location=None if location is None else tmp_path / location, **parameters,
        )  # fmt: skip

    return build


def names(n):
    return [f"{i:02d}" for i in range(n)]


def answers(retriever, queries, k=30, **options):
    result = retriever.search(queries, k=k, **options)
    return [[(hit.id, hit.score) for hit in query.hits] for query in result]


def in_engine(retriever, queries, k):
    """What the engine finds by itself, without store or cache."""
    fitted = [step for _, step in getattr(retriever.encoder_, "steps", [("", retriever.encoder_)])]
    features = retriever._stages.decode(retriever._stages.to_bytes(EXTRACTOR.transform(queries)))
    held = retriever._read_features([r.key for r in retriever._store.records()])
    encoded, asked = held, features
    for step in fitted:
        encoded = step.transform(encoded)
        asked = getattr(step, "transform_queries", step.transform)(asked)
    index = DenseIndex() if retriever.index is None else clone(retriever.index)
    keys = np.where(held.lengths > 0, np.arange(len(held)), -1)
    index.add(keys, encoded.toarray() if index.kind == "dense" and hasattr(encoded, "toarray") else encoded)
    ids = retriever.ids
    found, scores = index.search(asked, k)
    return [
        [(ids[key], score) for key, score in zip(*row, strict=True) if key >= 0]
        for row in zip(found, scores.tolist(), strict=True)
    ]


def test_finds_what_the_engine_finds(method, make, images):
    retriever = make(method).fit(images[:-3], ids=names(len(images) - 3))
    expected = in_engine(retriever, images[-3:], 30)
    assert answers(retriever, images[-3:]) == expected
    assert all(len(row) > 3 for row in expected) and not any(name == "09" for row in expected for name, _ in row)
    assert answers(retriever, [images[9]]) == [[]]


def test_ids_find_what_their_images_find(method, make, images):
    retriever = make(method).fit(images, ids=names(len(images)))
    by_id = [[(hit.id, hit.score) for hit in query.hits] for query in retriever.search(ids=["03", "09", "12"], k=25)]
    by_image = answers(retriever, [images[3], images[9], images[12]], k=25)
    for one, other, own in zip(by_id, by_image, ["03", "09", "12"], strict=True):
        assert one == [hit for hit in other if hit[0] != own][:25]


def test_any_order_of_changes_is_building_afresh(method, make, images, rng):
    expected = None
    for i in range(3):
        # The words are those of one codebook; what else is learned must be of the same images.
        retriever = make(method, f"{i}.cvr").fit(images[:4], ids=names(4))
        order = 4 + rng.permutation(len(images) - 4)
        for part in np.array_split(order, 1 + i):
            retriever.add([images[j] for j in part], ids=[f"{j:02d}" for j in part])
            retriever.add([images[0]], ids=["extra"])
            if i:
                retriever.remove(["extra"])
            if i == 2:
                retriever = ImageRetriever.load(retriever.path_)
        if not i:
            retriever.remove(["extra"]).compact()
        found = [sorted((-score, name) for name, score in row) for row in answers(retriever, images[:3])]
        if expected is None:
            expected = found
        assert found == expected
        assert retriever.check() == []


def test_within_k_beyond_the_size_and_a_verifier(method, make, images):
    retriever = make(method).fit(images, ids=names(len(images)))
    everything = answers(retriever, images[:1], k=1000)[0]
    some = {"01", "02", "09", "17"}
    (within,) = answers(retriever, images[:1], k=1000, within=sorted(some))
    assert within == [hit for hit in everything if hit[0] in some]
    retriever.verifier = SpatialVerifier()
    hits = retriever.search(images[:1], k=3)[0].hits
    assert hits[0].id == "00" and hits[0].verified


def test_a_saved_copy_and_another_process_see_the_same(method, make, images, tmp_path):
    retriever = make(method, "a.cvr").fit(images, ids=names(len(images)))
    expected = answers(retriever, images[:2])
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2]) == expected
    copy = ImageRetriever.load(retriever.save(tmp_path / "copy.cvr"))
    assert answers(copy, images[:2]) == expected
    assert copy.info()["n_images"] == len(images)
    assert type(copy.index) is type(retriever.index)


@pytest.fixture
def no_building(monkeypatch):
    """Adding to an engine is forbidden: it must come from its folder."""

    def refuse(*args, **kwargs):
        raise AssertionError("the engine was built")

    def switch(on):
        monkeypatch.undo()
        if on:
            monkeypatch.setattr(InvertedIndex, "add", refuse)

    return switch


def test_opening_builds_no_posting_lists(make, images, tmp_path, no_building):
    retriever = make("hamming", "a.cvr").fit(images[:-2], ids=names(len(images) - 2))
    before = answers(retriever, images[:1])
    no_building(True)
    assert answers(ImageRetriever.load(retriever.save(tmp_path / "copy.cvr")), images[:1]) == before
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:1]) == before
    ImageRetriever.load(tmp_path / "a.cvr").remove(["05"]).compact()
    assert "05" not in [name for name, _ in answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:1])[0]]
    no_building(False)
    ImageRetriever.load(tmp_path / "a.cvr").add(images[-2:], ids=["y", "z"])
    no_building(True)
    assert "z" in [name for name, _ in answers(ImageRetriever.load(tmp_path / "a.cvr"), images[-1:])[0]]


def engine_files(path):
    return [*sorted((path / "engine").glob("*.npy")), path / "engine" / "index.json", path / "engine" / "source.json"]


def test_damage_of_the_engine_leads_to_a_new_one(make, images, tmp_path):
    retriever = make("asmk-binary", "a.cvr").fit(images, ids=names(len(images)))
    expected = answers(retriever, images[:2])
    n_files = len(engine_files(tmp_path / "a.cvr"))
    assert n_files > 4
    for number in range(n_files):
        for damage in ("flip", "cut", "gone"):
            file = engine_files(tmp_path / "a.cvr")[number]
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 255
            if damage == "gone":
                file.unlink()
            else:
                file.write_bytes(data if damage == "flip" else data[: len(data) // 2])
            opened = ImageRetriever.load(tmp_path / "a.cvr")
            assert answers(opened, images[:2]) == expected
            assert opened.check() == []
            # Built anew, and written.
            assert len(engine_files(tmp_path / "a.cvr")) == n_files
            assert all(file.exists() for file in engine_files(tmp_path / "a.cvr"))
    shutil.rmtree(tmp_path / "a.cvr" / "engine")
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2]) == expected


def test_check_finds_damage_that_opening_does_not_look_for(make, images, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "_VERIFIED_BYTES", 0)
    retriever = make("asmk", "a.cvr").fit(images, ids=names(len(images)))
    expected = answers(retriever, images[:2])
    file = max((tmp_path / "a.cvr" / "engine").glob("*values.npy"), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[256:] = bytes(len(data) - 256)
    file.write_bytes(data)
    opened = ImageRetriever.load(tmp_path / "a.cvr")
    assert answers(opened, images[:2]) != expected
    assert opened.check() == []
    assert answers(opened, images[:2]) == expected
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2]) == expected


@pytest.mark.parametrize("name", ["vector_values", "vector_words", "vector_offsets", "vector_form"])
def test_damage_of_the_shards_is_an_error(make, images, tmp_path, name):
    retriever = make("hamming", "a.cvr").fit(images, ids=names(len(images)))
    file = tmp_path / "a.cvr" / "shards" / "00000001" / f"{name}.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    (damage,) = retriever.check()
    assert damage.path == file and set(damage.ids) == set(names(len(images)))
    file.write_bytes(data[:-8])
    shutil.rmtree(tmp_path / "a.cvr" / "engine")
    with pytest.raises(StoreError, match=f"{name}.npy is damaged"):
        ImageRetriever.load(tmp_path / "a.cvr").search(images[:1])


def test_a_store_of_an_older_copy_does_not_take_a_newer_engine(make, images, tmp_path):
    """Restored from a backup, a store gives the keys of lost images to others."""
    make("bow", "a.cvr").fit(images[:8], ids=names(8)).close()
    shutil.copytree(tmp_path / "a.cvr", tmp_path / "backup.cvr")
    ImageRetriever.load(tmp_path / "a.cvr").add(images[10:14], ids=list("abcd"))
    newer = tmp_path / "a.cvr" / "engine"
    shutil.rmtree(tmp_path / "backup.cvr" / "engine")
    shutil.copytree(newer, tmp_path / "backup.cvr" / "engine")
    restored = ImageRetriever.load(tmp_path / "backup.cvr")
    assert {name for name, _ in answers(restored, images[10:11])[0]} <= set(names(8))
    shutil.rmtree(tmp_path / "backup.cvr" / "engine")
    shutil.copytree(newer, tmp_path / "backup.cvr" / "engine")
    restored = ImageRetriever.load(tmp_path / "backup.cvr")
    restored.add(images[14:18], ids=list("efgh"))
    afresh = ImageRetriever.load(restored.save(tmp_path / "copy.cvr"))
    assert answers(restored, images[10:18]) == answers(afresh, images[10:18])
    assert answers(restored, images[14:15])[0][0][0] == "e"


def test_killed_before_the_engine_was_written(make, images, tmp_path, monkeypatch):
    """What is committed is found, and the next writer or reader brings the folder up to date."""

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    writer = make("hamming", "a.cvr").fit(images[:8], ids=names(8))
    for name in ("IndexFolder.write", "IndexFolder._clear"):
        # Before, and after the state of the engine was replaced.
        with monkeypatch.context() as patch:
            patch.setattr(f"cvretrieval.index.index_folder.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.add([images[10 + len(name) % 2]], ids=[name])
        found = answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2])
        assert found == answers(ImageRetriever.load(writer.save(tmp_path / f"{name}.cvr")), images[:2])
        assert name in [hit for hit, _ in answers(ImageRetriever.load(tmp_path / "a.cvr"), [images[10]])[0]]
    with monkeypatch.context() as patch:
        patch.setattr(engine_module._Source, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.remove(["03"])
    assert "03" not in [hit for hit, _ in answers(ImageRetriever.load(tmp_path / "a.cvr"), images[3:4])[0]]
    assert answers(writer, images[:2]) == answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2])


@pytest.mark.parametrize("method", ["bow", "hamming", "asmk"])
def test_large_indexes_are_built_in_parts(make, images, tmp_path, monkeypatch, method):
    retriever = make(method, "a.cvr").fit(images[:5], ids=names(5))
    for i in range(5, 15):
        retriever.add([images[i]], ids=[f"{i:02d}"])
    expected = answers(retriever, images[:3])
    added = []
    add = InvertedIndex.add
    monkeypatch.setattr(engine_module, "_BATCH_BYTES", 1000)
    monkeypatch.setattr(InvertedIndex, "add", lambda self, keys, rows: added.append(len(keys)) or add(self, keys, rows))
    shutil.rmtree(tmp_path / "a.cvr" / "engine")
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:3]) == expected
    assert len(added) > 3 and sum(added) == 14


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_reader_that_may_not_write(make, images, tmp_path, has_folder, monkeypatch):
    retriever = make("hamming", "a.cvr").fit(images, ids=names(len(images)))
    expected = answers(retriever, images[:2])
    retriever.close()
    if not has_folder:
        shutil.rmtree(tmp_path / "a.cvr" / "engine")

    if os.geteuid():
        for parent, _, _ in os.walk(tmp_path / "a.cvr"):
            os.chmod(parent, 0o555)
    else:
        # Nothing is forbidden to root: what the lock would say is said here.
        monkeypatch.setattr(engine_module, "WriterLock", refuse_lock)
    try:
        before = sorted(Path(tmp_path / "a.cvr").rglob("*"))
        assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2]) == expected
        assert sorted(Path(tmp_path / "a.cvr").rglob("*")) == before
    finally:
        for parent, _, _ in os.walk(tmp_path / "a.cvr"):
            os.chmod(parent, 0o755)


def refuse_lock(path):
    raise StoreError(f"{path.parent} cannot be written (Permission denied).")


def test_a_full_disk_costs_the_folder_only(make, images, tmp_path, monkeypatch):
    retriever = make("bow", "a.cvr").fit(images[:10], ids=names(10))

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cvretrieval.index.index_folder.replace_file", refuse)
    retriever.add(images[10:], ids=[f"x{i}" for i in range(len(images) - 10)])
    found = answers(retriever, images[-1:])
    assert found[0][0][0] == f"x{len(images) - 11}"
    monkeypatch.undo()
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[-1:]) == found


def test_a_search_follows_what_another_process_adds_and_removes(method, make, images, tmp_path):
    writer = make(method, "a.cvr").fit(images[:10], ids=names(10))
    reader = ImageRetriever.load(tmp_path / "a.cvr")
    assert len(reader.search(images[:1], k=50)[0].hits) <= 10
    writer.add(images[10:], ids=[f"{i:02d}" for i in range(10, len(images))])
    assert answers(reader, images[11:13]) == answers(writer, images[11:13])
    writer.remove(["11"])
    assert answers(reader, images[11:13]) == answers(writer, images[11:13])
    writer.compact()
    assert answers(reader, images[11:13]) == answers(writer, images[11:13])


@pytest.mark.parametrize("method", ["bow", "asmk-binary"])
def test_readers_during_additions(make, images, tmp_path, method):
    writer = make(method, "a.cvr").fit(images[:4], ids=names(4))
    done, problems = threading.Event(), []

    def read():
        reader = ImageRetriever.load(tmp_path / "a.cvr")
        while not done.is_set():
            try:
                found = [name for name, _ in answers(reader, images[:1])[0]]
                assert len(set(found)) == len(found) and "00" in found[:2]
            except BaseException as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(4, len(images)):
        writer.add([images[i]], ids=[f"{i:02d}"])
        if i % 5 == 0:
            writer.remove([f"{i - 2:02d}"]).compact()
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    afresh = ImageRetriever.load(writer.save(tmp_path / "copy.cvr"))
    assert answers(writer, images[:2]) == answers(afresh, images[:2])


def test_one_retriever_searched_by_threads_while_another_adds(make, images, tmp_path):
    writer = make("hamming", "a.cvr").fit(images[:4], ids=names(4))
    reader, problems, done = ImageRetriever.load(tmp_path / "a.cvr"), [], threading.Event()

    def read():
        while not done.is_set():
            try:
                assert reader.search(images[:1], k=30)[0].hits[0].id == "00"
            except BaseException as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(4, 14):
        writer.add([images[i]], ids=[f"{i:02d}"])
    done.set()
    for thread in threads:
        thread.join()
    assert not problems


def test_everything_removed_and_added_again(method, make, images, tmp_path):
    retriever = make(method, "a.cvr").fit(images[:6], ids=names(6))
    expected = answers(retriever, images[:2])
    retriever.remove(names(6))
    assert answers(retriever, images[:2]) == [[], []]
    retriever.compact().add(images[:6], ids=names(6))
    assert answers(retriever, images[:2]) == expected
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:2]) == expected


def test_only_images_without_features(method, make, images, tmp_path):
    retriever = make(method, "a.cvr").fit([images[9]] * 3)
    assert answers(retriever, images[:1]) == [[]]
    retriever.add(images[:9])
    assert len(answers(retriever, images[:1])[0]) > 1


def test_parameters_of_searching_may_be_changed_and_others_may_not_be_loaded(make, images, tmp_path, no_building):
    retriever = make("asmk", "a.cvr").fit(images, ids=names(len(images)))
    before = answers(retriever, images[:1])[0]
    opened = ImageRetriever.load(tmp_path / "a.cvr")
    no_building(True)
    opened.set_params(index__alpha=1.0)
    after = answers(opened, images[:1])[0]
    assert {name for name, _ in after} == {name for name, _ in before} and after[1][1] > before[1][1]
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:1])[0] == before
    with pytest.raises(TypeError, match="index cannot be changed: the index was built with"):
        ImageRetriever.load(tmp_path / "a.cvr", index=InvertedIndex("asmk"))
    assert "index" in opened.search(images[:1]).method and opened.search(images[:1]).method["metric"] == "asmk"


def test_binary_vectors(images, codebook, tmp_path):
    def bits(vectors):
        return np.packbits(vectors > 0, axis=1)

    rows = bits(VLAD(codebook=codebook).fit([]).transform(EXTRACTOR.transform(images[:3])))
    stored = rows_from_arrays(rows_to_arrays(as_rows(rows, "binary", VLAD())))
    np.testing.assert_array_equal(stored, rows)
    with pytest.raises(ValueError, match="holds rows of bytes, .* but VLAD gives an array of float32"):
        as_rows(rows.astype(np.float32), "binary", VLAD())


@pytest.mark.parametrize("sparse", [True, False])
def test_rows_are_stored_as_they_are(rng, sparse):
    dense = rng.poisson(0.1, (20, 300)).astype(np.float32)
    for factor, dtype in ((1, np.uint8), (300, np.uint16), (0.1, np.float32)):
        rows = as_rows(csr_matrix(dense * factor) if sparse else dense * factor, "sparse", BagOfWords())
        arrays = rows_to_arrays(rows)
        assert arrays["vector_values"].dtype == dtype
        found = rows_from_arrays(arrays)
        np.testing.assert_array_equal(found.toarray(), (dense * np.float32(factor)).astype(np.float32))
        np.testing.assert_array_equal(join_rows([found[3:5], found[:1]]).toarray(), found.toarray()[[3, 4, 0]])


def test_stores_without_an_engine_of_their_own_have_the_first_format(make, images, tmp_path):
    make("dense", "a.cvr").fit(images[:4])
    make("bow", "b.cvr").fit(images[:4])
    formats = [json.loads((tmp_path / f"{name}.cvr" / "index.json").read_text())["format"] for name in "ab"]
    assert formats == [1, 2]
    description = json.loads((tmp_path / "a.cvr" / "index.json").read_text())
    del description["config"]["index"]  # as it was
    (tmp_path / "a.cvr" / "index.json").write_text(json.dumps(description))
    assert ImageRetriever.load(tmp_path / "a.cvr").index is None
    assert answers(ImageRetriever.load(tmp_path / "a.cvr"), images[:1])[0][0][0] == "image-000001"


def test_what_does_not_fit_is_refused_before_anything_is_read(codebook, tmp_path):
    class Never:
        def __iter__(self):
            raise AssertionError("the images were looked at")

    cases = [
        (HammingEmbedding(codebook=codebook), None, ValueError, "HammingEmbedding gives visual words .* InvertedIndex"),
        (ASMK(codebook=codebook), InvertedIndex(), ValueError, "ASMK gives visual words"),
        (VLAD(codebook=codebook), InvertedIndex("asmk"), ValueError, "but VLAD gives vectors"),
        (None, InvertedIndex, TypeError, "must be an index engine such as InvertedIndex"),
        (None, "inverted", TypeError, "Got 'inverted' instead"),
        (None, InvertedIndex().add([1], [[1.0]]), ValueError, "Got one of 1 vectors: give a new InvertedIndex"),
    ]
    for encoder, index, error, message in cases:
        retriever = ImageRetriever(encoder=encoder, index=index, location=tmp_path / "a.cvr")
        with pytest.raises(error, match=message):
            retriever.fit(Never())
        assert not (tmp_path / "a.cvr").exists()


def test_what_only_the_learned_encoder_tells_is_refused_then(images, codebook):
    with pytest.raises(ValueError, match="VLAD gives negative numbers"):
        ImageRetriever(extractor=EXTRACTOR, encoder=VLAD(codebook=codebook), index=InvertedIndex()).fit(images[:3])
    index = InvertedIndex("hamming_embedding")
    with pytest.raises(ValueError, match="compares binary signatures"):
        ImageRetriever(extractor=EXTRACTOR, encoder=ASMK(codebook=codebook), index=index).fit(images[:3])


def test_other_engines_are_built_kept_and_extended(images, codebook, tmp_path):
    quantizer = ProductQuantizer(8, n_codewords=8, random_state=0)
    bits = make_pipeline(VLAD(codebook=codebook), ITQ(8, random_state=0))
    engines = [
        (VLAD(codebook=codebook), PQIndex(quantizer)),
        (VLAD(codebook=codebook), PQIndex(quantizer, "l2")),
        (bits, BinaryIndex()),
    ]
    for number, (encoder, index) in enumerate(engines):
        path = tmp_path / f"{number}.cvr"
        retriever = ImageRetriever(extractor=EXTRACTOR, encoder=encoder, index=index, location=path)
        retriever.fit(images[:-2], ids=names(len(images) - 2)).add(images[-2:], ids=["y", "z"])
        opened = ImageRetriever.load(path)
        found = answers(opened, images[:3] + images[-1:])
        assert found == answers(retriever, images[:3] + images[-1:])
        assert all(len(row) == len(images) - 1 for row in found)
        if index.metric != "cosine":
            # No code is nearer to a vector than its own; by the cosine that of another may be.
            assert found[-1][0][1] == dict(found[-1])["z"]
        else:
            code = opened._current_engine().reconstruct(np.array([opened._store.find("z").key]))[0]
            features = opened._stages.decode(opened._stages.to_bytes(EXTRACTOR.transform(images[-1:])))
            vector = opened.encoder_.transform(features)[0]
            cosine = code @ vector / np.linalg.norm(code) / np.linalg.norm(vector)
            assert dict(found[-1])["z"] == pytest.approx(cosine, abs=1e-5)
            # Rerankers get the vectors themselves, for the codes have lost something.
            opened.reranker = AverageQueryExpansion(1)
            assert len(opened.search(images[-1:], k=3)[0].hits) == 3
            own = NumberedVectors(opened._current_engine(), opened._store).reconstruct(np.array([4, 0]))
            features = opened._stages.decode(opened._stages.to_bytes(EXTRACTOR.transform([images[4], images[0]])))
            np.testing.assert_array_equal(own, opened.encoder_.transform(features))
    with pytest.raises(ValueError, match="has a part that is fitted: PQIndex"):
        ImageRetriever(index=PQIndex(quantizer.fit(np.eye(16, dtype=np.float32)))).fit(images[:1])


def test_rerankers_say_what_they_need(make, images, codebook):
    for name, held in (("bow", "sparse ones"), ("asmk", "visual words")):
        retriever = make(name).fit(images[:4])
        retriever.reranker = AverageQueryExpansion()
        with pytest.raises(ValueError, match=f"computes with dense vectors, .* InvertedIndex, which holds {held}"):
            retriever.search(images[:1])
    binary = ImageRetriever(index=BinaryIndex(), reranker=AverageQueryExpansion())
    with pytest.raises(ValueError, match="BinaryIndex, which holds bits"):
        binary.fit(images[:1])
