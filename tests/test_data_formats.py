"""Each format, read back from files that are written here by its definition."""

from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from audit.contracts import Detections
from audit.data import (
    from_coco_detection,
    from_wider_face,
    read_coco,
    read_csv,
    read_folder,
    read_voc,
    read_wider,
    read_yolo,
    self_label,
)
from audit.data.yolo import names_in_yaml
from audit.errors import DataError


def picture(path, size=(40, 30), seed=None):
    """A file of (width, height) with pixels of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def by_id(scenes):
    return {s.id: s for s in scenes}


# COCO


def coco_tables():
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "sub/b.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "c.png", "width": 30, "height": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.5, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [30, 20, 100, 100], "iscrowd": 0},
            {"id": 4, "image_id": 7, "category_id": 1, "bbox": [5, 5, 0, 4], "iscrowd": 0},
            {"id": 5, "image_id": 7, "category_id": 99, "bbox": [5, 5, 4, 4], "iscrowd": 0},
            {"id": 6, "image_id": 1234, "category_id": 1, "bbox": [5, 5, 4, 4], "iscrowd": 0},
            {"id": 7, "image_id": 9, "category_id": 1, "bbox": [5, 5, 4, 4], "iscrowd": 0},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }


@pytest.fixture
def coco(tmp_path):
    for name in ("a.png", "sub/b.png", "c.png"):
        picture(tmp_path / "val2017" / name)
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(coco_tables()))
    return file


def check_coco(scenes):
    found = by_id(scenes)
    assert set(found) == {"a.png", "sub/b.png"}
    assert scenes.classes == ("person", "dog")
    a = found["a.png"]
    assert a.size == (30, 40)
    assert a.boxes.tolist()[:3] == [[1.5, 2, 11.5, 22], [0, 0, 5, 5], [30, 20, 40, 30]]
    assert a.labels.tolist()[:4] == [1, 0, 0, 0]
    assert a.ignore.tolist() == [False, True, False, True, True]
    assert len(found["sub/b.png"].boxes) == 0
    # c.png was annotated as another shape than it has: its boxes would not fit
    assert [(u.name, u.reason) for u in scenes.unreadable] == [
        ("c.png", "boxes drawn for 30x40 px, but upright the image has 40x30")
    ]
    text = " | ".join(scenes.notes)
    assert "1 annotation(s) belong to images that the file does not list" in text
    assert "1 object(s) of categories that the file does not name are ignored" in text
    assert "1 box(es) without area inside the image are ignored, the first in a.png" in text
    assert "1 box(es) reached over the edge and were clipped to the image, the first in a.png" in text
    assert a.load().shape == (3, 30, 40)


def test_coco(coco):
    check_coco(read_coco(coco))


def test_coco_images_folder_given(coco, tmp_path):
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="images beside it"):
        read_coco(coco)
    check_coco(read_coco(coco, images=tmp_path / "elsewhere"))


def test_coco_agrees_with_pycocotools(coco):
    from pycocotools.coco import COCO

    api = COCO(str(coco))
    a = by_id(read_coco(coco))["a.png"]
    names = {c["id"]: c["name"] for c in api.loadCats(api.getCatIds())}
    theirs = [x for x in api.loadAnns(api.getAnnIds(imgIds=7)) if x["category_id"] in names and x["bbox"][2] > 0]
    mine = [i for i in range(5) if i not in (3, 4)]
    assert [bool(x["iscrowd"]) for x in theirs] == a.ignore[mine].tolist()
    assert [names[x["category_id"]] for x in theirs] == [("person", "dog")[i] for i in a.labels[mine].tolist()]
    assert [x["bbox"][:2] for x in theirs] == a.boxes[mine, :2].tolist()


def test_torchvision_coco_detection(coco, tmp_path):
    from torchvision.datasets import CocoDetection

    check_coco(from_coco_detection(CocoDetection(str(tmp_path / "val2017"), str(coco))))
    with pytest.raises(DataError, match="CocoDetection, got list"):
        from_coco_detection([])


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a JSON list"),
        ('{"images": [], "annotations": []}', "no list of objects under 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list of objects under 'images'"),
        ('{"images": [1], "annotations": [], "categories": []}', "no list of objects under 'images'"),
        ('{"images": [{"id": 1}], "annotations": [{}], "categories": []}', "images beside it|image_id"),
        ('{"images": [], "annotations": [], "categories": []}', "at least one image"),
    ],
)
def test_coco_files_that_are_none(tmp_path, content, got):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=got):
        read_coco(tmp_path / "a.json")


def test_coco_boxes_that_are_none_are_ignored_not_fatal(tmp_path):
    picture(tmp_path / "a.png")
    boxes = [None, "x", [1, 2], [1, 2, 3, "w"], [math.nan, 0, 5, 5], [1, 2, 3, 4]]
    tables = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": b} for b in boxes],
    }
    (tmp_path / "a.json").write_text(json.dumps(tables))
    s = read_coco(tmp_path / "a.json")
    assert s[0].ignore.tolist() == [True] * 5 + [False]
    assert bool(s[0].boxes.isfinite().all())
    assert any(n.startswith("5 box(es) without area") for n in s.notes)


# WIDER FACE

WIDER = """0--Parade/0_Parade_marchingband_1_849.jpg
1
4 3 12 14 0 0 0 0 0 0
0--Parade/0_Parade_Parade_0_904.jpg
3
1 2 3 4 2 0 0 0 0 0
10 10 5 6 0 0 0 1 2 0
20 20 0 5 0 0 0 0 0 0
1--Handshaking/1_Handshaking_2.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/1_Handshaking_3.jpg
2
5 5 10 10
6 6 8 8
"""


def cell(values):
    """A MATLAB cell array of shape (n, 1)."""
    out = np.empty((len(values), 1), dtype=object)
    for i, v in enumerate(values):
        out[i, 0] = v
    return out


def write_list(file, marked):
    """``marked``: event -> image stem -> 1-based places, as WIDER's evaluation tools have it."""
    places = {e: cell([np.array(p, dtype=np.uint8).reshape(-1, 1) for p in m.values()]) for e, m in marked.items()}
    savemat(
        file,
        {
            "event_list": cell(list(marked)),
            "file_list": cell([cell(list(m)) for m in marked.values()]),
            "gt_list": cell(list(places.values())),
        },
    )


