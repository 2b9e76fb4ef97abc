"""Models as files: the same bits after loading, nothing executed, damage and misuse told apart."""

from __future__ import annotations

import errno
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from cvretrieval import (
    SIFT,
    VLAD,
    BagOfWords,
    DenseIndex,
    ImageReader,
    ImageRetriever,
    KMeansCodebook,
    PCAWhitening,
    SpatialVerifier,
    StoreError,
    TfIdf,
    _durable,
    load_model,
    save_model,
)
from cvretrieval._array_file import digest_of


@pytest.fixture
def X(rng):
    return list(rng.normal(size=(8, 30, 6)).astype(np.float32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.cvm"


def header_of(path):
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def rewrite(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def with_attribute(value):
    """A fitted estimator that has learned `value`, too."""
    whitening = PCAWhitening(1).fit(np.eye(3))
    whitening.extra_ = value
    return whitening


# -- what comes back


def test_lines_and_lines_of_lines(X, path):
    inner = Pipeline([("encode", VLAD(3, random_state=0)), ("nothing", "passthrough"), ("white", PCAWhitening(4))])
    line = make_pipeline(inner, None, StandardScaler(), LogisticRegression()).fit(X, [0, 1] * 4)
    loaded = load_model(save_model(line, str(path)))
    assert repr(loaded) == repr(line)
    np.testing.assert_array_equal(loaded.predict_proba(X), line.predict_proba(X))


def test_a_line_from_images_to_vectors(rng, path):
    images = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    line = make_pipeline(SIFT(max_features=20, reader=ImageReader(max_size=50)), VLAD(2, random_state=0)).fit(images)
    np.testing.assert_array_equal(load_model(save_model(line, path)).transform(images), line.transform(images))


def test_a_given_codebook_is_stored_once_and_lets_a_loaded_encoder_learn_again(X, path):
    codebook = KMeansCodebook(4, random_state=0).fit(X)
    encoder = VLAD(codebook=codebook).fit(X[:2])
    loaded = VLAD.load(encoder.save(path))
    centers = [name for name in header_of(path)[0] if name.endswith("cluster_centers_")]
    assert len(centers) == 1
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))
    np.testing.assert_array_equal(clone(loaded).fit(X).transform(X), encoder.transform(X))


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_a_given_clusterer_of_scikit_learn_becomes_its_centres(kind, X, path):
    clusterer = kind(3, n_init=1, random_state=0).fit(np.concatenate(X))
    encoder = BagOfWords(codebook=clusterer).fit(X)
    loaded = BagOfWords.load(encoder.save(path))
    assert isinstance(loaded.codebook, KMeansCodebook)
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))


@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (PCA(2, random_state=0), "transform"),
        (GaussianMixture(2, covariance_type="diag", random_state=0), "predict_proba"),
    ],
)
def test_estimators_of_scikit_learn_alone(estimator, method, X, path):
    estimator.fit(X[0])
    loaded = load_model(save_model(estimator, path))
    np.testing.assert_array_equal(getattr(loaded, method)(X[0]), getattr(estimator, method)(X[0]))


def test_what_learns_nothing_is_its_parameters(path):
    assert repr(SpatialVerifier.load(SpatialVerifier(min_inliers=7).save(path))) == "SpatialVerifier(min_inliers=7)"


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 1, 0),
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        np.arange(20.0).reshape(4, 5)[::2, ::-1],
        np.arange(20.0).reshape(4, 5)[1:3].T,
        np.array(5.0),
        np.empty((0, 3), np.float32),
        np.array([True, False]),
        np.arange(3, dtype=np.uint16),
        np.arange(3, dtype=">f4"),
        np.array([np.nan, -0.0, np.inf], dtype=np.float16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}{array.strides}",
)
def test_arrays_keep_values_type_and_order(array, path):
    loaded = load_model(save_model(with_attribute(array), path)).extra_
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype.newbyteorder("=") and loaded.shape == array.shape and loaded.flags.writeable
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS"):
        assert not contiguous or loaded.flags[flag] == array.flags[flag]


def test_memory_mapped_arrays_become_arrays_in_memory(tmp_path, path):
    np.save(tmp_path / "a.npy", np.arange(5.0))
    save_model(with_attribute(np.load(tmp_path / "a.npy", mmap_mode="r")), path)
    (tmp_path / "a.npy").unlink()
    loaded = load_model(path).extra_
    assert type(loaded) is np.ndarray and loaded.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array])
