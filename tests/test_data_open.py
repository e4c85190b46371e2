"""Opening whatever a user points to, and what strangers may have put into it."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.data import open_scenes, read_coco, read_csv, read_folder
from audit.data.assemble import inside, printable
from audit.errors import DataError
from tests.test_data_formats import coco, picture, voc, wider, yolo

__all__ = ["coco", "voc", "wider", "yolo"]  # fixtures


def test_coco_is_found(coco, tmp_path):
    for place in (coco, coco.parent, tmp_path, str(tmp_path), f"coco:{tmp_path}", f"coco:{coco}"):
        assert open_scenes(place).source.startswith("COCO JSON")


def test_coco_val_is_preferred_and_two_equals_are_refused(coco, tmp_path):
    (coco.parent / "instances_train2017.json").write_text(coco.read_text())
    assert open_scenes(tmp_path).name == "instances_val2017"
    coco.rename(coco.parent / "instances_other.json")
    with pytest.raises(DataError, match=r"one file of annotations.*instances_other.*instances_train"):
        open_scenes(tmp_path)


def test_wider_is_found(wider, tmp_path):
    for place in (wider, wider.parent, tmp_path, f"wider:{tmp_path}"):
        scenes = open_scenes(place)
        assert scenes.source.startswith("WIDER")
        assert "easy" in scenes[0].subsets


def test_voc_is_found(voc):
    for place in (voc, voc / "Annotations", voc / "Annotations" / "2.xml", f"voc:{voc}"):
        assert open_scenes(place).source.startswith("Pascal VOC")


def test_yolo_is_found(yolo):
    for place in (yolo, yolo / "data.yaml", f"yolo:{yolo}"):
        assert open_scenes(place).source.startswith("YOLO")
    (yolo / "data.yaml").unlink()
    assert open_scenes(yolo, detector_classes=["p", "q"]).classes == ("p", "q")


def test_csv_and_folder_are_found(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    assert open_scenes(tmp_path).labelled_by == "self"
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\na.png,1,2,8,9\n")
    for place in (tmp_path, tmp_path / "boxes.csv"):
        scenes = open_scenes(place)
        assert scenes.labelled_by == "human"
        assert scenes.objects == 1
    assert len(open_scenes(f"folder:{tmp_path}")) == 2


def test_two_formats_in_one_folder_want_a_prefix(yolo):
    (yolo / "boxes.csv").write_text("image,x1,y1,x2,y2\nimages/train/a.png,1,2,8,9\n")
    with pytest.raises(DataError, match=r"got csv and yolo; say which one, e\.g\. csv:"):
        open_scenes(yolo)
    assert open_scenes(f"csv:{yolo}").objects == 1


def test_the_starter_set_by_name():
    assert open_scenes("starter").name == "starter set"


def test_group_rule(tmp_path):
    for n in ("ann/1.png", "ann/2.png", "bob/1.png"):
        picture(tmp_path / n, seed=sum(n.encode()))
    assert len({s.group for s in open_scenes(tmp_path)}) == 3
    assert len({s.group for s in open_scenes(tmp_path, group="folder")}) == 2


def test_copies_never_cross_the_split(tmp_path):
    for i in range(30):
        picture(tmp_path / f"{i}.png", seed=i % 10)
    scenes = open_scenes(tmp_path)
    assert len(scenes) == 30
    assert len({s.group for s in scenes}) == 10
    assert any("20 file(s) are exact copies" in n for n in scenes.notes)
    craft, held_out = scenes.split(0.5)
    assert {s.digest for s in craft}.isdisjoint(s.digest for s in held_out)


def test_renaming_a_file_does_not_move_it_across_the_split(tmp_path):
    for i in range(12):
        picture(tmp_path / f"{i}.png", seed=i)
    before = {s.digest for s in open_scenes(tmp_path).split(0.5)[0]}
    for i in range(12):
        (tmp_path / f"{i}.png").rename(tmp_path / f"other{11 - i}.png")
    assert {s.digest for s in open_scenes(tmp_path).split(0.5)[0]} == before


@pytest.mark.parametrize("path", ["", "  ", "/no/such/path", "coco:/no/such", "a\0b", "coco:", "x" * 5000])
def test_nothing_there_lists_the_formats(path):
    with pytest.raises(DataError, match="expected COCO JSON, WIDER FACE text, Pascal VOC XML, YOLO text, CSV"):
        open_scenes(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\xff\xfe" * 100, b"[1, 2]", b"<html></html>"])
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt", "a.xml", "a.yaml", "a.png", "a"])
def test_a_file_of_another_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for place in (tmp_path / name, tmp_path):
        with pytest.raises(DataError) as error:
            open_scenes(place)
        assert "\n" not in str(error.value)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="got an empty folder"):
        open_scenes(tmp_path)


def test_all_images_broken_is_empty_data(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"at least one usable image, got 5 unusable \(0\.jpg: not an image"):
        open_scenes(tmp_path)


def test_progress_is_told(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    told = []
    open_scenes(tmp_path, progress=lambda share, text: told.append((share, text)))
    assert [s for s, _ in told] == [1 / 3, 2 / 3, 1]
    assert told[-1][1] == "opening 2.png"


# Hostile content


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "", ".", "images/../..", "..", "  "]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    picture(tmp_path / "secret.png")
    picture(tmp_path / "set" / "ok.png")
    file = tmp_path / "set" / "a.json"
    absolute = str(tmp_path / "secret.png") if name.startswith("/") else name
    tables = {"categories": [{"id": 1, "name": "x"}], "annotations": []}
    tables["images"] = [{"id": 1, "file_name": absolute}, {"id": 2, "file_name": "ok.png"}]
    file.write_text(json.dumps(tables))
    scenes = read_coco(file)
    assert [s.id for s in scenes] == ["ok.png"]
    assert [u.reason for u in scenes.unreadable] == ["the name is empty or leads out of the folder of the images"]


@given(st.text(st.sampled_from("./\\a~\0 \n"), max_size=12))
def test_inside_never_leads_out(name):
    path = inside(os.path.realpath("/srv/data"), name)  # type: ignore[arg-type]
    assert path is None or os.path.normpath(path).startswith("/srv/data/")


NASTY = ["<img src=x onerror=alert(1)>.png", "two\nlines.png", "naïve 漢字 🙂.png", "a&b;c.png", "'; drop table.png"]


def test_odd_names_are_text(tmp_path):
    for n in NASTY:
        picture(tmp_path / n)
    assert sorted(s.id for s in read_folder(tmp_path)) == sorted(map(printable, NASTY))
    tables = {"categories": [{"id": 1, "name": "<b>\ud800</b>"}], "annotations": []}
    tables["images"] = [{"id": i, "file_name": n} for i, n in enumerate([*NASTY, "\ud800.png"])]
    (tmp_path / "a.json").write_text(json.dumps(tables))
    scenes = read_coco(tmp_path / "a.json")
    assert [s.id for s in scenes] == [printable(n) for n in NASTY]
    assert scenes.classes == ("<b>\\ud800</b>",)
    assert [u.name for u in scenes.unreadable] == ["\\ud800.png"]
    assert len(scenes.digest) == 64
    scenes.split(0.5)


def test_file_names_that_are_no_text(tmp_path):
    raw = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        raw.touch()
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    picture(tmp_path / "a.png").replace(raw)
    scenes = read_folder(tmp_path)
    assert [s.id for s in scenes] == ["caf\\udce9.png"]
    assert scenes[0].load().shape == (3, 30, 40)
    assert len(scenes.digest) == 64


def test_an_image_named_twice_counts_once(tmp_path):
    picture(tmp_path / "a.png")
    tables = {"categories": [{"id": 1, "name": "x"}], "annotations": []}
    tables["images"] = [{"id": i, "file_name": "a.png"} for i in range(2)]
    (tmp_path / "a.json").write_text(json.dumps(tables))
    scenes = read_coco(tmp_path / "a.json")
    assert len(scenes) == 1
    assert "named more than once" in scenes.unreadable[0].reason


@given(st.binary(max_size=200), st.sampled_from(["a.json", "a.csv", "a.txt", "a.xml", "a.yaml"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_random_bytes_are_an_error_in_one_sentence(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    prefix = {"a.json": "coco", "a.csv": "csv", "a.txt": "wider", "a.xml": "voc", "a.yaml": "yolo"}[name]
    for place in (tmp_path / name, f"{prefix}:{tmp_path / name}"):
        with pytest.raises(DataError):
            open_scenes(place, detector_classes=["x"])


def test_csv_of_another_folder(tmp_path):
    picture(tmp_path / "pics" / "a.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "boxes.csv").write_text("image,x1,y1,x2,y2\na.png,1,2,8,9\n")
    assert len(read_csv(tmp_path / "lists" / "boxes.csv", images=tmp_path / "pics")) == 1
    assert len(open_scenes(tmp_path / "lists" / "boxes.csv", images=tmp_path / "pics")) == 1
