"""Where the files of the public sets are, and where each belongs in the layout that its loader reads."""

from __future__ import annotations

from dataclasses import dataclass

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_REVISITOP = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_R1M = "http://ptak.felk.cvut.cz/revisitop/revisitop1m"
_SMVS = "https://stacks.stanford.edu/file/druid:rb470rw0983"
_COPYDAYS = "https://dl.fbaipublicfiles.com/vissl/datasets"


@dataclass(frozen=True)
class Source:
    """A file to be downloaded.

    Attributes
    ----------
    url : str
    folder : str
        Where it is unpacked, or put if it is no archive, under the folder of the set.
    md5 : str or None
        As the publisher states it, or as many independent projects have it.
    """

    url: str
    folder: str = "."
    md5: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        return self.name.endswith((".tgz", ".tar.gz", ".zip"))


#: name → its files. Sets that are handed out on request only (In-shop, Pittsburgh, Tokyo 24/7), or whose addresses
#: have come and gone (Holidays, Cars196), are not among them: their loaders say where to ask.
SOURCES: dict[str, tuple[Source, ...]] = {
    "oxford5k_ground_truth": (Source(f"{_VGG}/oxbuildings/gt_files_170407.tgz", "gt_files_170407"),),
    "oxford5k_images": (Source(f"{_VGG}/oxbuildings/oxbuild_images-v1.tgz", "images"),),
    "paris6k_ground_truth": (Source(f"{_VGG}/parisbuildings/paris_120310.tgz", "paris_120310"),),
    "paris6k_images": (
        Source(f"{_VGG}/parisbuildings/paris_1-v1.tgz", "images"),
        Source(f"{_VGG}/parisbuildings/paris_2-v1.tgz", "images"),
    ),
    "roxford5k_ground_truth": (Source(f"{_REVISITOP}/roxford5k/gnd_roxford5k.pkl"),),
    "rparis6k_ground_truth": (Source(f"{_REVISITOP}/rparis6k/gnd_rparis6k.pkl"),),
    "revisitop1m": (
        Source(f"{_R1M}/revisitop1m.txt"),
        *(Source(f"{_R1M}/jpg/revisitop1m.{part}.tar.gz", "jpg") for part in range(1, 101)),
    ),
    "ukbench": (Source("https://archive.org/download/ukbench/ukbench.zip"),),
    "cub200": (
        Source(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            md5="97eceeb196236b17998738112f37df78",
        ),
    ),
    "sop": (
        Source(
            "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip", md5="7f73d41a2f44250d4779881525aea32e"
        ),
    ),
    **{
        f"smvs_{category}": (Source(f"{_SMVS}/{category}.zip"),)
        for category in ("book_covers", "business_cards", "cd_covers", "dvd_covers", "landmarks", "museum_paintings",
                         "print", "video_frames")
    },
    "copydays": (
        Source(f"{_COPYDAYS}/copydays_original.tar.gz", "original"),
        Source(f"{_COPYDAYS}/copydays_strong.tar.gz", "strong"),
    ),
    "place_lists": (Source("https://www.di.ens.fr/willow/research/netvlad/data/netvlad_v100_datasets.tar.gz"),),
}  # fmt: skip
