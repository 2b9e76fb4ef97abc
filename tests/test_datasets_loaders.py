"""Loaders: what each form of data set becomes, and what is said about a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvretrieval.datasets import (
    FORMS,
    Query,
    RetrievalDataset,
    csv_ground_truth,
    folder_per_class,
    groups_of_n,
    load_dataset,
    oxford_buildings,
    oxford_ground_truth,
    query_reference,
)
from cvretrieval.metrics import evaluate_rankings, get_protocol


@pytest.fixture
def make_files(tmp_path):
    """Create empty files: loaders look at names only."""

    def make(*names, root="set"):
        for name in names:
            file = tmp_path / root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return tmp_path / root

    return make


def write_csv(root: Path, text: str) -> Path:
    file = root / "ground_truth.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_folder_per_class(make_files):
    root = make_files("cat/1.jpg", "cat/2.PNG", "cat/deep/3.jpg", "dog/1.jpg", "dog/.hidden.jpg", "dog/notes.txt")
    dataset = folder_per_class(root)
    assert dataset.name == "set"
    assert dataset.database_ids == ["cat/1.jpg", "cat/2.PNG", "cat/deep/3.jpg", "dog/1.jpg"]
    assert dataset.database_paths[0] == root / "cat" / "1.jpg"
    assert dataset.query_ids == dataset.database_ids
    assert dataset.query_in_database
    first = dataset.queries[0]
    assert first.relevant == {"cat/2.PNG", "cat/deep/3.jpg"}
    assert first.junk == {"cat/1.jpg"}
    assert first.own_id == "cat/1.jpg"
    assert dataset.queries[3].relevant == frozenset()
    assert str(dataset) == "set (folder_per_class): 4 database images, 4 queries, queries in the database"


def test_query_reference(make_files):
    root = make_files(
        "Query/a/001.jpg", "Query/b/001.png", "Query/002.jpg", "Ref/001.jpg", "Ref/002.jpg", "Ref/003.jpg"
    )
    dataset = query_reference(root / "Query", root / "Ref")
    assert dataset.database_ids == ["Ref/001.jpg", "Ref/002.jpg", "Ref/003.jpg"]
    truth = {query.id: set(query.relevant) for query in dataset.queries}
    assert truth == {
        "Query/002.jpg": {"Ref/002.jpg"},
        "Query/a/001.jpg": {"Ref/001.jpg"},
        "Query/b/001.png": {"Ref/001.jpg"},
    }
    assert not dataset.query_in_database
    assert all(query.junk == frozenset() for query in dataset.queries)


def test_groups_of_n(make_files):
    root = make_files(*(f"img{i:05d}.jpg" for i in range(9)))
    dataset = groups_of_n(root, 3)
    assert dataset.form == "groups_of_3"
    for index, query in enumerate(dataset.queries):
        group = {f"img{i:05d}.jpg" for i in range(index // 3 * 3, index // 3 * 3 + 3)}
        assert query.relevant == group - {query.id}
        assert query.junk == {query.id}
    perfect = [[query.id, *sorted(query.relevant)] for query in dataset.queries]
    assert evaluate_rankings(dataset.ground_truth, perfect, dataset.protocols).figures == {
        "N-S (max 3)": 3.0,
        "R@1": 1.0,
    }


def test_csv_with_everything(make_files):
    root = make_files("q/1.jpg", "q/ä 2.jpg", "database/a.jpg", "database/b.jpg", "database/c.jpg", "database/d.jpg")
    file = write_csv(
        root,
        "\ufeffQuery, relevant ,junk,hard,box\n"
        'q/1.jpg,database/a.jpg; ./database/b.jpg,database/c.jpg,database/d.jpg,"1, 2,30,40.5"\n'
        "\n"
        "q/ä 2.jpg,database/a.jpg\n"
        "q/ä 2.jpg,database/c.jpg,database/b.jpg,,\n",
    )
    dataset = csv_ground_truth(file)
    assert dataset.database_ids == [f"database/{name}.jpg" for name in "abcd"]
    one, two = dataset.queries
    assert one.relevant == {"database/a.jpg", "database/b.jpg", "database/d.jpg"}
    assert one.hard == {"database/d.jpg"}
    assert one.junk == {"database/c.jpg"}
    assert one.box == (1.0, 2.0, 30.0, 40.5)
    assert one.own_id is None
    assert (two.id, two.path) == ("q/ä 2.jpg", root / "q" / "ä 2.jpg")
    assert two.relevant == {"database/a.jpg", "database/c.jpg"}
    assert two.junk == {"database/b.jpg"}
    assert two.box is None
    assert str(dataset) == "set (csv): 4 database images, 2 queries, 1 with a region"


def test_csv_without_a_database_folder_searches_everything(make_files):
    root = make_files("a.jpg", "b.jpg", "c.jpg")
    dataset = csv_ground_truth(write_csv(root, "query,relevant\na.jpg,b.jpg\nc.jpg,c.jpg;a.jpg\n"))
    assert dataset.database_ids == ["a.jpg", "b.jpg", "c.jpg"]
    assert dataset.queries[0].junk == {"a.jpg"}
    assert dataset.queries[1].junk == frozenset()
    assert dataset.queries[1].own_id == "c.jpg"


def test_csv_elsewhere_and_named_database(make_files, tmp_path):
    root = make_files("q/1.jpg", "shelf/a.jpg", "shelf/b.jpg")
    file = write_csv(tmp_path, "relevant,query\nshelf/a.jpg,q/1.jpg\n")
    dataset = csv_ground_truth(file, root=root, database="shelf")
    assert dataset.database_ids == ["shelf/a.jpg", "shelf/b.jpg"]
    with pytest.raises(ValueError, match=r"no images in .*nothing"):
        csv_ground_truth(file, root=root, database="nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The header of .* is ''; it must hold query and relevant"),
        ("query,junk\n", "The header .* is 'query,junk'"),
        ("query,relevant,grade\n", "'query,relevant,grade'; it must hold"),
        ("query,relevant,query\n", "each once"),
        ("query,relevant\n", "has no queries below its header"),
        ("query,relevant\nq/1.jpg,database/a.jpg\nq/3.jpg,database/a.jpg\n", "line 3: query 'q/3.jpg' is not an image"),
        ("query,relevant\nq/1.jpg,database/aa.jpg\n", "line 2: .*did you mean 'database/a.jpg'"),
        ("query,relevant\nq/1.jpg,../database/a.jpg\n", "line 2: relevant '../database/a.jpg' is not an image"),
        ("query,relevant\nq/1.jpg,q/1.jpg\n", "line 2: relevant 'q/1.jpg' is an image but not one of the database"),
        ("query,relevant\n,database/a.jpg\n", "line 2: the query is missing"),
        ("query,relevant\nq/1.jpg,database/a.jpg,\n", "line 2: has 3 fields, the header 2"),
        (
            "query,relevant\nq/1.jpg,database/a.jpg\n\nq/1.jpg,database/a.jpg\n",
            "line 4: .* was given in line 2 already",
        ),
        ("query,relevant\nq/1.jpg,database/a.jpg;database/a.jpg\n", "line 2: .*in line 2 already"),
        ("query,relevant,junk\nq/1.jpg,database/a.jpg,database/a.jpg\n", "line 2: .*both relevant and junk"),
        ('query,relevant,box\nq/1.jpg,database/a.jpg,"1,2,3"\n', "line 2: the box is '1,2,3', not four numbers"),
        ('query,relevant,box\nq/1.jpg,database/a.jpg,"1,2,1,4"\n', "line 2: the box '1,2,1,4' is empty"),
        (
            'query,relevant,box\nq/1.jpg,database/a.jpg,"1,2,3,4"\nq/1.jpg,,"1,2,3,5"\n',
            "line 3: query 'q/1.jpg' has another box than in line 2",
        ),
        ('query,relevant\nq/1.jpg,"database/a.jpg', "line 2: "),
    ],
)
def test_csv_errors_name_the_line(make_files, text, message):
    root = make_files("q/1.jpg", "database/a.jpg", "database/b.jpg")
    with pytest.raises(ValueError, match=message):
        csv_ground_truth(write_csv(root, text))


def test_csv_that_is_not_utf8(make_files):
    root = make_files("a.jpg")
    (root / "ground_truth.csv").write_bytes("query,relevant\nä.jpg,a.jpg\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"ground_truth.csv, line \d: .*decode"):
        load_dataset(root)


def test_load_dataset_tells_the_form(make_files):
    with_csv = make_files("queries/1.jpg", "references/1.jpg", root="a")
    assert load_dataset(with_csv).form == "query_reference"
    file = write_csv(with_csv, "query,relevant\nqueries/1.jpg,references/1.jpg\n")
    assert load_dataset(with_csv).form == load_dataset(file).form == "csv"
    assert load_dataset(with_csv, "query_reference").form == "query_reference"
    assert load_dataset(with_csv, "folder_per_class").form == "folder_per_class"
    assert load_dataset(with_csv, "groups_of_2").form == "groups_of_2"
    assert load_dataset(make_files("Query/1.jpg", "DATABASE/1.jpg", root="b")).form == "query_reference"
    classes = make_files("cats/1.jpg", "dogs/1.jpg", root="c")
    assert load_dataset(classes).form == load_dataset(str(classes)).form == "folder_per_class"
    cameras = make_files("Canon/1.jpg", "E63/1.jpg", "Reference/1.jpg", root="d")
    assert load_dataset(cameras, "query_reference:E63").query_ids == ["E63/1.jpg"]
    for form in FORMS:
        assert form.startswith(("csv", "query_reference", "folder_per_class", "groups_of_"))


def test_load_dataset_explains_itself(make_files, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_dataset(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no images but none of the known forms:\n  csv: ground_truth.csv"):
        load_dataset(tmp_path / "empty")
    flat = make_files("1.jpg", "2.jpg", root="flat")
    with pytest.raises(ValueError, match=r"has 2 images but none of the known forms:(.|\n)*groups_of_4: groups of 4"):
        load_dataset(flat)
    with pytest.raises(ValueError, match=r"has no ground_truth.csv"):
        load_dataset(flat, "csv")
    with pytest.raises(ValueError, match=r"There is no form 'holiday'. Known: csv, query_reference"):
        load_dataset(flat, "holiday")
    with pytest.raises(ValueError, match="is not a folder"):
        load_dataset(flat / "1.jpg", "groups_of_2")
    cameras = make_files("Canon/1.jpg", "E63/1.jpg", "Reference/1.jpg", root="cameras")
    with pytest.raises(ValueError, match=r"no sub-folder queries.*form='query_reference:Canon'"):
        load_dataset(cameras)
    with pytest.raises(ValueError, match="no sub-folder reference"):
        load_dataset(make_files("queries/1.jpg", "other/1.jpg", root="halved"))
    with pytest.raises(ValueError, match="reference and references: which one is the database"):
        load_dataset(make_files("reference/1.jpg", "references/1.jpg", root="twofold"))


def test_broken_folders(make_files, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        folder_per_class(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    for load in (folder_per_class, groups_of_n):
        with pytest.raises(ValueError, match="empty has no images"):
            load(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"stray.jpg lies beside the class folders"):
        folder_per_class(make_files("a/1.jpg", "stray.jpg", root="mixed"))
    with pytest.raises(ValueError, match="images of a single class, 'a'"):
        folder_per_class(make_files("a/1.jpg", "a/2.jpg", root="single"))
    with pytest.raises(ValueError, match=r"has 5 images.*multiple of 4: the group of '4.jpg' is incomplete"):
        groups_of_n(make_files(*(f"{i}.jpg" for i in range(5)), root="groups"))
    with pytest.raises(ValueError, match="'n' parameter of groups_of_n"):
        groups_of_n(tmp_path, 1)
    pair = make_files("q/1.jpg", "q/7.jpg", "r/1.jpg", root="pair")
    with pytest.raises(ValueError, match=r"query 'q/7.jpg' has no reference named '7'"):
        query_reference(pair / "q", pair / "r")
    with pytest.raises(ValueError, match="not one in the other"):
        query_reference(pair, pair / "r")
    double = make_files("q/1.jpg", "r/1.jpg", "r/1.png", root="double")
    with pytest.raises(ValueError, match=r"'r/1.jpg' and 'r/1.png' have one name"):
        query_reference(double / "q", double / "r")


A = Path("a.jpg")


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ((), "has 1 database images and 0 queries"),
        ((Query("q", A, frozenset("a")), Query("q", A, frozenset("a"))), "The query 'q' is in the data set 'x' twice"),
        ((Query("q", A, frozenset("ab")),), r"query 'q' names 'b', which is not in the database\.$"),
        ((Query("q", A, frozenset("abc")),), r"'b', which is not in the database \(nor are 1 others\)"),
        ((Query("q", A, frozenset("a"), frozenset("a")),), "'a' is both relevant and junk"),
        ((Query("q", A, frozenset(), hard=frozenset("a")),), "hard images are not all relevant"),
        ((Query("q", A, frozenset(), own_id="z"),), "names 'z'"),
    ],
)
def test_a_data_set_checks_itself(queries, message):
    with pytest.raises(ValueError, match=message):
        RetrievalDataset("x", {"a": A}, queries, "csv")


def test_checking_a_large_set_does_not_walk_it_for_every_query():
    class Database(dict):
        walks = 0

        def keys(self):
            Database.walks += 1
            return super().keys()

    database = Database({f"{i}.jpg": Path(f"{i}.jpg") for i in range(50)})
    queries = tuple(Query(name, path, frozenset({"0.jpg"}) - {name}) for name, path in database.items())
    assert len(RetrievalDataset("x", database, queries, "csv").queries) == 50
    assert Database.walks < 10


@pytest.fixture
def oxford_lists(tmp_path):
    lists = {
        "hall_1_query": "oxc1_hall_000001 136.5 34.1 648.5 955.7\n",
        "hall_1_good": "hall_000001\nhall_000002\n",
        "hall_1_ok": "hall_000003\n",
        "hall_1_junk": "",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_oxford_lists(oxford_lists, make_files):
    (query,) = oxford_ground_truth(oxford_lists)
    assert query.id == "hall_1"
    assert query.path == Path("hall_000001.jpg")
    assert query.relevant == {"hall_000001", "hall_000002", "hall_000003"}
    assert query.junk == frozenset()
    assert query.box == (136.5, 34.1, 648.5, 955.7)
    images = make_files(*(f"hall_00000{i}.jpg" for i in range(1, 5)))
    dataset = oxford_buildings(images, oxford_lists)
    assert dataset.database_ids == [f"hall_00000{i}" for i in range(1, 5)]
    assert dataset.query_paths == [images / "hall_000001.jpg"]
    assert dataset.protocols == ("oxford",)
    ranking = [["hall_000001", "hall_000004", "hall_000002", "hall_000003"]]
    figures = evaluate_rankings(dataset.ground_truth, ranking, dataset.protocols).figures
    assert figures["mAP (Oxford trapezoid)"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    with pytest.raises(ValueError, match=r"The image hall_000001.jpg of query 'hall_1' is not in"):
        oxford_buildings(make_files("hall_000002.jpg", root="partial"), oxford_lists)
    with pytest.raises(ValueError, match="have one name"):
        oxford_buildings(make_files("a/1.jpg", "b/1.jpg", root="double"), oxford_lists)


def test_broken_oxford_lists(oxford_lists):
    with pytest.raises(ValueError, match=r"has no \*_query.txt"):
        oxford_ground_truth(oxford_lists / "nothing")
    (oxford_lists / "hall_1_junk.txt").unlink()
    with pytest.raises(ValueError, match=r"hall_1_junk.txt is missing"):
        oxford_ground_truth(oxford_lists)
    (oxford_lists / "hall_1_query.txt").write_text("hall 1 2 3", encoding="utf-8")
    with pytest.raises(ValueError, match=r"four numbers x1 y1 x2 y2. Got 'hall 1 2 3'"):
        oxford_ground_truth(oxford_lists)


@pytest.mark.real_data
def test_published_oxford_lists(data_dir):
    queries = oxford_ground_truth(data_dir / "oxford5k_gt")
    assert len(queries) == 55
    assert len({query.id.rsplit("_", 1)[0] for query in queries}) == 11
    # Every query image is in its own good list: the published protocol counts it.
    assert all(query.own_id in query.relevant for query in queries)
    assert all(not query.relevant & query.junk for query in queries)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "form", "n_database", "n_queries"),
    [
        ("smvs_dvd", "query_reference:Canon", 100, 100),
        ("ukbench_56/images", "groups_of_4", 56, 56),
        ("scene15/train", None, 1500, 1500),
    ],
)
def test_real_data_sets(data_dir, folder, form, n_database, n_queries):
    dataset = load_dataset(data_dir / folder, form)
    assert (len(dataset.database), len(dataset.queries)) == (n_database, n_queries)
    assert all(get_protocol(name) for name in dataset.protocols)
    assert all(path.is_file() for path in dataset.query_paths)
