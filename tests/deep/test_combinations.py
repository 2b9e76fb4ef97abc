"""R-MAC over several sizes in both meanings, and several descriptors in one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from cvretrieval import SIFT, VLAD, BagOfWords, ImageRetriever, LearnedWhitening, PCAWhitening, load_model, save_model
from cvretrieval.deep import MAC, RMAC, Backbone, Ensemble, GeM, MultiScaleRMAC, SPoC, layers
from tests.deep.instances import BACKBONE
from tests.deep.test_descriptors import feature_map

SCALES = (0.7, 1.0, 1.3)


@pytest.fixture
def images(rng):
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(64, 96), (96, 64), (64, 64)] * 4]


# --- MultiScaleRMAC ---------------------------------------------------------------------------------------------------


def test_vectors_of_all_sizes_or_regions_of_all_sizes(images):
    regions = [layers.RMAC().regions(feature_map(images[0], scale))[0] for scale in SCALES]
    vectors = torch.stack([F.normalize(found.sum(0), dim=0) for found in regions])
    found = MultiScaleRMAC(BACKBONE, scales=SCALES).transform(images[:1])
    np.testing.assert_allclose(found[0], F.normalize(vectors.sum(0), dim=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, RMAC(BACKBONE, scales=SCALES).transform(images[:1]), rtol=1e-4, atol=1e-6)
    found = MultiScaleRMAC(BACKBONE, scales=SCALES, sum_of="regions").transform(images[:1])
    total = torch.cat(regions).sum(0)
    np.testing.assert_allclose(found[0], F.normalize(total, dim=0), rtol=1e-4, atol=1e-6)
    plain = MultiScaleRMAC(BACKBONE, scales=SCALES, sum_of="regions", norm=None).transform(images[:1])
    np.testing.assert_allclose(plain[0], total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sum_of", ["vectors", "regions"])
def test_whitening_of_the_regions_of_all_sizes(images, sum_of):
    fitted = MultiScaleRMAC(BACKBONE, sum_of=sum_of, scales=SCALES, whitening=PCAWhitening(6)).fit(images[:5])
    regions = [layers.RMAC().regions(feature_map(image, scale))[0].numpy() for image in images[:5] for scale in SCALES]
    expected = PCAWhitening(6).fit(np.concatenate(regions))
    np.testing.assert_allclose(fitted.whitening_.explained_variance_, expected.explained_variance_, rtol=1e-3)
    parts = [fitted.whitening_.transform(layers.RMAC().regions(feature_map(images[7], s))[0].numpy()) for s in SCALES]
    sums = [part.sum(0) for part in parts]
    if sum_of == "vectors":
        sums = [total / np.linalg.norm(total) for total in sums]
    total = np.sum(sums, axis=0)
    np.testing.assert_allclose(fitted.transform(images[7:8])[0], total / np.linalg.norm(total), rtol=1e-3, atol=1e-4)


def test_one_size_and_one_region_is_mac(images):
    for sum_of in ("vectors", "regions"):
        one = MultiScaleRMAC(BACKBONE, sum_of=sum_of, scales=(1,), levels=1).transform(images[2:3])
        np.testing.assert_allclose(one, MAC(BACKBONE).transform(images[2:3]), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(RMAC(BACKBONE, levels=1).transform(images[2:3]), one, rtol=1e-4, atol=1e-6)


def test_generalised_means_run_from_average_to_maximum(images):
    average = SPoC(BACKBONE, center_prior=False).transform(images)
    np.testing.assert_allclose(GeM(BACKBONE, p=1).transform(images), average, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(GeM(BACKBONE, p=1e4).transform(images), MAC(BACKBONE).transform(images), atol=1e-3)


def test_wrong_parameters_of_multi_scale_rmac(images):
    with pytest.raises(ValueError, match="'sum_of' parameter of MultiScaleRMAC.*'vectors', 'regions'"):
        MultiScaleRMAC(BACKBONE, sum_of="maps").transform(images)
    with pytest.raises(ValueError, match="MultiScaleRMAC cannot learn its whitening: X has no images"):
        MultiScaleRMAC(BACKBONE, whitening=PCAWhitening(3)).fit([])
    for kind in (RMAC, MultiScaleRMAC):
        fitted = kind(Backbone("resnet18", weights=None, layer="layer2"), whitening=PCAWhitening(3)).fit(images[:3])
        with pytest.raises(ValueError, match=f"gives 64 channels, but {kind.__name__} was fitted with 128"):
            fitted.set_params(backbone__layer="layer1").transform(images)


# --- Ensemble ---------------------------------------------------------------------------------------------------------


MEMBERS = [("gem", GeM(BACKBONE)), ("mac", MAC(BACKBONE, norm=None))]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("combine", ["concatenate", "mean"])
def test_members_are_whitened_and_combined(images, combine):
    whitened = []
    for _, member in MEMBERS:
        vectors = clone(member).fit(images[:8]).transform(images)
        whitened.append(unit(PCAWhitening(5).fit(vectors[:8]).transform(vectors)))
    one, other = 2.0 * whitened[0], 0.5 * whitened[1]
    expected = unit(np.concatenate([one, other], axis=1) if combine == "concatenate" else one + other)
    ensemble = Ensemble(MEMBERS, whitening=PCAWhitening(5), combine=combine, weights=(2.0, 0.5)).fit(images[:8])
    found = ensemble.transform(images)
    assert found.dtype == np.float32 and len(ensemble.get_feature_names_out()) == found.shape[1]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    plain = Ensemble(MEMBERS, whitening=None, combine=combine, norm=None).fit(images)
    vectors = [member.transform(images) for _, member in MEMBERS]
    expected = np.concatenate(vectors, axis=1) if combine == "concatenate" else (vectors[0] + vectors[1]) / 2
    np.testing.assert_allclose(plain.transform(images), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(clone(plain).fit_transform(images), expected, rtol=1e-3, atol=1e-4)


def test_weights_are_those_of_the_similarities(images):
    ensemble = Ensemble(MEMBERS, whitening=None, weights=(3, 1)).fit(images)
    found = ensemble.transform(images)
    cosines = [unit(member.transform(images)) @ unit(member.transform(images)).T for _, member in MEMBERS]
    np.testing.assert_allclose(found @ found.T, (9 * cosines[0] + cosines[1]) / 10, rtol=1e-3, atol=1e-4)


def test_local_features_and_networks_together(images, tmp_path):
    words = make_pipeline(SIFT(contrast_threshold=0.01), VLAD(3, random_state=0))
    counts = make_pipeline(SIFT(contrast_threshold=0.01), BagOfWords(5, sparse=True, random_state=0))
    ensemble = Ensemble([("gem", GeM(BACKBONE)), ("vlad", words), ("bow", counts)], whitening=PCAWhitening(4))
    ensemble.fit(images)
    expected = ensemble.transform(images)
    assert expected.shape == (12, 12) and not hasattr(words[1], "codebook_")
    loaded = load_model(save_model(ensemble, tmp_path / "e.cvm"))
    np.testing.assert_array_equal(loaded.transform(images), expected)
    assert loaded.get_params()["vlad__vlad__n_words"] == 3


def test_parameters_of_members_go_by_their_names(images):
    ensemble = Ensemble(clone(MEMBERS, safe=False), whitening=PCAWhitening(3))
    ensemble.set_params(gem__p=5, mac__backbone__layer="layer1")
    assert ensemble.members[0][1].p == 5 and ensemble.get_params()["mac__backbone__layer"] == "layer1"
    ensemble.set_params(mac=SPoC(BACKBONE))
    assert isinstance(ensemble.members[1][1], SPoC)
    y = [0, 1, 2] * 4
    model = make_pipeline(ensemble, LinearSVC())
    search = GridSearchCV(model, {"ensemble__gem__p": [1.0, 3.0]}, cv=2, error_score="raise").fit(images, y)
    assert search.best_params_["ensemble__gem__p"] in (1.0, 3.0)


def test_labels_reach_members_and_whitenings(images):
    y = np.arange(12) // 2
    ensemble = Ensemble(MEMBERS, whitening=LearnedWhitening(3, shrinkage=0.1)).fit(images, y)
    expected = LearnedWhitening(3, shrinkage=0.1).fit(GeM(BACKBONE).transform(images), y)
    np.testing.assert_allclose(ensemble.whitenings_[0].mean_, expected.mean_, rtol=1e-4, atol=1e-6)


def test_image_retriever_searches_by_an_ensemble(images, tmp_path):
    encoder = Ensemble(MEMBERS, whitening=PCAWhitening(6))
    retriever = ImageRetriever(encoder=encoder, location=tmp_path / "index").fit(images)
    loaded = ImageRetriever.load(tmp_path / "index")
    for engine in (retriever, loaded):
        for i, result in enumerate(engine.search(images[:3], k=2)):
            assert result.hits[0].id == loaded.ids[i] and result.hits[0].score > 0.999


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        (Ensemble([]), "'members' parameter of Ensemble must be pairs"),
        (Ensemble([GeM(BACKBONE)]), "must be pairs of a name and an estimator"),
        (Ensemble([("a", GeM(BACKBONE)), ("a", MAC(BACKBONE))]), "not unique"),
        (Ensemble([("whitening", GeM(BACKBONE))]), "conflict with constructor arguments"),
        (Ensemble([("vlad", VLAD())]), "member 'vlad' of Ensemble must describe images"),
        (Ensemble([("gem", "GeM")]), "member 'gem' of Ensemble must describe images"),
        (Ensemble(MEMBERS, whitening="zca"), "'whitening' parameter of Ensemble"),
        (Ensemble(MEMBERS, combine="sum"), "'combine' parameter of Ensemble"),
        (Ensemble(MEMBERS, norm="l1"), "'norm' parameter of Ensemble"),
        (Ensemble(MEMBERS, weights=(1,)), "2 members, but 1 weights"),
        (Ensemble(MEMBERS, weights=(1, 0)), "'weights' parameter of Ensemble"),
        (
            Ensemble([*MEMBERS, ("small", MAC(Backbone("resnet18", weights=None, layer="layer1")))], whitening=None,
                     combine="mean"),
            "vectors of 128, 128, 64 components, which have no mean",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_wrong_ensembles(ensemble, message, images):
    with pytest.raises(ValueError, match=message):
        ensemble.fit(images)
