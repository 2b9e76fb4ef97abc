"""Near-duplicates: copies are found however they were made, other photos of the same thing are not called copies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from cvretrieval import VLAD, ImageRetriever
from cvretrieval.cli.main import main
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import write_duplicates_report
from cvretrieval.retrieval import find_duplicates
from tests.reports import Report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures with copies in another folder, two without, two blank ones alike, and a broken file."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "train").mkdir()
    (root / "test").mkdir()
    scenes = make_scenes(n_scenes=4, n_views=1, random_state=7).images
    for i, image in enumerate(scenes):
        Image.fromarray(image).save(root / "train" / f"{i}.png")
    first, second = Image.fromarray(scenes[0]), Image.fromarray(scenes[1])
    width, height = first.size
    first.save(root / "test" / "copy.png")
    first.save(root / "test" / "<i>low.jpg", quality=30)
    first.rotate(90, expand=True).save(root / "test" / "turned.png")
    second.crop((width // 6, height // 6, width, height)).save(root / "test" / "cut.png")
    second.resize((width * 2 // 3, height * 2 // 3)).save(root / "train" / "small.png")
    for name in ("blank a", "blank b"):
        Image.new("L", (64, 64), 200).save(root / "test" / f"{name}.png")
    (root / "test" / "broken.jpg").write_bytes(b"not an image")
    return root


EXPECTED = [
    {"train/0.png", "test/copy.png", "test/<i>low.jpg", "test/turned.png"},
    {"train/1.png", "train/small.png", "test/cut.png"},
    {"test/blank a.png", "test/blank b.png"},
]


@pytest.fixture(scope="module")
def retriever(folder):
    with ImageRetriever(encoder=VLAD(8, random_state=0), on_error="skip").fit([folder]) as retriever:
        yield retriever


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def test_copies_are_grouped_the_largest_group_first(retriever):
    groups = find_duplicates(retriever)
    assert [set(group.ids) for group in groups] == EXPECTED
    for group in groups:
        assert list(group.ids) == [name for name in retriever.ids if name in group.ids]
        assert all(path.endswith(name) for name, path in zip(group.ids, group.paths, strict=True))
        shares = [pair.share for pair in group.pairs]
        assert shares == sorted(shares, reverse=True) and all(0.25 <= share <= 1 for share in shares)
    identical = {(pair.a, pair.b) for group in groups for pair in group.pairs if pair.identical}
    assert {frozenset(pair) for pair in identical} == {
        frozenset({"train/0.png", "test/copy.png"}),
        frozenset({"test/blank a.png", "test/blank b.png"}),
    }


def test_number_of_threads_and_how_often_it_is_asked_change_nothing(retriever):
    groups = find_duplicates(retriever)
    assert find_duplicates(retriever.set_params(n_jobs=2)) == groups
    retriever.set_params(n_jobs=None)


def test_between_pairs_only_what_is_on_different_sides(retriever):
    train = [name for name in retriever.ids if name.startswith("train")]
    test = [name for name in retriever.ids if name.startswith("test")]
    groups = find_duplicates(retriever, between=(train, test))
    assert [set(group.ids) for group in groups] == EXPECTED[:2]
    for pair in (pair for group in groups for pair in group.pairs):
        assert {pair.a.split("/")[0], pair.b.split("/")[0]} == {"train", "test"}
    assert {frozenset(group.ids) for group in find_duplicates(retriever, between=(test, train))} == {
        frozenset(group.ids) for group in groups
    }
    with pytest.raises(ValueError, match="Not in the index: 'nowhere'"):
        find_duplicates(retriever, between=(train, ["nowhere"]))


def test_share_decides(retriever):
    assert len(find_duplicates(retriever, min_share=0.999)) <= 3
    with pytest.raises(ValueError, match="min_share"):
        find_duplicates(retriever, min_share=0)


def test_arrays_have_no_files_and_a_single_image_no_copies():
    image = make_scenes(n_scenes=1, n_views=1, random_state=3).images[0]
    with ImageRetriever(encoder=VLAD(2, random_state=0)).fit([image]) as retriever:
        assert find_duplicates(retriever) == []
        retriever.add([np.ascontiguousarray(image[:, ::-1]), image], ids=["mirrored", "again"])
        (group,) = find_duplicates(retriever)
        assert group.ids == ("image-000001", "again") and group.paths == (None, None)


def test_page_shows_the_groups_and_trusts_no_name(retriever, tmp_path):
    groups = find_duplicates(retriever)
    page = Report(write_duplicates_report(groups, tmp_path / "r.html", n_images=len(retriever)))
    assert "3 groups of 9 images among 11 images" in page.text and "test/<i>low.jpg" in page.text
    assert "test/copy.png: identical files" in page.text or "train/0.png: identical files" in page.text
    assert "0 groups of 0 images" in Report(write_duplicates_report([], tmp_path / "none.html")).text
    with pytest.raises(FileNotFoundError):
        write_duplicates_report(groups, tmp_path / "no" / "r.html")


def test_command_lists_groups_and_names_what_it_could_not_read(folder, capsys, tmp_path):
    assert run("duplicates", folder, "--json", "-q", "--report", tmp_path / "r.html") == 1
    output = capsys.readouterr()
    value = json.loads(output.out)
    assert [{image["id"] for image in group["images"]} for group in value["groups"]] == EXPECTED
    assert "broken.jpg" in output.err and (tmp_path / "r.html").exists()
    assert run("duplicates", folder, "--between", "train", "test", "-q") == 1
    blocks = [set(block.splitlines()) for block in capsys.readouterr().out.strip().split("\n\n")]
    assert blocks == EXPECTED[:2]
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]  # nothing is left behind


def test_command_takes_an_index(folder, capsys, tmp_path):
    assert run("index", folder, "--out", tmp_path / "i.cvr", "--words", 8, "-q") == 1
    assert run("duplicates", tmp_path / "i.cvr", "--between", folder / "train", folder / "test", "-q") == 1
    assert "train/1.png" in capsys.readouterr().out


def test_command_says_what_is_wrong(folder, capsys, tmp_path):
    assert run("duplicates", tmp_path / "nowhere") == 2
    assert "does not exist" in capsys.readouterr().err
    assert run("duplicates", folder, "--between", "train", "nowhere", "-q") == 2
    assert "no indexed photo lies in nowhere" in capsys.readouterr().err
    assert run("duplicates", folder, "--report", tmp_path / "no" / "r.html") == 2
    assert "does not exist" in capsys.readouterr().err
