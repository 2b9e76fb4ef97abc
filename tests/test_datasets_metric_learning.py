"""CUB, Cars, SOP and In-shop: splits by class, boxes, queries against a gallery."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from cvretrieval.datasets import load_cars196, load_cub200, load_dataset, load_inshop, load_sop
from cvretrieval.images import ImageReader, ImageRegion
from cvretrieval.metrics import Relevance
from tests.official_layouts import draw, figures_of_random_rankings, touch, write


class TestFineGrained:
    """Twelve images of classes on both sides of the border between train and test."""

    @staticmethod
    def make_cub(root):
        classes = [1, 1, 100, 100, 101, 101, 101, 150, 150, 200, 200, 200]
        names = [f"{label:03d}.Bird/Bird_{i:04d}.jpg" for i, label in enumerate(classes)]
        write(root / "images.txt", "".join(f"{i + 1} {name}\n" for i, name in enumerate(names)))
        write(root / "image_class_labels.txt", "".join(f"{i + 1} {label}\n" for i, label in enumerate(classes)))
        write(root / "bounding_boxes.txt", "".join(f"{i + 1} {i}.0 2.0 20.0 10.5\n" for i in range(12)))
        for i, name in enumerate(names):
            draw(root / "images" / name, i)
        return dict(zip(names, classes, strict=True))

    @staticmethod
    def make_cars(root):
        classes = [1, 98, 98, 99, 99, 100, 100, 100, 196, 196]
        dtype = [(name, object) for name in ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class",
                                             "test")]  # fmt: skip
        annotations = np.empty((1, len(classes)), dtype=dtype)
        names = [f"car_ims/{i + 1:06d}.jpg" for i in range(len(classes))]
        for i, (name, label) in enumerate(zip(names, classes, strict=True)):
            annotations[0, i] = (name, i + 1, 2, 20, 12, np.uint8(label), i % 2)
            draw(root / name, i)
        savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": np.array(["a", "b"], object)})
        return dict(zip(names, classes, strict=True))

    @pytest.mark.parametrize(("key", "load", "n_train"), [("cub200", load_cub200, 100), ("cars196", load_cars196, 98)])
    def test_split_and_boxes(self, tmp_path, key, load, n_train):
        labels = (self.make_cub if key == "cub200" else self.make_cars)(tmp_path)
        with pytest.raises(ValueError, match=r"has (5,924|8,131) database images, but \d were found"):
            load(tmp_path)
        test = {name: label for name, label in labels.items() if label > n_train}
        dataset = load(tmp_path, complete=False)
        assert dataset.database_ids == list(test)
        truth = {
            name: Relevance({o for o in test if test[o] == label and o != name}, {name}, own_id=name)
            for name, label in test.items()
        }
        figures_of_random_rankings(dataset, truth, [key])
        assert dataset.database_images == dataset.database_paths
        assert all(query.box is None for query in dataset.queries)
        train = load(tmp_path, split="train", complete=False)
        assert train.database_ids == [name for name in labels if name not in test]
        cropped = load_dataset(tmp_path, f"{key}-cropped", complete=False)
        assert cropped.protocols == (f"{key}-cropped",)
        figures_of_random_rankings(cropped, truth, cropped.protocols)
        first = cropped.queries[0]
        assert first.box == cropped.boxes[first.id] == ((4.0, 2.0, 24.0, 12.5) if key == "cub200" else (3, 1, 20, 12))
        region = cropped.database_images[0]
        assert region == ImageRegion(first.path, first.box)
        height, width = ImageReader(max_size=None).read(region).pixels.shape
        assert (width, height) == ((20, 11) if key == "cub200" else (17, 11))

    def test_broken_cub(self, tmp_path):
        self.make_cub(tmp_path / "CUB_200_2011")
        load_cub200(tmp_path, complete=False)
        write(tmp_path / "CUB_200_2011" / "bounding_boxes.txt", "1 1 2 3 4\n")
        with pytest.raises(ValueError, match=r"Image 2 .* has no class or no box"):
            load_cub200(tmp_path)
        write(tmp_path / "CUB_200_2011" / "bounding_boxes.txt", "1 1 2 3\n")
        with pytest.raises(ValueError, match=r"line 1: '1 1 2 3' has 4 columns, not 5"):
            load_cub200(tmp_path)
        (tmp_path / "CUB_200_2011" / "bounding_boxes.txt").unlink()
        with pytest.raises(ValueError, match=r"has no file bounding_boxes.txt(.|\n)*data.caltech.edu"):
            load_cub200(tmp_path)
        with pytest.raises(ValueError, match="'split' parameter of load_cub200"):
            load_cub200(tmp_path, split="val")

    def test_broken_cars(self, tmp_path):
        touch(tmp_path, "car_ims/000001.jpg")
        with pytest.raises(ValueError, match=r"has no file cars_annos.mat"):
            load_cars196(tmp_path)
        (tmp_path / "cars_annos.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(500))
        with pytest.raises(ValueError, match="cannot be read as a MATLAB file"):
            load_cars196(tmp_path)
        savemat(tmp_path / "cars_annos.mat", {"other": 1})
        with pytest.raises(ValueError, match="has no variable 'annotations'"):
            load_cars196(tmp_path)
        savemat(tmp_path / "cars_annos.mat", {"annotations": {"relative_im_path": "a"}})
        with pytest.raises(ValueError, match="has no field 'class'"):
            load_cars196(tmp_path)


def test_sop(tmp_path):
    rows = [(1, 11319, 1, "bicycle_final/1_0.JPG"), (2, 11319, 1, "bicycle_final/1_1.JPG"),
            (3, 11320, 1, "bicycle_final/2_0.JPG"), (4, 11321, 2, "cabinet_final/3_0.JPG"),
            (5, 11321, 2, "cabinet_final/3_1.JPG"), (6, 11321, 2, "cabinet_final/3_2.JPG")]  # fmt: skip
    root = tmp_path / "Stanford_Online_Products"
    header = "image_id class_id super_class_id path\n"
    write(root / "Ebay_test.txt", header + "".join(f"{' '.join(map(str, row))}\n" for row in rows))
    touch(root, *(row[3] for row in rows))
    dataset = load_sop(tmp_path, complete=False)
    truth = {
        row[3]: Relevance({o[3] for o in rows if o[1] == row[1]} - {row[3]}, {row[3]}, own_id=row[3]) for row in rows
    }
    figures_of_random_rankings(dataset, truth, "sop")
    with pytest.raises(ValueError, match=r"has 60,502 database images, but 6 were found"):
        load_sop(root)
    (root / rows[0][3]).unlink()
    (root / rows[1][3]).unlink()
    with pytest.raises(ValueError, match=r"1_0.JPG is missing, and 1 other images"):
        load_sop(root)
    with pytest.raises(ValueError, match=r"has no file Ebay_train.txt(.|\n)*cvgl.stanford.edu"):
        load_sop(root, split="train")


def test_inshop(tmp_path):
    rows = [("img/WOMEN/a/1.jpg", "id_1", "train"), ("img/WOMEN/a/2.jpg", "id_1", "train"),
            ("img/WOMEN/d/1.jpg", "id_4", "train"), ("img/WOMEN/b/1.jpg", "id_2", "query"),
            ("img/WOMEN/b/2.jpg", "id_2", "gallery"), ("img/WOMEN/b/3.jpg", "id_2", "gallery"),
            ("img/MEN/c/1.jpg", "id_3", "query"), ("img/MEN/c/2.jpg", "id_3", "gallery")]  # fmt: skip
    partition = "8\nimage_name item_id evaluation_status\n" + "".join(f"{'   '.join(row)}\n" for row in rows)
    boxes = "8\nimage_name clothes_type pose_type x_1 y_1 x_2 y_2\n" + "".join(
        f"{row[0]} 1 2 {i} 1 20 22\n" for i, row in enumerate(rows)
    )
    write(tmp_path / "Eval" / "list_eval_partition.txt", partition)
    write(tmp_path / "Anno" / "list_bbox_inshop.txt", boxes)
    touch(tmp_path, *(f"Img/{row[0]}" for row in rows))
    dataset = load_inshop(tmp_path, complete=False)
    assert dataset.database_ids == [row[0] for row in rows if row[2] == "gallery"]
    truth = {
        row[0]: Relevance({o[0] for o in rows if o[1:] == (row[1], "gallery")}) for row in rows if row[2] == "query"
    }
    figures_of_random_rankings(dataset, truth, "inshop")
    assert not dataset.query_in_database
    assert not dataset.boxes
    cropped = load_inshop(tmp_path, cropped=True, complete=False)
    assert cropped.queries[0].box == (3.0, 1.0, 20.0, 22.0)
    assert cropped.boxes.keys() == cropped.database.keys()
    with pytest.raises(ValueError, match=r"12,612 database images, but 3 were found(.|\n)*mmlab.ie.cuhk.edu.hk"):
        load_inshop(tmp_path)
    train = load_inshop(tmp_path, split="train", cropped=True, complete=False)
    assert train.database_ids == [row[0] for row in rows[:3]] and len(train.boxes) == 3
    own = {
        row[0]: Relevance({o[0] for o in rows[:3] if o[1] == row[1]} - {row[0]}, {row[0]}, own_id=row[0])
        for row in rows[:3]
    }
    figures_of_random_rankings(train, own, "inshop")
    assert all(query.own_id == query.id for query in train.queries)
    with pytest.raises(ValueError, match="25,882 database images, but 3 were found"):
        load_inshop(tmp_path, split="train")
    with pytest.raises(ValueError, match="'split' parameter of load_inshop"):
        load_inshop(tmp_path, split="val")