@pytest.fixture
def wider(tmp_path):
    for line in WIDER.splitlines():
        if line.endswith(".jpg"):
            picture(tmp_path / "WIDER_val" / "images" / line)
    file = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    file.parent.mkdir()
    file.write_text(WIDER)
    easy = {"0--Parade": {"0_Parade_marchingband_1_849": [1], "0_Parade_Parade_0_904": []}}
    easy["1--Handshaking"] = {"1_Handshaking_2": [], "1_Handshaking_3": [2]}
    write_list(file.parent / "wider_easy_val.mat", easy)
    easy["0--Parade"]["0_Parade_Parade_0_904"] = [1, 3]
    write_list(file.parent / "wider_hard_val.mat", easy)
    return file


def test_wider(wider):
    scenes = read_wider(wider)
    found = by_id(scenes)
    assert list(found) == [line for line in WIDER.splitlines() if line.endswith(".jpg")]
    assert scenes.classes == ("face",)
    one, three, none, bare = scenes
    assert one.boxes.tolist() == [[4, 3, 16, 17]]
    assert three.boxes[:2].tolist() == [[1, 2, 4, 6], [10, 10, 15, 16]]
    assert three.ignore.tolist() == [False, True, True]
    assert len(none.boxes) == 0
    assert bare.boxes.tolist() == [[5, 5, 15, 15], [6, 6, 14, 14]]
    assert {k: v.tolist() for k, v in three.subsets.items()} == {"easy": [False] * 3, "hard": [True, False, True]}
    assert {k: v.tolist() for k, v in bare.subsets.items()} == {"easy": [False, True], "hard": [False, True]}
    assert one.subsets["easy"].tolist() == [True]
    assert len({s.group for s in scenes}) == 4
    assert scenes.objects == 4


def test_wider_without_lists_and_in_a_folder(wider):
    for mat in wider.parent.glob("*.mat"):
        mat.unlink()
    for place in (wider, wider.parent, wider.parent.parent):
        scenes = read_wider(place)
        assert len(scenes) == 4
        assert scenes[0].subsets == {}


