"""Codebooks learned by other processes: those of one process, up to the order in which sums are added."""

from __future__ import annotations

import os
import signal

import joblib
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from cvretrieval import (
    SIFT,
    VLAD,
    FisherVector,
    GMMCodebook,
    ImageRetriever,
    KMeansCodebook,
    PerDescriptor,
    VocabularyTree,
)
from cvretrieval._spread import Processes, Threads
from cvretrieval._workers import ClusterError, LocalProcesses, WorkerDied, Workers, lending
from cvretrieval.codebooks import kmeans
from cvretrieval.codebooks import lloyd as module
from cvretrieval.codebooks.lloyd import lloyd
from cvretrieval.codebooks.tree_growth import grow_tree
from cvretrieval.datasets import make_scenes
from cvretrieval.feature_chunks import ChunksElsewhere, sample_descriptors
from cvretrieval.local_features import LocalFeatures
from cvretrieval.retrieval.durable_folders import scratch_folder
from cvretrieval.shared_sample import spread_sample


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    scenes = make_scenes(n_scenes=8, n_views=4, image_size=(160, 120), random_state=4)
    path = tmp_path_factory.mktemp("index of codebooks") / "a.cvr"
    with ImageRetriever(
        extractor=SIFT(max_features=150), encoder=VLAD(n_words=4, random_state=0), random_state=0, location=path
    ) as retriever:
        retriever.fit([*scenes.images, np.zeros((90, 90), dtype=np.uint8)])
        yield retriever


@pytest.fixture
def features(index):
    stored = index.iter_features()
    return type(stored)(stored._read, stored._keys, 5, store=stored._store, model=stored._model)


@pytest.fixture(scope="module")
def processes():
    """Two processes for the whole module: starting them takes longer than the fits."""
    workers = LocalProcesses(2)
    yield workers
    workers.close()


@pytest.fixture
def lent(processes):
    with lending(processes):
        yield processes


@pytest.mark.parametrize("max_samples", [None, 1000, 10**6])
def test_the_sample_is_the_same(lent, features, max_samples):
    random_states = [np.random.RandomState(3), np.random.RandomState(3)]
    expected = sample_descriptors(features, max_samples, random_states[0])
    with spread_sample(features, max_samples, random_states[1], n_jobs=None, estimator=None) as (rows, spread):
        assert isinstance(spread, Processes) and rows.dtype == expected.dtype and not rows.flags.writeable
        np.testing.assert_array_equal(rows, expected)
        assert random_states[0].randint(2**30) == random_states[1].randint(2**30)
        folder = spread.folder
        assert folder.parent == features._store.path
    assert not folder.exists()


def test_a_bad_descriptor_is_named_by_its_image(lent, tmp_path):
    rng = np.random.default_rng(0)
    chunks = [LocalFeatures.from_images([(rng.random((20, 8), dtype=np.float32), None, None)] * 2) for _ in range(3)]
    bad = chunks[2].descriptors.copy()
    bad[25] = np.nan
    chunks[2] = chunks[2].with_descriptors(bad)
    with pytest.raises(ValueError, match="KMeansCodebook got descriptors of image 5 that are NaN"):
        KMeansCodebook(4, max_samples=None).fit(Given(chunks, tmp_path))
    narrow = LocalFeatures.from_images([(rng.random((9, 4), dtype=np.float32), None, None)])
    with pytest.raises(ValueError, match="KMeansCodebook have descriptors of different dimensions: 8 and 4"):
        KMeansCodebook(4).fit(Given([chunks[0], narrow], tmp_path))
    nothing = LocalFeatures.from_images([(np.empty((0, 8), dtype=np.float32), None, None)])
    with pytest.raises(ValueError, match="KMeansCodebook cannot be fitted: none of the images has any descriptor"):
        KMeansCodebook(4).fit(Given([nothing], tmp_path))
    assert not list(tmp_path.iterdir())


class Given(list):
    """Chunks in memory that go to the processes with the task."""

    def __init__(self, chunks, folder):
        super().__init__(chunks)
        self.elsewhere = ChunksElsewhere([Itself(chunk) for chunk in chunks], lambda: scratch_folder(folder))


class Itself:
    def __init__(self, chunk, deadly=None):
        self.chunk, self.deadly = chunk, deadly

    def __call__(self):
        if self.deadly is not None and not self.deadly.exists():
            self.deadly.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.chunk