def test_sparse_matrices_stay_what_they_are(kind, path):
    matrix = kind(np.diag([1.0, 0.0, 3.0]).astype(np.float32))
    loaded = load_model(save_model(with_attribute(matrix), path)).extra_
    assert type(loaded) is kind and loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded.toarray(), matrix.toarray())


def test_a_sparsified_classifier(rng, path):
    X = rng.normal(size=(30, 5))
    classifier = LinearSVC(penalty="l1", dual=False, C=0.1).fit(X, X[:, 0] > 0).sparsify()
    np.testing.assert_array_equal(load_model(save_model(classifier, path)).predict(X), classifier.predict(X))


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, float("inf"), "ümlaut", (1, ("a", None)), [1.5, [2]], np.float64(0.1), np.float32(0.1),
     np.uint64(2**64 - 1), np.array(["a", "bc"]), np.array(["a", None, 3], dtype=object), (np.float32(2),)],
    ids=repr,
)  # fmt: skip
def test_plain_values_keep_value_and_type(value, path):
    loaded = load_model(save_model(with_attribute(value), path)).extra_
    assert repr(loaded) == repr(value) and type(loaded) is type(value)
    if isinstance(value, np.ndarray):
        assert loaded.dtype == value.dtype


# -- the file


def test_there_is_no_pickle_in_it_and_it_says_what_wrote_it(X, path):
    VLAD(2, random_state=0).fit(X).save(path)
    metadata = header_of(path)[0]["__metadata__"]
    assert metadata["kind"] == "cvretrieval model" and metadata["format"] == "1"
    assert set(json.loads(metadata["versions"])) == {"cvretrieval", "scikit-learn", "numpy"}
    assert json.loads(metadata["config"])["class"] == "VLAD"
    assert b"pickle" not in path.read_bytes() and b"sklearn" not in path.read_bytes()


def test_an_old_file_is_replaced_in_one_step_or_kept(X, path, monkeypatch):
    old = PCAWhitening(2).fit(X[0]).save(path).read_bytes()
    link = path.with_name("link.cvm")
    link.symlink_to(path)
    with monkeypatch.context() as patch:

        def full(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(_durable.HashingFile, "write", full)
        with pytest.raises(StoreError, match="No space left on device.*What was there before is kept; free some space"):
            PCAWhitening(3).fit(X[0]).save(path)
    assert path.read_bytes() == old
    PCAWhitening(3).fit(X[0]).save(link)
    assert link.is_symlink() and PCAWhitening.load(path).n_components_ == 3
    assert sorted(child.name for child in path.parent.iterdir()) == ["link.cvm", "model.cvm"]


def test_another_process_with_nothing_imported_loads_it(X, path):
    VLAD(2, random_state=0).fit(X).save(path)
    program = f"import cvretrieval; print(type(cvretrieval.load_model({str(path)!r})).__name__)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "VLAD\n"


# -- what is refused


def test_another_class_is_named(X, path):
    PCAWhitening(2).fit(X[0]).save(path)
    with pytest.raises(StoreError, match="holds a PCAWhitening, not a VLAD.*load_model"):
        VLAD.load(path)
    save_model(make_pipeline(VLAD(2, random_state=0)).fit(X), path)
    with pytest.raises(StoreError, match="holds a Pipeline, not a VLAD"):
        VLAD.load(path)


def test_an_unfitted_step_is_named(X, path):
    line = make_pipeline(VLAD(2), TfIdf())
    with pytest.raises(NotFittedError, match="VLAD"):
        save_model(line, path)
    line.steps[0] = ("vlad", VLAD(2, random_state=0).fit(X))
    with pytest.raises(NotFittedError, match="TfIdf"):
        save_model(line, path)
    assert not path.exists()


def test_what_cannot_be_stored_is_named(X, path, rng):
    rows = np.concatenate(X)
    search = GridSearchCV(PCA(), {"n_components": [1, 2]}, cv=2).fit(rows)
    own = type("Own", (PCAWhitening,), {})(2).fit(rows)
    for estimator, message in (
        (search, "GridSearchCV cannot be stored. Use the estimators of cvretrieval or Pipeline, PCA"),
        (KMeans(2, n_init=1).fit(rows), "KMeans cannot be stored"),
        (make_pipeline(KMeans(2, n_init=1)).fit(rows), "KMeans cannot be stored"),
        (own, "Own cannot be stored"),
        (DenseIndex().add([1], rows[:1]), "DenseIndex cannot be stored as a model"),
        (ImageRetriever(), "ImageRetriever cannot be stored as a model; use its own save and ImageRetriever.load"),
        (PCAWhitening(2, random_state=np.random.RandomState(0)).fit(rows), "random_state is a RandomState"),
        (with_attribute({"a": 1}), "PCAWhitening.extra_ is a dict, which cannot be stored"),
        (with_attribute(np.ma.array([1.0], mask=[True])), "PCAWhitening.extra_ is a MaskedArray"),
        (with_attribute(sparse.eye(2).tocoo()), "PCAWhitening.extra_ is a .*coo"),
        (with_attribute(np.ones(2, complex)), "PCAWhitening.extra_ is a ndarray"),
        (with_attribute(lambda: 1), "PCAWhitening.extra_ is a function"),
    ):
        with pytest.raises(TypeError, match=message):
            save_model(estimator, path)
    assert not path.exists()


def test_places_that_are_no_files(X, tmp_path):
    whitening = PCAWhitening(2).fit(X[0])
    with pytest.raises(ValueError, match="is a folder; give the model a file name such as model.cvm"):
        whitening.save(tmp_path)
    with pytest.raises(ValueError, match="The folder .* does not exist"):
        whitening.save(tmp_path / "no" / "model.cvm")
    with pytest.raises(StoreError, match="does not exist"):
        load_model(tmp_path / "none.cvm")
    with pytest.raises(StoreError, match="is a folder, not a model"):
        load_model(tmp_path)


def test_other_files_are_refused(X, path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3)}, path)
    with pytest.raises(StoreError, match="is no model of cvretrieval, but another safetensors file"):
        load_model(path)
    path.write_text("no model at all, but text")
    with pytest.raises(StoreError, match="damaged or no model"):
        load_model(path)