def test_torchvision_wider_face(wider, tmp_path, monkeypatch):
    from torchvision.datasets import WIDERFace

    full = WIDER.replace("5 5 10 10\n6 6 8 8\n", "5 5 10 10 0 0 0 0 0 0\n6 6 8 8 0 0 0 0 2 1\n")
    wider.write_text(full)  # torchvision wants all ten columns
    root = tmp_path / "widerface"
    root.mkdir()
    for folder in ("WIDER_val", "wider_face_split"):
        (tmp_path / folder).rename(root / folder)
    monkeypatch.setattr(WIDERFace, "_check_integrity", lambda self: True)
    dataset = WIDERFace(str(tmp_path), split="val")
    scenes = from_wider_face(dataset)
    assert len(scenes) == len(dataset) == 4
    for s, row in zip(scenes, dataset.img_info, strict=True):
        assert row["img_path"].endswith(s.id)
        if not s.id.endswith("Handshaking_2.jpg"):
            x, y, w, h = row["annotations"]["bbox"].T
            assert s.boxes.tolist()[:2] == torch.stack([x, y, x + w, y + h], 1).tolist()[:2]
    # by WIDER's readme the eighth column is "invalid" and the tenth the pose
    assert scenes[1].ignore.tolist() == [False, True, True]
    assert scenes[3].ignore.tolist() == [False, False]
    assert len(scenes[2].boxes) == 0
    with pytest.raises(DataError, match="got dict"):
        from_wider_face({})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.jpg\n2\n1 2 3 4\n", 4),
        ("a.jpg\nmany\n", 1),
        ("a.jpg\n1\n1 2 x 4\n", 3),
        ("a.jpg\n1\n1 2 3\n", 3),
        ("a.jpg\n1\n1 2 3 4\nno image\n1\n", 4),
        ("a.jpg", 1),
    ],
)
def test_wider_text_that_breaks_off_is_named_by_line(tmp_path, text, line):
    file = tmp_path / "wider_face_val_bbx_gt.txt"
    file.write_text(text)
    picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=f"line {line}:"):
        read_wider(file)


def test_wider_list_of_other_boxes_is_refused(wider, tmp_path):
    other = tmp_path / "lists"
    other.mkdir()
    write_list(other / "wider_easy_val.mat", {"0--Parade": {"0_Parade_marchingband_1_849": [2]}})
    with pytest.raises(DataError, match="face 2 of 1"):
        read_wider(wider, lists=other)
    write_list(other / "wider_easy_val.mat", {"9--X": {"y": [1]}})
    with pytest.raises(DataError, match="none of these images"):
        read_wider(wider, lists=other)
    (other / "wider_easy_val.mat").write_bytes(b"no mat")
    with pytest.raises(DataError, match="expected event_list"):
        read_wider(wider, lists=other)


def test_wider_without_the_dummy_row(tmp_path):
    file = tmp_path / "wider_face_val_bbx_gt.txt"
    file.write_text("a.png\n0\nb.png\n1\n1 2 3 4\n\n")
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    assert [len(s.boxes) for s in read_wider(file)] == [0, 1]


# VOC


def voc_xml(name, objects, size=(40, 30)):
    rows = "".join(
        f"<object><name>{n}</name><difficult>{d}</difficult><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        f"<xmax>2</xmax><ymax>2</ymax></bndbox></part><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for n, b, d in objects
    )
    w, h = size
    return (
        f"<annotation><filename>{name}</filename><size><width>{w}</width><height>{h}</height><depth>3</depth></size>"
        f"{rows}</annotation>"
    )


