"""The kit's real image sets, read with the counts that a plain look at their files gives."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from audit.data import open_scenes
from tests.kit import kit
from tests.lfw import lfw_scenes

pytestmark = pytest.mark.kit


def test_face_boxes():
    path = kit("face_boxes", "boxes.csv")
    rows = list(csv.DictReader(path.open()))
    scenes = open_scenes(path)
    assert scenes.classes == ("face",)
    assert len(scenes) == len({r["image"] for r in rows}) == 16
    assert scenes.objects == len(rows) == 369
    assert Counter(r["image"] for r in rows) == {s.id: len(s.boxes) for s in scenes}
    assert sum(len(s.boxes) for s in scenes if s.id.startswith("wider/")) == 326
    assert not scenes.unreadable
    first = next(s for s in scenes if s.id == rows[0]["image"])
    assert first.boxes[0].tolist() == [float(rows[0][k]) for k in ("x1", "y1", "x2", "y2")]
    assert first.load().shape == (3, *first.size)


def test_coco128():
    names = kit("coco_det_fastestdet", "coco.names").read_text().split("\n")[:80]
    folder = kit("coco128")
    lines = [line for f in (folder / "labels").glob("*.txt") for line in f.read_text().splitlines() if line.strip()]
    scenes = open_scenes(folder, detector_classes=names)
    assert len(scenes) == 128
    assert scenes.objects == len(lines) == 929
    expected = Counter(names[int(line.split()[0])] for line in lines)
    assert Counter(scenes.classes[i] for s in scenes for i in s.labels.tolist()) == expected
    image = scenes[0]
    with Image.open(folder / image.id) as file:
        w, h = file.size
    cells = (folder / "labels" / Path(image.id).name).with_suffix(".txt").read_text().split()
    cx, cy, bw, bh = (float(c) for c in cells[1:5])
    expected = [(cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h]
    assert image.boxes[0].tolist() == pytest.approx(expected, abs=0.51)


def test_driving_apollo():
    folder = kit("driving_apollo")
    objects = [o for f in (folder / "Annotations").glob("*.xml") for o in ET.parse(f).iter("object")]
    scenes = open_scenes(folder)
    assert len(scenes) == 16
    assert sum(len(s.boxes) for s in scenes) == len(objects)
    names = Counter(o.findtext("name") for o in objects)
    assert Counter(scenes.classes[i] for s in scenes for i in s.labels.tolist()) == names
    assert {s.size for s in scenes} == {(1080, 1920)}
    assert scenes.for_classes(["car"]).objects == names["car"]


def test_lfw_by_person():
    scenes = lfw_scenes(60)
    assert len(scenes) == 60
    assert scenes.objects == 60
    craft, held_out = scenes.split(0.5)
    people = [{Path(s.id).parent.name for s in part} for part in (craft, held_out)]
    assert people[0].isdisjoint(people[1])
