"""Loaders of the public benchmarks: official layouts, what is said of broken ones, and the figures they lead to."""

from __future__ import annotations

import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cvretrieval.datasets import (
    BENCHMARK_FORMS,
    RetrievalDataset,
    load_copydays,
    load_dataset,
    load_holidays,
    load_oxford5k,
    load_paris6k,
    load_roxford5k,
    load_rparis6k,
    load_smvs,
    load_ukbench,
    oxford_ground_truth,
    read_rotations,
    turn_upright,
)
from cvretrieval.datasets.benchmarks.buildings import OXFORD5K_DIGEST, PARIS6K_CORRUPT, ground_truth_digest
from cvretrieval.images import ImageReader
from cvretrieval.metrics import BENCHMARKS, Relevance, evaluate_rankings, get_protocol
from tests.official_layouts import draw, figures_of_random_rankings, revisited, touch, write


def lists(root, name, query, good, ok=(), junk=()):
    write(root / f"{name}_query.txt", f"{query} 1.0 2.0 30.5 40.0\n")
    for kind, names in (("good", good), ("ok", ok), ("junk", junk)):
        write(root / f"{name}_{kind}.txt", "".join(f"{image}\n" for image in names))


class TestBuildings:
    @pytest.fixture
    def oxford(self, tmp_path):
        images = [f"hall_{i:06d}" for i in range(6)]
        touch(tmp_path / "oxford", *(f"images/{name}.jpg" for name in images))
        folder = tmp_path / "oxford" / "gt_files_170407"
        lists(folder, "hall_1", "oxc1_hall_000000", images[:2], images[2:3], images[3:4])
        lists(folder, "hall_2", "oxc1_hall_000001", images[:2])
        return tmp_path / "oxford"

    def test_oxford5k(self, oxford):
        dataset = load_oxford5k(oxford, complete=False)
        assert str(dataset) == (
            "Oxford5k, 6 images (oxford5k): 6 database images, 2 queries, 2 with a region, queries in the database"
        )
        assert dataset.queries[0].path == oxford / "images" / "hall_000000.jpg"
        truth = {
            "hall_1": Relevance({"hall_000000", "hall_000001", "hall_000002"}, {"hall_000003"}),
            "hall_2": Relevance({"hall_000000", "hall_000001"}),
        }
        figures_of_random_rankings(dataset, truth, ["oxford5k"])
        assert dataset.protocols == ("oxford5k",)
        assert load_dataset(oxford, "oxford5k-full", complete=False).ground_truth == dataset.ground_truth

    def test_oxford5k_is_checked(self, oxford):
        with pytest.raises(ValueError, match=r"are not the 55 published queries(.|\n)*Get it from https://www.robots"):
            load_oxford5k(oxford)
        with pytest.raises(ValueError, match=r"nowhere does not exist\. Oxford5k is laid out as"):
            load_oxford5k(oxford / "nowhere")
        shutil.rmtree(oxford / "gt_files_170407")
        with pytest.raises(ValueError, match=r"has no lists of queries \(\*_query.txt\)"):
            load_oxford5k(oxford)

    def test_a_part_leaves_out_what_is_missing(self, oxford):
        (oxford / "images" / "hall_000002.jpg").unlink()
        (oxford / "images" / "hall_000001.jpg").unlink()
        dataset = load_oxford5k(oxford, complete=False)
        assert dataset.query_ids == ["hall_1"]
        assert dataset.queries[0].relevant == {"hall_000000"}
        assert dataset.queries[0].junk == {"hall_000003"}

    def test_distractors(self, oxford):
        touch(oxford.parent, "oxc1_100k/cat/1.jpg", "oxc1_100k/dog/1.jpg")
        dataset = load_dataset(oxford, get_protocol("oxford105k"), complete=False)
        assert dataset.form == "oxford5k+100k"
        assert dataset.protocols == ("oxford105k",)
        assert dataset.database_ids[-2:] == ["Flickr100k/cat/1.jpg", "Flickr100k/dog/1.jpg"]
        assert len(dataset.database) == 8
        shutil.rmtree(oxford.parent / "oxc1_100k")
        with pytest.raises(ValueError, match=r"has no folder oxc1_100k or .*Get it from .*flickr100k"):
            load_dataset(oxford, "oxford105k")

    def test_paris6k(self, tmp_path):
        corrupt = sorted(PARIS6K_CORRUPT)
        assert len(corrupt) == 20
        names = [f"paris_defense_{i:06d}" for i in range(6372)]
        touch(tmp_path, *(f"paris/{'abc'[i % 3]}/{name}.jpg" for i, name in enumerate(names + corrupt)))
        rng = np.random.default_rng(0)
        for i in range(55):
            good, ok, junk = rng.permutation(names)[:9].reshape(3, 3).tolist()
            lists(tmp_path / "paris_120310", f"defense_{i + 1}", names[i], [*good, corrupt[i % 20]], ok, junk)
        with pytest.raises(ValueError, match=r"has 6,392 database images, but 6,372 were found: 20 are missing"):
            load_paris6k(tmp_path)
        touch(tmp_path, *(f"paris/more/paris_louvre_{i + 2000:06d}.jpg" for i in range(20)))
        dataset = load_paris6k(tmp_path)
        assert len(dataset.database) == 6392
        assert not dataset.database.keys() & PARIS6K_CORRUPT
        assert all(len(query.relevant) == 6 for query in dataset.queries)
        touch(tmp_path, "paris/a/paris_louvre_002000.jpg")
        with pytest.raises(ValueError, match="have one name; it must be unique"):
            load_paris6k(tmp_path)

    @pytest.mark.real_data
    def test_published_oxford_lists(self, data_dir, tmp_path):
        """The published lists over empty images of the right number."""
        folder = data_dir / "oxford5k_gt"
        assert ground_truth_digest(oxford_ground_truth(folder)) == OXFORD5K_DIGEST
        shutil.copytree(folder, tmp_path / "gt_files_170407")
        queries = oxford_ground_truth(folder)
        named = set().union(*(q.relevant | q.junk | {q.own_id} for q in queries))
        padding = [f"other_{i:06d}" for i in range(5063 - len(named))]
        touch(tmp_path, *(f"oxbuild_images/{name}.jpg" for name in [*named, *padding]))
        dataset = load_dataset(tmp_path, "oxford5k")
        assert str(dataset) == (
            "Oxford5k (oxford5k): 5,063 database images, 55 queries, 55 with a region, queries in the database"
        )
        truth = {query.id: Relevance(query.relevant, query.junk) for query in queries}
        (figure,) = figures_of_random_rankings(dataset, truth, "oxford5k").values()
        assert 0 < figure < 0.1
        perfect = {q.id: [*q.junk, *q.relevant] for q in dataset.queries}
        assert evaluate_rankings(dataset.ground_truth, perfect, "oxford5k").figures == {"mAP (Oxford5k)": 1.0}
        listing = tmp_path / "gt_files_170407" / "all_souls_1_ok.txt"
        listing.write_text(listing.read_text(encoding="utf-8").replace("\n", "\r\n"), encoding="utf-8", newline="")
        load_oxford5k(tmp_path)
        listing.write_text("", encoding="utf-8")
        with pytest.raises(ValueError, match="are not the 55 published queries"):
            load_oxford5k(tmp_path)


