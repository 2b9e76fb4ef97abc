"""The examples of the gallery in the order in which one would read them."""

from __future__ import annotations

from pathlib import Path

ORDER = [
    "first_search",
    "sift_against_surf",
    "visual_words",
    "bag_of_words_grid_search",
    "accuracy_by_bytes",
    "verification",
    "query_expansion",
    "gem_exponent",
    "rmac_regions",
    "netvlad_clusters",
    "train_cgd",
    "cnn_and_sift",
]


class ReadingOrder:
    """Key to sort the files of the gallery by; those that are not listed follow."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> tuple[int, str]:
        name = Path(file).stem.removeprefix("plot_")
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)

    def __repr__(self) -> str:
        return "ReadingOrder"  # without an address, so that the configuration is the same in each build
