"""Small instances of the deep estimators for the contract suite, on a small random network."""

from __future__ import annotations

from cvretrieval import PCAWhitening
from cvretrieval.deep import (
    MAC,
    RMAC,
    Backbone,
    CroW,
    DeepLocalFeatures,
    Ensemble,
    GeM,
    MultiScaleRMAC,
    NetVLAD,
    NeuralCodes,
    SPoC,
    WeightedGeM,
)

# 128 channels at an eighth of the resolution: milliseconds an image.
BACKBONE = Backbone("resnet18", weights=None, layer="layer2")

#: learn nothing from images
PLAIN = {
    "MAC": MAC(BACKBONE),
    "SPoC": SPoC(BACKBONE),
    "SPoC-no-prior": SPoC(BACKBONE, center_prior=False, norm=None),
    "CroW": CroW(BACKBONE, scales=(1, 0.5)),
    "GeM": GeM(BACKBONE),
    "GeM-scales": GeM(BACKBONE, p=2.5, scales=(1.0, 2**-0.5, 0.5)),
    "RMAC": RMAC(BACKBONE),
    "RMAC-global": RMAC(BACKBONE, levels=2, include_global=True, scales=(1, 1.5)),
    "MultiScaleRMAC": MultiScaleRMAC(BACKBONE),
    "MultiScaleRMAC-regions": MultiScaleRMAC(BACKBONE, sum_of="regions", levels=2, scales=(1, 0.7)),
    "NeuralCodes": NeuralCodes(Backbone("squeezenet1_1", weights=None), input_size=64),
    "NeuralCodes-map": NeuralCodes(BACKBONE, input_size=40, resize="crop", relu=False),
}

#: learn from images
LEARNING = {
    "RMAC-whitened": RMAC(BACKBONE, whitening=PCAWhitening(6), max_train_images=5, random_state=0),
    "GeM-whitened": GeM(BACKBONE, whitening=PCAWhitening(2), scales=(1, 0.5)),
    "NetVLAD": NetVLAD(BACKBONE, n_clusters=3, descriptors_per_image=20, random_state=0),
    "NetVLAD-authors": NetVLAD(BACKBONE, n_clusters=2, form="authors", scales=(1, 0.7), random_state=0),
    "WeightedGeM": WeightedGeM(BACKBONE, descriptors_per_image=20, random_state=0),
    "MultiScaleRMAC-whitened": MultiScaleRMAC(
        BACKBONE, sum_of="regions", whitening=PCAWhitening(6), max_train_images=5, random_state=0
    ),
}

#: learn from several images at least
ENSEMBLES = {
    "Ensemble": Ensemble([("mac", MAC(BACKBONE)), ("spoc", SPoC(BACKBONE))], whitening=PCAWhitening(4)),
    "Ensemble-mean": Ensemble([("mac", MAC(BACKBONE)), ("spoc", SPoC(BACKBONE))], whitening=None, combine="mean"),
}

EVERYTHING = {**PLAIN, **LEARNING, **ENSEMBLES}

#: images to local features
EXTRACTORS = {
    "DeepLocalFeatures": DeepLocalFeatures(BACKBONE),
    "DeepLocalFeatures-few": DeepLocalFeatures(BACKBONE, max_features=20, norm=None, scales=(1, 0.6)),
}