@pytest.fixture
def voc(tmp_path):
    (tmp_path / "Annotations").mkdir()
    for n in ("000001.jpg", "2.png", "3.png", "4.png"):
        picture(tmp_path / "JPEGImages" / n)
    notes = tmp_path / "Annotations"
    (notes / "000001.xml").write_text(voc_xml("000001.jpg", [("dog", (8, 12, 35, 30), 0), ("cat", (1, 1, 5, 6), 1)]))
    (notes / "2.xml").write_text(voc_xml("renamed elsewhere.jpg", [("dog", (1, 1, 40, 30), 0)]))
    (notes / "3.xml").write_text(voc_xml("3.png", [("dog", (5, 5, 1, 9), 0), ("dog", ("", 5, 1, 9), 0)]))
    (notes / "4.xml").write_text(voc_xml("4.png", [], size=(640, 480)))
    (notes / "5.xml").write_text("<annotation>")
    (notes / "6.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation>&a;</annotation>')
    (notes / "7.xml").write_text("<html/>")
    return tmp_path


def test_voc(voc):
    scenes = read_voc(voc)
    found = by_id(scenes)
    assert set(found) == {"000001.jpg", "2.png", "3.png"}
    assert scenes.classes == ("cat", "dog")
    # pixels 8 to 35 and 12 to 30, counted from 1 with both ends: 28 columns and 19 rows
    assert found["000001.jpg"].boxes.tolist() == [[7, 11, 35, 30], [0, 0, 5, 6]]
    assert found["000001.jpg"].labels.tolist() == [1, 0]
    assert found["000001.jpg"].ignore.tolist() == [False, True]
    assert found["2.png"].boxes.tolist() == [[0, 0, 40, 30]]
    assert found["3.png"].ignore.tolist() == [True, True]
    reasons = {u.name: u.reason for u in scenes.unreadable}
    assert set(reasons) == {"4.png", "5.xml", "6.xml", "7.xml"}
    assert "640x480" in reasons["4.png"]
    assert "document type" in reasons["6.xml"]


def test_voc_folder_of_xml_beside_the_images_and_one_file(voc):
    for file in (voc / "JPEGImages").iterdir():
        file.rename(voc / "Annotations" / file.name)
    assert len(read_voc(voc / "Annotations")) == 3
    assert [s.id for s in read_voc(voc / "Annotations" / "2.xml")] == ["2.png"]


def test_voc_nothing_usable(tmp_path):
    with pytest.raises(DataError, match="expected XML files"):
        read_voc(tmp_path)


# YOLO


@pytest.fixture
def yolo(tmp_path):
    for n in ("train/a.png", "val/b.png", "val/c.png", "val/d.png"):
        picture(tmp_path / "images" / n)
        (tmp_path / "labels" / n).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 1 1\n")
    (tmp_path / "labels/val/b.txt").write_text("0 0.5 0.5 0.25 0.2\n\n1 0.9 0.9 0.4 0.4\n0 0.5 0.5 0 0.1\n")
    (tmp_path / "labels/val/d.txt").write_text("0 0.5 0.5 0.25 0.2 0.99\n")
    (tmp_path / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: 'big dog'\n"
    )
    return tmp_path


def test_yolo(yolo):
    for place in (yolo, yolo / "data.yaml"):
        scenes = read_yolo(place)
        assert set(by_id(scenes)) == {"images/val/b.png", "images/val/c.png"}
        assert scenes.classes == ("cat", "big dog")
        b = by_id(scenes)["images/val/b.png"]
        expected = [[15, 12, 25, 18], [28, 21, 40, 30]]
        assert [[round(v, 3) for v in row] for row in b.boxes[:2].tolist()] == expected
        assert b.labels.tolist() == [0, 1, 0]
        assert b.ignore.tolist() == [False, False, True]
        assert [u.name for u in scenes.unreadable] == ["images/val/d.png"]
        assert "line 1: expected a class number" in scenes.unreadable[0].reason
        assert any("only the validation images" in n for n in scenes.notes)
        assert any("1 image(s) have no label file" in n for n in scenes.notes)


def test_yolo_names_from_the_model_and_from_a_list(yolo):
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"class names in data\.yaml or classes\.txt"):
        read_yolo(yolo)
    scenes = read_yolo(yolo, names=["x", "y"])
    assert scenes.classes == ("x", "y")
    assert len(scenes) == 3
    assert any("the model's" in n for n in scenes.notes)
    (yolo / "classes.txt").write_text("cat\nbig dog\n\n")
    assert read_yolo(yolo, names=["x", "y"]).classes == ("cat", "big dog")


def test_yolo_class_beyond_the_names(yolo):
    (yolo / "data.yaml").write_text("names: [cat]")
    with pytest.raises(DataError, match=r"expected classes 0 to 0.*got class 1"):
        read_yolo(yolo)


def test_yolo_labels_beside_the_images(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("cat")
    assert read_yolo(tmp_path)[0].boxes.tolist() == [[10, 7.5, 30, 22.5]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, 'b, c', \"d\"]\nnc: 3", ["a", "b, c", "d"]),
        ("names: {0: a, 1: b}", ["a", "b"]),
        ("nc: 2\nnames:\n- a\n- b # comment\n", ["a", "b"]),
        ("names:\n  - 'it''s'\n", ["it's"]),
        ("names: ['it''s', b]", ["it's", "b"]),
        ("names:\n  1: b\n  0: a\n\ntrain: x\n", ["a", "b"]),
        ("names: ['a',\n  'b',\n  'c']\nval: y", ["a", "b", "c"]),
        ("names:\n  0: a\n  2: c\n", ["a", "class 1", "c"]),
        ("names: # comment\n  0: traffic light\n", ["traffic light"]),
        ("train: x\n", []),
        ("names:\n", []),
    ],
)
def test_names_in_yaml(text, names):
    assert names_in_yaml(text) == names