def test_a_newer_format_is_refused(X, path):
    PCAWhitening(2).fit(X[0]).save(path)
    header, body = header_of(path)
    header["__metadata__"]["format"] = "7"
    rewrite(path, header, body)
    with pytest.raises(StoreError, match="has format 7, but this cvretrieval .* reads formats up to 1; upgrade"):
        PCAWhitening.load(path)


def test_every_flipped_byte_of_a_sample_and_every_cut_is_noticed(X, path, rng):
    whole = VLAD(2, random_state=0).fit(X).save(path).read_bytes()
    for place in rng.choice(len(whole), 150, replace=False):
        broken = bytearray(whole)
        broken[place] ^= 0x15
        path.write_bytes(bytes(broken))
        with pytest.raises(StoreError, match=str(path)):
            load_model(path)
    for length in (0, 5, 8, 300, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="damaged"):
            load_model(path)


SPARSE = {"class": "csr_matrix", "shape": [1, 1], "data": "mean_", "indices": "mean_", "indptr": "mean_"}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("config", {"class": "Popen", "params": {}}),
        ("config", {"class": "os.system", "params": {"command": "true"}}),
        ("config", {"class": "load_model", "params": {"path": "x"}}),
        ("config", {"class": "PCAWhitening", "params": {"shell": True}}),
        ("config", {"class": "PCAWhitening", "params": {"power": {"eval": "1"}}}),
        ("config", {"class": "PCAWhitening", "params": {"power": {"number": ["object", 1]}}}),
        ("config", []),
        ("state", {"values": {"transform": 1}}),
        ("state", {"values": {"__class__": 1}}),
        ("state", {"arrays": {"mean_": "nothing"}}),
        ("state", {"sparse": {"mean_": {**SPARSE, "class": "coo_matrix"}}}),
        ("state", {"sparse": {"mean_": SPARSE}}),
        ("state", {"parameters": {"nothing": {}}}),
        ("state", {"parameters": {"power": {"values": {"a_": 1}}}}),
        ("facts", [1]),
    ],
    ids=str,
)
def test_crafted_headers_name_nothing_but_estimators_and_what_they_learned(part, change, X, path):
    from safetensors import safe_open

    PCAWhitening(2).fit(X[0]).save(path)
    header, body = header_of(path)
    metadata = header["__metadata__"]
    metadata[part] = json.dumps(change)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata["digest"] = digest_of(arrays, metadata)  # as an attacker would
    rewrite(path, header, body)
    with pytest.raises(StoreError, match="is damaged"):
        load_model(path)