@pytest.mark.parametrize("max_samples", [None, 2000])
@pytest.mark.parametrize("assignment", ["exact", "approximate"])
def test_k_means(lent, monkeypatch, features, max_samples, assignment):
    monkeypatch.setattr(kmeans, "_LARGE", 1)  # large enough to be computed by processes
    codebook = KMeansCodebook(24, max_samples=max_samples, assignment=assignment, random_state=0)
    found = codebook.fit(features)
    expected = KMeansCodebook(24, max_samples=max_samples, assignment=assignment, random_state=0).fit(list(features))
    np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(found.counts_, expected.counts_)
    assert found.inertia_ == pytest.approx(expected.inertia_, rel=1e-9)
    assert (found.n_iter_, found.n_samples_) == (expected.n_iter_, expected.n_samples_)


def test_words_without_descriptors_go_to_the_farthest(processes, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_TASK_ROWS", 700)
    rows = np.random.default_rng(1).integers(0, 255, size=(3000, 8), dtype=np.uint8)
    centers = rows[:20].astype(np.float32)
    centers[5:9] += 2000  # nothing is near
    options = {"max_iter": 3, "tol": 0, "owner": "this test"}
    expected = lloyd(rows, centers, spread=Threads(2), **options)
    found = lloyd(rows, centers, spread=Processes(processes, tmp_path), **options)
    assert expected.counts.min() > 0
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-4)
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_mixtures(lent, features):
    found = GMMCodebook(8, max_samples=3000, max_iter=5, random_state=0).fit(features)
    expected = GMMCodebook(8, max_samples=3000, max_iter=5, random_state=0).fit(list(features))
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-9)
    assert found.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-9)


def test_trees(lent, features):
    found = VocabularyTree(4, 4, max_samples=None, random_state=0).fit(features)
    expected = VocabularyTree(4, 4, max_samples=None, random_state=0).fit(list(features))
    assert found.n_words_ > 100
    for name in ("nodes_", "children_", "words_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_large_nodes_of_a_tree_are_spread_by_rows(processes, tmp_path):
    rows = np.random.default_rng(1).integers(0, 255, size=(150_000, 4), dtype=np.uint8)
    trees = [
        grow_tree(rows, 3, 3, 5, np.random.RandomState(0), spread, False)
        for spread in (Threads(2), Processes(processes, tmp_path))
    ]
    for one, other in zip(*trees, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_of_an_index_is_learned_by_those_who_described_the_images(tmp_path):
    scenes = make_scenes(n_scenes=4, n_views=4, image_size=(120, 90), random_state=1)
    found = []
    for name, backend in (("alone", "threading"), ("together", "loky")):
        encoder = make_pipeline(
            PerDescriptor(PCA(16, random_state=0), random_state=0), FisherVector(n_components=6, random_state=0)
        )
        with joblib.parallel_config(backend=backend, n_jobs=2):
            retriever = ImageRetriever(
                extractor=SIFT(max_features=60), encoder=encoder, random_state=0, location=tmp_path / name
            )
            found.append(retriever.fit(scenes.images).encoder_[-1].gmm_.means_)
        assert not list((tmp_path / name).glob(".cvretrieval-*"))
    # Iterations widen what the order of sums leaves.
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)


def test_a_worker_killed_in_the_middle(tmp_path):
    rng = np.random.default_rng(0)
    chunks = [LocalFeatures.from_images([(rng.random((200, 8), dtype=np.float32), None, None)]) for _ in range(4)]
    given = Given(chunks, tmp_path)
    given.elsewhere.readers[1].deadly = tmp_path / "has killed"
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = GMMCodebook(3, max_iter=3, random_state=0).fit(given)
    assert (tmp_path / "has killed").exists()
    expected = GMMCodebook(3, max_iter=3, random_state=0).fit(chunks)
    np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-9)


class Deadly(Workers):
    """Whoever computes, dies."""

    n_workers, one_dies_alone = 2, True

    def submit(self, function, *arguments):
        return None

    def wait(self, futures):
        pass

    def result(self, future):
        raise WorkerDied("as always")

    def abandon(self, futures):
        pass

    def close(self):
        pass


def test_what_always_kills_ends_the_fit(tmp_path):
    given = Given([LocalFeatures.from_images([(np.ones((9, 8), dtype=np.float32), None, None)])], tmp_path)
    with lending(Deadly()), pytest.raises(ClusterError, match="part of the descriptors died.* Nothing was learned"):
        GMMCodebook(3).fit(given)
    assert not list(tmp_path.iterdir())


def test_abandoned_folders_are_cleared_and_those_in_use_are_not(tmp_path):
    abandoned = tmp_path / ".cvretrieval-0000"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "sample.npy").touch()
    with scratch_folder(tmp_path) as folder:
        assert not abandoned.exists()
        with scratch_folder(tmp_path) as another:
            assert folder.exists() and another != folder
        assert not another.exists()
    assert not list(tmp_path.iterdir())
