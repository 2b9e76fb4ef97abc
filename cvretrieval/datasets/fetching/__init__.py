"""Downloads, only when called."""

from cvretrieval.datasets.fetching.download import DownloadError, fetch
from cvretrieval.datasets.fetching.public_sets import (
    fetch_copydays,
    fetch_cub200,
    fetch_oxford5k,
    fetch_oxford5k_ground_truth,
    fetch_paris6k,
    fetch_paris6k_ground_truth,
    fetch_place_lists,
    fetch_revisitop1m,
    fetch_roxford5k_ground_truth,
    fetch_rparis6k_ground_truth,
    fetch_smvs,
    fetch_sop,
    fetch_ukbench,
)
from cvretrieval.datasets.fetching.unpacking import unpack

__all__ = [
    "DownloadError",
    "fetch",
    "fetch_copydays",
    "fetch_cub200",
    "fetch_oxford5k",
    "fetch_oxford5k_ground_truth",
    "fetch_paris6k",
    "fetch_paris6k_ground_truth",
    "fetch_place_lists",
    "fetch_revisitop1m",
    "fetch_roxford5k_ground_truth",
    "fetch_rparis6k_ground_truth",
    "fetch_smvs",
    "fetch_sop",
    "fetch_ukbench",
    "unpack",
]
