"""Place recognition: positions from lists, tables, names and the order of frames, and what lies within a radius."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from cvretrieval.datasets import load_dataset, load_pitts30k, load_pitts250k, load_places, load_tokyo247
from cvretrieval.metrics import Relevance, get_protocol
from tests.official_layouts import figures_of_random_rankings, street_view, touch, write

#: Eastings and northings are large: differences of a few metres must survive.
ORIGIN = np.array([584_000.0, 4_477_000.0])


def relevance_by_hand(database: dict, queries: dict, radius: float, panorama_of=None) -> dict:
    return {
        query: Relevance(
            {image for image, place in database.items() if np.hypot(*np.subtract(place, own)) <= radius},
            panorama_of=panorama_of or {},
        )
        for query, own in queries.items()
    }


def random_places(folder: str, n: int, seed: int, suffix: str = ".jpg") -> dict:
    positions = np.random.default_rng(seed).uniform(0, 150, (n, 2)) + ORIGIN
    return {f"{folder}/{i:06d}{suffix}": tuple(map(float, place)) for i, place in enumerate(positions)}


@pytest.mark.parametrize("flat", [False, True])
def test_pittsburgh(tmp_path, flat):
    database, queries = random_places("000", 40, 0), random_places("001", 15, 1)
    # One image exactly at the limit, which is within: 15² + 20² = 25².
    queries["001/at_limit.jpg"] = (0.0, 0.0)
    database["000/at_limit.jpg"] = (15.0, 20.0)
    street_view(tmp_path if flat else tmp_path / "datasets", "pitts30k_test.mat", database, queries)
    touch(tmp_path, *(name if flat else f"images/{name}" for name in database))
    touch(tmp_path, *(f"{'queries_real' if flat else 'queries'}/{name}" for name in queries))
    dataset = load_dataset(tmp_path, get_protocol("pitts30k"), complete=False)
    truth = relevance_by_hand(database, queries, 25)
    assert dataset.ground_truth["001/at_limit.jpg"].relevant == {"000/at_limit.jpg"}
    assert {query.id: query.relevant for query in dataset.queries} == {q: t.relevant for q, t in truth.items()}
    figures_of_random_rankings(dataset, truth, "pitts30k")
    assert dataset.protocols == ("pitts30k",)
    with pytest.raises(ValueError, match=r"Pitts30k has 10,000 database images, but 41 were found"):
        load_pitts30k(tmp_path)


def test_pittsburgh_is_checked(tmp_path):
    database, queries = random_places("000", 12, 0), random_places("001", 5, 1)
    with pytest.raises(ValueError, match=r"has no file pitts250k_val.mat or .*fetch_place_lists"):
        load_pitts250k(tmp_path, split="val")
    with pytest.raises(ValueError, match="'split' parameter of load_pitts30k"):
        load_pitts30k(tmp_path, split="all")
    street_view(tmp_path, "pitts30k_test.mat", database, queries)
    with pytest.raises(ValueError, match="has no folder queries or queries_real|000000.jpg is missing"):
        load_pitts30k(tmp_path)
    names = list(database)
    touch(tmp_path, *(f"images/{name}" for name in names[2:]), *(f"queries/{name}" for name in queries))
    with pytest.raises(ValueError, match=r"000000.jpg is missing, and 1 other images"):
        load_pitts30k(tmp_path)
    dataset = load_pitts30k(tmp_path, complete=False)
    assert dataset.database_ids == names[2:]
    present = {name: database[name] for name in names[2:]}
    expected = {q: t.relevant for q, t in relevance_by_hand(present, queries, 25).items()}
    assert {query.id: query.relevant for query in dataset.queries} == expected
    broken = dict(database)
    broken["000/more.jpg"] = (1.0, 2.0)
    file = street_view(tmp_path, "pitts30k_test.mat", broken, queries)
    structure = loadmat(file)["dbStruct"]
    structure["utmDb"][0, 0] = structure["utmDb"][0, 0][:, :-1]
    savemat(file, {"dbStruct": structure})
    with pytest.raises(ValueError, match=r"has 12 positions for 13 names"):
        load_pitts30k(tmp_path, complete=False)


def test_tokyo(tmp_path):
    """Twelve images that follow each other are one panorama; the list says .jpg where files are .png."""
    rng = np.random.default_rng(2)
    database, panorama_of = {}, {}
    for panorama in range(12):
        place = tuple(map(float, rng.uniform(0, 100, 2)))
        for cutout in range(12):
            name = f"03814/{panorama:04d}_012_{cutout * 30}.jpg"
            database[name], panorama_of[name] = place, panorama
    queries = random_places("", 8, 3)
    queries = {
        name.strip("/"): (east - 584_000 - 25, north - 4_477_000 - 25) for name, (east, north) in queries.items()
    }
    street_view(tmp_path, "tokyo247.mat", database, queries)
    touch(tmp_path, *(name.replace(".jpg", ".png") for name in database))
    touch(tmp_path, *(f"247query_subset_v2/{name}" for name in queries))
    dataset = load_tokyo247(tmp_path, complete=False)
    assert dataset.database["03814/0000_012_0.jpg"].name == "0000_012_0.png"
    truth = relevance_by_hand(database, queries, 25, panorama_of)
    figures_of_random_rankings(dataset, truth, "tokyo247@1,2")
    with pytest.raises(ValueError, match=r"75,984 database images, but 144 were found"):
        load_tokyo247(tmp_path)


def test_places_from_a_table(tmp_path):
    database, queries = random_places("database/a", 30, 0), random_places("queries", 10, 1)
    panorama_of = {name: f"p{i // 3}" for i, name in enumerate(database)}
    lines = ["image, easting ,Northing,panorama"]
    lines += [f"{name},{east!r},{north!r},{panorama_of[name]}" for name, (east, north) in database.items()]
    lines += [f"{name},{east!r},{north!r}," for name, (east, north) in queries.items()]
    write(tmp_path / "places.csv", "\n".join(lines))
    touch(tmp_path, *database, *queries)
    dataset = load_dataset(tmp_path, get_protocol("vpr-30m-panorama"))
    assert dataset.form == "vpr:30m"
    assert dataset.protocols == ("vpr-30m",)
    assert dataset.name == tmp_path.name
    figures_of_random_rankings(
        dataset, relevance_by_hand(database, queries, 30, panorama_of), ["vpr-30m", "vpr-30m-panorama@1,3"]
    )
    for text, message in (
        (lines[0] + "\ndatabase/a/000000.jpg,1,nan,\n", "line 2: an image and two finite numbers"),
        (lines[0] + "\ndatabase/a/000000.jpg,1\n", "line 2: an image and two finite numbers"),
        ("\n".join([*lines, lines[1]]), "line 42: 'database/a/000000.jpg' was given already"),
        ("\n".join(lines[:1] + lines[2:]), "does not say where 'database/a/000000.jpg' was taken"),
        ("image,lat,lon\n", "The header of .* is 'image,lat,lon'"),
    ):
        write(tmp_path / "places.csv", text)
        with pytest.raises(ValueError, match=message):
            load_places(tmp_path)


def test_places_from_file_names(tmp_path):
    database, queries = {}, {}
    for folder, found, n in (("images/test/database", database, 30), ("images/test/queries", queries, 10)):
        for east, north in np.random.default_rng(n).uniform(0, 150, (n, 2)) + ORIGIN:
            found[f"{folder}/@{east:.2f}@{north:.2f}@17@T@@.jpg"] = (round(east, 2), round(north, 2))
    touch(tmp_path, *database, *queries)
    dataset = load_places(tmp_path, radius=20)
    figures_of_random_rankings(dataset, relevance_by_hand(database, queries, 20), "vpr-20m")
    touch(tmp_path, "images/test/queries/night.jpg")
    with pytest.raises(ValueError, match=r"no places.csv, and the name of .*night.jpg does not say where"):
        load_places(tmp_path)


def test_frames(tmp_path):
    """The i-th frame of one traverse corresponds to the i-th of the other, in each stretch by itself."""
    stretches = {"a": 12, "b": 9}
    for folder in ("summer", "winter"):
        touch(tmp_path, *(f"{folder}/{name}/{i:04d}.jpg" for name, n in stretches.items() for i in range(n)))
    dataset = load_places(tmp_path, 2, "frames", database="summer", queries="winter")
    assert dataset.form == "vpr:2frames"
    for query in dataset.queries:
        _, stretch, name = query.id.split("/")
        own = int(name[:4])
        near = range(max(0, own - 2), min(stretches[stretch], own + 3))
        assert query.relevant == {f"summer/{stretch}/{i:04d}.jpg" for i in near}
    (tmp_path / "winter" / "b" / "0000.jpg").unlink()
    with pytest.raises(ValueError, match=r"do not correspond frame by frame: 21 images in 2 folders and 20 images"):
        load_places(tmp_path, 2, "frames", database="summer", queries="winter")
    with pytest.raises(ValueError, match="has no folder database or images/test/database"):
        load_dataset(tmp_path, "vpr-10frames")
    with pytest.raises(ValueError, match="'radius' parameter of load_places must be an integer"):
        load_places(tmp_path, 2.5, "frames")
    with pytest.raises(ValueError, match="'unit' parameter"):
        load_places(tmp_path, 2, "miles")