class TestRevisited:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_figures(self, tmp_path, protocol):
        content = revisited(tmp_path / "roxford5k", protocol=protocol)
        truth = {}
        for name, entry in zip(content["qimlist"], content["gnd"], strict=True):
            easy, hard, junk = (
                {content["imlist"][int(i)] for i in np.ravel(entry[kind])} for kind in ("easy", "hard", "junk")
            )
            truth[name] = Relevance(easy | hard, junk, hard)
        for root in (tmp_path / "roxford5k", tmp_path):
            dataset = load_roxford5k(root, complete=False)
            figures = figures_of_random_rankings(dataset, truth, "roxford")
            assert len(figures) == 12
            assert dataset.protocols == ("roxford-easy", "roxford-medium", "roxford-hard")
        assert [query.box for query in dataset.queries] == [(1.5, 2.0, 30.0, 40.0)] + [(136.5, 34.1, 648.5, 955.7)] * 2
        assert not dataset.query_in_database
        assert dataset.queries[0].path == tmp_path / "roxford5k" / "jpg" / "hall_000001.jpg"

    def test_distractors(self, tmp_path):
        revisited(tmp_path / "rparis6k", "rparis6k")
        touch(tmp_path, "revisitop1m/jpg/a/1.jpg", "revisitop1m/jpg/b/1.jpg", "revisitop1m/revisitop1m.txt")
        dataset = load_dataset(tmp_path / "rparis6k", "rparis+1m", complete=False)
        assert dataset.database_ids[-2:] == ["revisitop1m/a/1.jpg", "revisitop1m/b/1.jpg"]
        assert dataset.protocols == ("rparis-easy+1m", "rparis-medium+1m", "rparis-hard+1m")
        with pytest.raises(ValueError, match=r"has 6,322 database images, but 8 were found: 6,314 are missing"):
            load_rparis6k(tmp_path / "rparis6k", distractors=tmp_path / "revisitop1m")

    def test_missing_images(self, tmp_path):
        revisited(tmp_path)
        (tmp_path / "jpg" / "all_souls_000002.jpg").unlink()
        (tmp_path / "jpg" / "hall_000003.jpg").unlink()
        with pytest.raises(ValueError, match=r"all_souls_000002.jpg is missing \(complete=False"):
            load_roxford5k(tmp_path)
        dataset = load_roxford5k(tmp_path, complete=False)
        assert "all_souls_000002" not in dataset.database
        assert dataset.query_ids == ["hall_000001", "hall_000002"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c.pop("gnd"), "must hold imlist, qimlist and gnd"),
            (lambda c: c["gnd"].pop(), "with one entry for each of 3 queries"),
            (lambda c: c.update(imlist="abc"), "imlist in .* must be a list of names"),
            (lambda c: c["imlist"].__setitem__(0, "../../etc/passwd"), "imlist in .* must hold plain names"),
            (lambda c: c["gnd"][1].pop("hard"), "The entry of query 'hall_000002' .* must hold easy, hard and junk"),
            (lambda c: c["gnd"][1].update(easy=[8]), "entry of query 'hall_000002'.*IndexError"),
            (lambda c: c["gnd"][1].update(easy=[-1]), "entry of query 'hall_000002'.*image -1"),
            (lambda c: c["gnd"][1].update(easy=[0.5]), "entry of query 'hall_000002'.*float64"),
            (lambda c: c["gnd"][1].update(bbx=[1, 2, 3]), "entry of query 'hall_000002'.*bbx"),
        ],
    )
    def test_broken_ground_truth(self, tmp_path, change, message):
        content = revisited(tmp_path)
        change(content)
        (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_roxford5k(tmp_path, complete=False)

    def test_a_program_instead_of_ground_truth(self, tmp_path):
        revisited(tmp_path)
        program = f"cbuiltins\nexec\n(Vopen({str(tmp_path / 'executed')!r}, 'w')\ntR."
        (tmp_path / "gnd_roxford5k.pkl").write_bytes(program.encode())
        with pytest.raises(ValueError, match=r"the name of a program, builtins.exec. Nothing in it was executed"):
            load_roxford5k(tmp_path)
        assert not (tmp_path / "executed").exists()


class TestHolidays:
    def test_complete(self, tmp_path):
        sizes = [3] * 491 + [2] * 9
        names = [f"{1000 + group}{member:02d}.jpg" for group, size in enumerate(sizes) for member in range(size)]
        touch(tmp_path, *(f"jpg/{name}" for name in names))
        dataset = load_holidays(tmp_path)
        assert str(dataset) == "Holidays (holidays): 1,491 database images, 500 queries, queries in the database"
        truth = {
            name: Relevance({other for other in names if other[:4] == name[:4] and other != name}, {name}, own_id=name)
            for name in names
            if name.endswith("00.jpg")
        }
        figures_of_random_rankings(dataset, truth, ["holidays"])
        assert load_dataset(tmp_path / "jpg", "holidays").ground_truth == dataset.ground_truth
        (tmp_path / "jpg" / "100001.jpg").unlink()
        with pytest.raises(ValueError, match=r"1,491 database images, but 1,490 were found: 1 are missing"):
            load_holidays(tmp_path)
        touch(tmp_path, "jpg/notes.jpg")
        with pytest.raises(ValueError, match="notes.jpg is not named by six digits"):
            load_holidays(tmp_path)

    def test_upright(self, tmp_path):
        """Turned copies are read upright, and not a pixel of them is changed."""
        size = (48, 32)
        for i, name in enumerate(("100000", "100001", "100100", "100101")):
            # One says itself that it is turned; the list overrules it.
            exif = {274: 6} if name == "100001" else {}
            recorded = Image.Exif()
            recorded.update(exif)
            draw(tmp_path / "jpg" / f"{name}.jpg", i, size, quality=95, exif=recorded)
        listing = write(tmp_path / "rotations.txt", "# clockwise\n100000.jpg 90\n\n100100.jpg, 180\n100101.jpg -90\n")
        assert read_rotations(listing) == {"100000.jpg": 90, "100100.jpg": 180, "100101.jpg": 270}
        assert turn_upright(tmp_path / "jpg", listing, tmp_path / "jpg_rotated") == tmp_path / "jpg_rotated"
        dataset = load_holidays(tmp_path, upright=True, complete=False)
        assert dataset.form == "holidays:upright"
        assert dataset.protocols == ("holidays-upright",)
        apply, ignore = ImageReader(exif="apply", max_size=None), ImageReader(exif="ignore", max_size=None)
        for name, turns in (("100000", 1), ("100001", 0), ("100100", 2), ("100101", 3)):
            stored = ignore.read(tmp_path / "jpg" / f"{name}.jpg", color="rgb").pixels
            copy = dataset.database[f"{name}.jpg"]
            np.testing.assert_array_equal(ignore.read(copy, color="rgb").pixels, stored)
            np.testing.assert_array_equal(apply.read(copy, color="rgb").pixels, np.rot90(stored, -turns))
        assert load_holidays(tmp_path, complete=False).database_paths[0].parent.name == "jpg"
        shutil.rmtree(tmp_path / "jpg_rotated")
        assert load_dataset(tmp_path, "holidays-upright", complete=False).database_paths[0].parent.name == "jpg"

    def test_broken_rotations(self, tmp_path):
        draw(tmp_path / "jpg" / "100000.jpg")
        for text, message in (
            ("100000.jpg 45\n", "line 1: '100000.jpg 45' is not a name and a rotation"),
            ("\n100000.jpg\n", "line 2: "),
            ("a.jpg 90\na.jpg 180\n", "line 2: 'a.jpg' was given another rotation already"),
        ):
            with pytest.raises(ValueError, match=message):
                read_rotations(write(tmp_path / "list.txt", text))
        with pytest.raises(ValueError, match=r"name '1.jpg', which is not in"):
            turn_upright(tmp_path / "jpg", {"1.jpg": 90}, tmp_path / "out")
        with pytest.raises(ValueError, match="must be 0, 90, 180 or 270 degrees. Got 45"):
            turn_upright(tmp_path / "jpg", {"100000.jpg": 45}, tmp_path / "out")
        with pytest.raises(ValueError, match="name another one"):
            turn_upright(tmp_path / "jpg", {}, tmp_path / "jpg")
        assert not (tmp_path / "out").exists()
        (tmp_path / "jpg" / "100000.jpg").write_bytes(b"GIF89a")
        with pytest.raises(ValueError, match="is not a JPEG"):
            turn_upright(tmp_path / "jpg", {}, tmp_path / "out")
        (tmp_path / "jpg" / "100000.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JF")
        with pytest.raises(ValueError, match="is damaged"):
            turn_upright(tmp_path / "jpg", {}, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


def test_ukbench(tmp_path):
    touch(tmp_path, *(f"full/ukbench{i:05d}.jpg" for i in range(10_200)))
    dataset = load_ukbench(tmp_path)
    assert (len(dataset.database), len(dataset.queries)) == (10_200, 10_200)
    some = {
        f"ukbench{i:05d}.jpg": {f"ukbench{j:05d}.jpg" for j in range(i // 4 * 4, i // 4 * 4 + 4)}
        for i in (0, 7, 10_199)
    }
    for name, group in some.items():
        query = dataset.ground_truth[name]
        assert query.relevant == group - {name}
        assert query.junk == {name}
        assert query.own_id == name
    (tmp_path / "full" / "ukbench00005.jpg").unlink()
    for complete in (True, False):
        with pytest.raises(ValueError, match=r"group ukbench00004 to ukbench00007 has 3 of its 4 images"):
            load_ukbench(tmp_path, complete=complete)


@pytest.mark.real_data
def test_real_ukbench(data_dir):
    folder = data_dir / "ukbench_56"
    with pytest.raises(
        ValueError, match=r"10,200 database images, but 56 were found(.|\n)*archive.org/details/ukbench"
    ):
        load_ukbench(folder)
    dataset = load_dataset(folder, "ukbench", complete=False)
    names = [f"ukbench{i:05d}.jpg" for i in range(56)]
    assert dataset.database_ids == names
    truth = {
        name: Relevance({names[j] for j in range(i // 4 * 4, i // 4 * 4 + 4)} - {name}, {name}, own_id=name)
        for i, name in enumerate(names)
    }
    figures_of_random_rankings(dataset, truth, ["ukbench", "recall@1"])


@pytest.mark.real_data
def test_real_smvs(data_dir):
    dataset = load_dataset(data_dir / "smvs_dvd", "smvs")
    assert str(dataset) == "SMVS (smvs): 100 database images, 200 queries"
    truth = {
        f"{camera}/{i:03d}.jpg": Relevance({f"Reference/{i:03d}.jpg"})
        for camera in ("Canon", "E63")
        for i in range(1, 101)
    }
    figures_of_random_rankings(dataset, truth, ["smvs", "smvs-map"])
    assert load_smvs(data_dir / "smvs_dvd", cameras=["E63"]).query_ids == [f"E63/{i:03d}.jpg" for i in range(1, 101)]


class TestSMVS:
    def test_categories(self, tmp_path):
        touch(tmp_path, "dvd_covers/Reference/001.jpg", "dvd_covers/Reference/002.jpg", "dvd_covers/Canon/001.jpg")
        touch(tmp_path, "landmarks/Reference/001.jpg", "landmarks/Query/001.jpg", "notes/readme.txt")
        with pytest.raises(ValueError, match=r"has 2 categories, but book_covers, .* are missing"):
            load_smvs(tmp_path)
        dataset = load_smvs(tmp_path, complete=False)
        assert dataset.database_ids == [
            *("dvd_covers/Reference/001.jpg", "dvd_covers/Reference/002.jpg", "landmarks/Reference/001.jpg"),
        ]
        assert {query.id: set(query.relevant) for query in dataset.queries} == {
            "dvd_covers/Canon/001.jpg": {"dvd_covers/Reference/001.jpg"},
            "landmarks/Query/001.jpg": {"landmarks/Reference/001.jpg"},
        }

    def test_broken(self, tmp_path):
        touch(tmp_path, "Reference/001.jpg", "Canon/001.jpg", "Canon/002.jpg")
        with pytest.raises(ValueError, match=r"002.jpg has no reference named '002'"):
            load_smvs(tmp_path)
        assert load_smvs(tmp_path, complete=False).query_ids == ["Canon/001.jpg"]
        with pytest.raises(ValueError, match=r"no folder Palm in .*there are Canon"):
            load_smvs(tmp_path, cameras=["Palm"])
        touch(tmp_path, "Reference/001.png")
        with pytest.raises(ValueError, match="two images named '001'"):
            load_smvs(tmp_path)
        with pytest.raises(ValueError, match="has no folder Reference"):
            load_smvs(tmp_path / "Canon")


class TestCopydays:
    @pytest.fixture
    def copydays(self, tmp_path):
        originals = [f"{2000 + i}00" for i in range(157)]
        touch(tmp_path, *(f"original/{name}.jpg" for name in originals))
        touch(tmp_path, *(f"jpegqual/{quality}/{name}.jpg" for quality in (3, 75) for name in originals))
        touch(tmp_path, *(f"crops/80/{name}.jpg" for name in originals))
        touch(tmp_path, *(f"strong/{2000 + i % 157}{1 + i // 157:02d}.jpg" for i in range(229)))
        return tmp_path

    @pytest.mark.parametrize("attack", ["strong", "jpeg3", "jpeg75", "crop80"])
    def test_attacks(self, copydays, attack):
        dataset = load_dataset(copydays, get_protocol(f"copydays-{attack}"))
        assert dataset.form == f"copydays:{attack}"
        assert len(dataset.database) == 157
        assert len(dataset.queries) == (229 if attack == "strong" else 157)
        truth = {name: Relevance({f"original/{name.rpartition('/')[2][:4]}00.jpg"}) for name in dataset.query_ids}
        figures_of_random_rankings(dataset, truth, f"copydays-{attack}")

    def test_originals_beside_the_attacks(self, copydays):
        for file in (copydays / "original").iterdir():
            file.rename(copydays / file.name)
        (copydays / "original").rmdir()
        dataset = load_copydays(copydays)
        assert dataset.queries[0].relevant == {"200000.jpg"}
        assert len(dataset.database) == 157

    def test_distractors(self, copydays):
        touch(copydays, *(f"distractors/{i}.jpg" for i in range(3)))
        dataset = load_dataset(copydays, "copydays-strong+10k", complete=False)
        assert len(dataset.database) == 160
        assert dataset.protocols == ("copydays-strong+10k",)
        with pytest.raises(ValueError, match=r"has 10,000 distractors, but 3 were found"):
            load_dataset(copydays, "copydays:strong+10k")

    def test_broken(self, copydays):
        with pytest.raises(ValueError, match="has no folder crops/10"):
            load_copydays(copydays, "crop10")
        with pytest.raises(ValueError, match=r"must be 'strong', 'jpeg75' or 'crop80'.*Got 'jpeg'"):
            load_copydays(copydays, "jpeg")
        touch(copydays, "strong/999901.jpg")
        with pytest.raises(ValueError, match=r"999901.jpg has no original 999900.jpg"):
            load_copydays(copydays)
        touch(copydays, "original/200002.jpg")
        with pytest.raises(ValueError, match="originals of one group"):
            load_copydays(copydays, "jpeg3")


def test_every_benchmark_has_a_form():
    """`load_dataset` understands what the protocols name, and the forms name protocols that exist."""
    from cvretrieval.datasets.benchmarks.forms import find_benchmark

    for key, benchmark in BENCHMARKS.items():
        assert find_benchmark(benchmark.form) is not None, benchmark.form
        by_name = find_benchmark(key)
        assert by_name is not None, key
        if not key.startswith("copydays"):
            assert by_name is find_benchmark(benchmark.form), key
    for name in ("vpr-25m", "vpr-10frames", "vpr-25m-panorama"):
        assert find_benchmark(get_protocol(name).form) is not None
    assert set(BENCHMARK_FORMS) <= {benchmark.form for benchmark in BENCHMARKS.values()}


def test_load_dataset_takes_protocols(tmp_path):
    revisited(tmp_path)
    expected = load_roxford5k(tmp_path, complete=False).ground_truth
    for form in ("roxford5k", "roxford", "roxford-medium", "roxford-hard@1,5", get_protocol("roxford-easy")):
        assert load_dataset(tmp_path, form, complete=False).ground_truth == expected
    with pytest.raises(ValueError, match=r"complete.*must be True or False"):
        load_dataset(tmp_path, "roxford5k", complete=1)
    with pytest.raises(ValueError, match=re.escape("There is no form 'roxfrod'. Known: csv, ")):
        load_dataset(tmp_path, "roxfrod")


def test_boxes_of_a_data_set_are_checked(tmp_path):
    revisited(tmp_path)
    dataset = load_roxford5k(tmp_path, complete=False)
    with pytest.raises(ValueError, match="There is a box for 'x', which is not in the database"):
        RetrievalDataset("a", dataset.database, dataset.queries, "csv", boxes={"x": (0, 0, 1, 1)})
