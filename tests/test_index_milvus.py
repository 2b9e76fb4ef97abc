"""What is special about vectors in Milvus: the connection, what it may hold besides, and what is never written."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from cvretrieval import DenseIndex, MilvusIndex, StoreError
from cvretrieval.index import milvus_search, milvus_service
from tests.milvus_lite import HAS_MILVUS, database, make_index

needs_milvus = pytest.mark.skipif(not HAS_MILVUS, reason="needs pymilvus and milvus-lite")

RNG = np.random.default_rng(3)
KEYS = RNG.permutation(1000)[:200]
VECTORS = RNG.integers(-2, 3, (200, 6)).astype(np.float32)
VECTORS[::20] = 0
QUERIES = np.concatenate([RNG.integers(-2, 3, (6, 6)), np.zeros((1, 6), dtype=int)])


def assert_equal(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def count(index):
    """Vectors in Milvus, whoever put them there."""
    return index._collection.count()


@pytest.fixture
def flaky(monkeypatch):
    """A function that makes the next calls of a method raise the given errors; pauses are counted, not slept."""
    pauses, errors = [], {}
    connect = milvus_service.connect

    class Client:
        def __init__(self, client):
            self.client = client

        def __getattr__(self, name):
            if errors.get(name):
                error = errors[name].pop(0)
                if error is not None:

                    def fail(*arguments, **options):
                        raise error

                    return fail
            return getattr(self.client, name)

    monkeypatch.setattr(milvus_service, "connect", lambda uri, anew=False: Client(connect(uri, anew=anew)))
    monkeypatch.setattr(milvus_service.time, "sleep", pauses.append)
    return errors, pauses


@needs_milvus
@pytest.mark.parametrize("structure", ["flat", "ivf"])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_is_dense_index_zero_vectors_and_queries_included(structure, metric):
    index = make_index(metric=metric, structure=structure, n_lists=4, n_probe=4).add(KEYS, VECTORS)
    expected = DenseIndex(metric).add(KEYS, VECTORS)
    for k in (1, 12, 500):
        assert_equal(index.search(QUERIES, k), expected.search(QUERIES, k))
    assert_equal(index.search(QUERIES, 9, within=KEYS[:60]), expected.search(QUERIES, 9, within=KEYS[:60]))
    np.testing.assert_array_equal(index.reconstruct(KEYS), VECTORS)
    assert count(index) == 190  # zero vectors are kept out
    index.drop()


@needs_milvus
def test_lists_beyond_the_limit_of_milvus_are_read_in_full(monkeypatch):
    monkeypatch.setattr(milvus_search, "LONGEST_LIST", 20)
    monkeypatch.setattr(milvus_search, "_KEYS_PER_FILTER", 30)
    index = make_index(metric="l2").add(KEYS, VECTORS)
    expected = DenseIndex("l2").add(KEYS, VECTORS)
    assert_equal(index.search(QUERIES, 40), expected.search(QUERIES, 40))
    assert_equal(index.search(QUERIES, 40, within=KEYS[:150]), expected.search(QUERIES, 40, within=KEYS[:150]))


@needs_milvus
def test_a_busy_or_absent_server_is_asked_again_after_growing_pauses(flaky):
    import grpc
    from pymilvus.exceptions import ErrorCode, MilvusException

    errors, pauses = flaky
    index = make_index()
    errors["upsert"] = [
        MilvusException(code=grpc.StatusCode.UNAVAILABLE, message="no connection"),
        MilvusException(code=ErrorCode.RATE_LIMIT, message="request is rejected by limiter"),
        ValueError("Cannot invoke RPC on closed channel!"),
    ]
    index.add(KEYS, VECTORS)
    assert pauses == [0.1, 0.2, 0.4]
    assert_equal(index.search(QUERIES, 9), DenseIndex().add(KEYS, VECTORS).search(QUERIES, 9))


@needs_milvus
def test_an_addition_that_fails_half_way_leaves_nothing_to_be_found_and_can_be_repeated(flaky, monkeypatch, tmp_path):
    from pymilvus.exceptions import MilvusException

    monkeypatch.setattr("cvretrieval.index.milvus_collection._BATCH_ROWS", 40)
    errors, pauses = flaky
    index = make_index().add(KEYS[:50], VECTORS[:50])
    index.save(tmp_path / "index")
    expected = index.search(QUERIES, 9)
    errors["upsert"] = [None, None, MilvusException(code=1100, message="field is wrong")]
    with pytest.raises(StoreError, match=r"Milvus at .*contract\.db refuses \(upsert\): .*field is wrong"):
        index.add(KEYS[50:], VECTORS[50:])
    assert pauses == []  # it would refuse again
    assert len(index) == 50 and count(index) > 100  # of 47
    assert_equal(index.search(QUERIES, 9), expected)
    # Another process, after a crash.
    opened = MilvusIndex.open(tmp_path / "index")
    assert_equal(opened.search(QUERIES, 9), expected)
    opened.add(KEYS[50:150], VECTORS[50:150]).flush()
    opened.compact()
    assert count(opened) == np.count_nonzero(VECTORS[:150].any(axis=1))
    assert_equal(opened.search(QUERIES, 9), DenseIndex().add(KEYS[:150], VECTORS[:150]).search(QUERIES, 9))
    # Here, where the attempt is remembered.
    index.add(KEYS[50:60], VECTORS[50:60])
    with pytest.raises(StoreError, match="another process"):
        index.flush()


@needs_milvus
def test_what_is_removed_is_gone_for_all_clients_after_flush(tmp_path):
    index = make_index().add(KEYS, VECTORS)
    index.save(tmp_path / "index")
    index.remove(KEYS[:100])
    assert count(index) == 190 and index.stats()["n_removed"] == 95
    index.flush()
    assert count(index) == 95 and index.stats()["n_removed"] == 0
    assert not np.isin(KEYS[:100], index._collection.list_keys()).any()


@needs_milvus
def test_a_crash_between_commit_and_deletion_is_made_good(tmp_path, monkeypatch):
    index = make_index().add(KEYS, VECTORS)
    index.save(tmp_path / "index")
    index.remove(KEYS[:100])

    def crash(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MilvusIndex, "_sweep", crash)
        with pytest.raises(KeyboardInterrupt):
            index.flush()
    opened = MilvusIndex.open(tmp_path / "index")
    assert count(opened) == 190
    assert_equal(opened.search(QUERIES, 9), DenseIndex().add(KEYS[100:], VECTORS[100:]).search(QUERIES, 9))
    opened.flush()
    assert count(opened) == 95


@needs_milvus
def test_vectors_that_milvus_has_lost_are_noticed(tmp_path):
    index = make_index().add(KEYS, VECTORS)
    index.save(tmp_path / "index")
    lost = KEYS[VECTORS.any(axis=1)][:3]
    index._collection.delete(lost)
    with pytest.raises(StoreError, match=r"3 of 190 vectors are missing in the collection 'cvretrieval_"):
        MilvusIndex.open(tmp_path / "index", verify=False)
    with pytest.raises(StoreError, match=f"the first of key {lost.min()}"):
        index.reconstruct(KEYS)
    # Others in their place, so that the number is right.
    index._collection.upsert(np.array([5000, 5001, 5002]), np.ones((3, 6), dtype=np.float32))
    with pytest.raises(StoreError, match="3 of 190"):
        MilvusIndex.open(tmp_path / "index")
    index.drop()
    with pytest.raises(StoreError, match="has no collection"):
        MilvusIndex.open(tmp_path / "index")


@needs_milvus
def test_too_many_dimensions_are_refused_before_anything_is_sent(monkeypatch):
    monkeypatch.setattr(milvus_service, "connect", None)
    wide = np.ones((1, 32_769), dtype=np.float32)
    for call in (lambda: MilvusIndex().add([1], wide), lambda: MilvusIndex().check_vectors(wide)):
        with pytest.raises(ValueError, match=r"32769 dimensions, but Milvus holds at most 32768\. .*PCAWhitening"):
            call()


@needs_milvus
def test_a_collection_of_other_vectors_is_refused():
    from pymilvus import MilvusClient

    MilvusIndex(database(), "taken", metric="l2").add([1, 2], VECTORS[1:3])
    for parameters, width, reason in (
        ({"metric": "l2"}, 4, r"holds 6-d vectors, but these have 4 dimensions"),
        ({"metric": "cosine"}, 6, r"made with FLAT and L2, but this index has FLAT and COSINE"),
        ({"metric": "l2", "structure": "hnsw"}, 6, "made with FLAT and L2, but this index has HNSW"),
        ({"metric": "inner_product", "structure": "sparse"}, 6, "FLOAT_VECTOR, not SPARSE_FLOAT_VECTOR"),
    ):
        index = MilvusIndex(database(), "taken", **parameters)
        with pytest.raises(ValueError, match=reason):
            index.add([7], np.ones((1, width)))
        assert len(index) == 0
    with closing(MilvusClient(database())) as client:
        client.create_collection("foreign", dimension=6)
        with pytest.raises(ValueError, match="'foreign' .* was not made by MilvusIndex"):
            MilvusIndex(database(), "foreign").add([7], np.ones((1, 6)))
    with pytest.raises(ValueError, match="has a collection 'taken' already"):
        MilvusIndex(database(), "taken").claim()
    assert MilvusIndex(database(), "free").claim().collection == "free"
    assert MilvusIndex(database()).claim().collection.startswith("cvretrieval_")


@needs_milvus
def test_the_metric_cannot_be_changed_once_vectors_are_in():
    index = make_index().add(KEYS, VECTORS).set_params(metric="l2")
    with pytest.raises(ValueError, match=r"for metric='cosine', which cannot be changed to 'l2'"):
        index.search(QUERIES, 1)


@needs_milvus
def test_an_unreachable_server_is_named(monkeypatch):
    monkeypatch.setattr(milvus_service, "_CONNECT_S", 1.0)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        index = MilvusIndex(address)
        with pytest.raises(StoreError, match=f"Milvus at {address} cannot be reached .* does it run.*MILVUS_TOKEN"):
            index.add([1], [[1.0, 2.0]])
    assert len(index) == 0


def test_addresses_and_credentials_in_them(tmp_path):
    for uri in ("photos", "ftp://host/x.db", "s3://bucket/photos.db", 7):
        with pytest.raises(ValueError, match=r"address of a server, as http://localhost:19530, or a local path that"):
            MilvusIndex(uri).add([1], [[1.0]])
    with pytest.raises(ValueError, match="must not hold credentials.* Set the environment variable MILVUS_TOKEN"):
        MilvusIndex("http://root:secret@host:19530").add([1], [[1.0]])
    with pytest.raises(ValueError, match="'collection' parameter .* must be a name of letters"):
        MilvusIndex(tmp_path / "m.db", "my photos").add([1], [[1.0]])


@needs_milvus
def test_credentials_come_from_the_environment_and_are_written_nowhere(tmp_path, monkeypatch):
    import pymilvus

    seen = []

    class Client(pymilvus.MilvusClient):
        def __init__(self, **options):
            seen.append(options["token"])
            super().__init__(**options)

    monkeypatch.setattr(pymilvus, "MilvusClient", Client)
    monkeypatch.setenv("MILVUS_TOKEN", "root:a-secret")
    index = MilvusIndex(tmp_path / "own.db").add(KEYS, VECTORS)
    assert seen == ["root:a-secret"]
    index.save(tmp_path / "index")
    written = b"".join(file.read_bytes() for file in (tmp_path / "index").iterdir())
    assert b"own.db" in written
    for text in (written, pickle.dumps(index), repr(index).encode()):
        assert b"a-secret" not in text
    index.close()


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"MilvusIndex needs pymilvus.*pip install 'cvretrieval\[milvus\]'"):
        MilvusIndex(tmp_path / "missing.db").add([1], [[1.0]])


@needs_milvus
def test_one_process_at_a_time_uses_an_embedded_database(tmp_path):
    index = MilvusIndex(tmp_path / "own.db", "photos").add([4, 2], VECTORS[1:3])
    index.close()
    program = f"import pymilvus; print(pymilvus.MilvusClient({str(tmp_path / 'own.db')!r}).list_collections()); input()"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert "photos" in other.stdout.readline()
        with pytest.raises(StoreError, match=r"own\.db cannot be opened .* One process at a time may use it"):
            index.search(VECTORS[1:2], 1)
        other.communicate("\n", timeout=60)
    assert index.search(VECTORS[1:2], 1)[0] == [[4]]  # it opens the database again
    index.close()
    with pytest.raises(StoreError, match=r"The folder .*nowhere for the database of Milvus Lite does not exist"):
        MilvusIndex(tmp_path / "nowhere" / "x.db").add([1], [[1.0]])