# CSV


def test_csv(tmp_path):
    for n in ("a.png", "b.png", "c.png", "d.png"):
        picture(tmp_path / "pics" / n)
    (tmp_path / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,class,group,source\n"
        "pics/a.png,1,2,11,12,dog,g1,me\n"
        "pics/a.png,0,0,5,5,cat,,me\n"
        "pics/b.png,,,,,,g1,me\n"
        'pics/c.png,1,2,"3",x,dog,,me\n'
        "pics/d.png,1,2,8,9,,,me\n"
        "pics/missing.png,1,2,8,9,dog,,me\n"
    )
    scenes = read_csv(tmp_path / "boxes.csv")
    found = by_id(scenes)
    assert scenes.classes == ("cat", "dog")
    assert found["pics/a.png"].boxes.tolist() == [[1, 2, 11, 12], [0, 0, 5, 5]]
    assert found["pics/a.png"].labels.tolist() == [1, 0]
    assert found["pics/a.png"].group == found["pics/b.png"].group == "g1"
    assert len(found["pics/b.png"].boxes) == 0
    assert found["pics/c.png"].ignore.tolist() == [True]
    assert found["pics/d.png"].ignore.tolist() == [True]
    assert found["pics/c.png"].group != found["pics/d.png"].group
    assert any("without a class" in n for n in scenes.notes)
    assert [(u.name, u.reason) for u in scenes.unreadable] == [("pics/missing.png", "no such file")]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "header"),
        (b"image,x1,y1,x2\na,1,2,3\n", "header"),
        (b"image,x1,y1,x2,y2\na.png,1,2,3\n", "4 cells in row 2"),
        (b"\xff\xfe\xfa", "something else"),
        (b'image,x1,y1,x2,y2\n"a', "something else"),
        (b"image,x1,y1,x2,y2\n", "at least one image"),
    ],
)
def test_csv_files_that_are_none(tmp_path, content, got):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=got):
        read_csv(tmp_path / "a.csv")


# Bare folder


def test_folder_and_self_label(tmp_path):
    for i in range(5):
        picture(tmp_path / f"{i}.png", (40, 30) if i % 2 else (30, 40))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "broken.png").write_text("x")
    bare = read_folder(tmp_path)
    assert [s.id for s in bare] == [f"{i}.png" for i in range(5)]
    assert [u.name for u in bare.unreadable] == ["broken.png"]
    assert bare.labelled_by == "self"
    assert bare.objects == 0
    seen = []

    def detect(images):
        assert images.dtype == torch.float32
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        seen.extend(images)
        boxes = torch.tensor([[1.0, 1, 20, 20], [2, 2, 9, 9], [5, 5, 100, 100], [0, 0, 3, 3]])
        scores = torch.tensor([0.95, 0.5, 0.9, 0.1])
        return [Detections(boxes, scores, torch.tensor([1, 0, 1, 0])) for _ in images]

    steps = []
    full = self_label(bare, detect, ["a", "b"], 0.9, batch=2, progress=lambda share, _: steps.append(share))
    assert full.classes == ("a", "b")
    assert full.labelled_by == "self"
    assert full.objects == 10
    assert len(seen) == 5
    assert steps == sorted(steps)
    assert steps[-1] == 1
    for before, s in zip(bare, full, strict=True):
        assert s.id == before.id
        assert s.boxes.tolist() == [[1, 1, 20, 20], [2, 2, 9, 9], [5, 5, s.size[1], s.size[0]]]
        assert s.labels.tolist() == [1, 0, 1]
        assert s.ignore.tolist() == [False, True, False]
    assert any("self-labelled" in n for n in full.notes)
    images = {tuple(s.load().flatten()[:20].tolist()) for s in bare}
    assert {tuple((i * 255).round().int().flatten()[:20].tolist()) for i in seen} == images
    with pytest.raises(DataError, match=r"score of at least 0\.99"):
        self_label(bare, detect, ["a", "b"], 0.99)
