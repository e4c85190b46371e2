"""What lies beside a video or a folder of frames: tables of corners, labelme files, models, masks."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit.data import open_scenes, read_areas_csv, read_drives, read_frames, read_labelme, read_video
from audit.data.areas import is_convex
from audit.errors import DataError
from audit.execution import Execution
from tests.videos import moving, write_frames, write_video

HEADER = "frame,x1,y1,x2,y2,x3,y3,x4,y4"
FULL = f"{HEADER},class,box_x1,box_y1,box_x2,box_y2,object"
QUAD = [(10, 20), (30, 22), (29, 40), (11, 38)]
CELLS = ",".join(f"{v}" for p in QUAD for v in p)


@pytest.fixture
def drive(tmp_path):
    """A folder that holds the folder of frames ``d``: twelve, 64 x 96 px."""
    write_frames(tmp_path / "d", moving(12))
    return tmp_path


def table(folder, *rows, header=HEADER, name="d.areas.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def shape(label, points, kind="polygon", group=None):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


def labelme(path, *shapes, size=(64, 96)):
    path.parent.mkdir(exist_ok=True)
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{path.stem}.png"}
    path.write_text(json.dumps(content | {"imageData": None, "imageHeight": size[0], "imageWidth": size[1]}))


# tables of corners


def test_a_table_of_corners(drive):
    table(
        drive,
        f"0,{CELLS},truck,5,10,50,60,first",
        "0,,,,,,,,,car,50,5,90,30,second",
        f"3,{CELLS},,,,,,first",
        "7" + "," * 14,
        header=FULL,
    )
    scenes = read_drives(drive)
    assert [s.id for s in scenes] == ["d/000000", "d/000003", "d/000007"]
    assert scenes.classes == ("car", "truck")
    assert scenes.labelled_by == "human"
    first, third, empty = scenes
    assert first.boxes.tolist() == [[5, 10, 50, 60], [50, 5, 90, 30]]
    assert first.labels.tolist() == [1, 0]
    assert first.areas[0].tolist() == [list(map(float, p)) for p in QUAD]
    assert first.areas[1].isnan().all()
    assert third.boxes.tolist() == [[10, 20, 30, 40]]  # around the area
    assert third.ignore.tolist() == [True]  # of no class
    assert len(empty.boxes) == 0
    assert empty.areas is None
    told = " ".join(scenes.notes)
    assert "9 frame(s) that nothing is said of are left out" in told
    assert "1 object(s) have no box of their own" in told
    assert "1 object(s) without a class are ignored" in told
    batch = next(iter(Execution().batches(scenes, 8)))
    assert [a.quads.shape for a in batch.areas] == [(2, 4, 2), (0, 4, 2), (0, 4, 2)]
    trucks = next(iter(Execution().batches(scenes.for_classes(["Truck"]).smaller_ignored(8), 8)))
    assert [a.quads.shape for a in trucks.areas] == [(1, 4, 2), (0, 4, 2), (0, 4, 2)]
    craft, held_out = scenes.split(0.5)
    assert {s.group for s in craft}.isdisjoint(s.group for s in held_out)


def test_a_table_for_a_video_and_one_by_names(tmp_path):
    write_video(tmp_path / "v.mp4", moving(12))
    path = table(tmp_path, f"11,{CELLS}", name="v.areas.csv")
    (scene,) = open_scenes(tmp_path)
    assert scene.id == "v/000011"
    path.rename(tmp_path / "elsewhere.csv")
    assert open_scenes(tmp_path).labelled_by == "self"
    scenes = read_video(tmp_path / "v.mp4", areas=tmp_path / "elsewhere.csv", default_class="bus")
    assert scenes.classes == ("bus",)
    assert any("taken for 'bus'" in n for n in scenes.notes)
    write_frames(tmp_path / "f", moving(12))
    named = read_frames(tmp_path / "f", areas=table(tmp_path, f"10.png,{CELLS}", f"2,{CELLS}", name="n.csv"))
    assert [s.id for s in named] == ["f/000002", "f/000010"]


@pytest.mark.parametrize(
    ("rows", "header", "text"),
    [
        ([f"12,{CELLS}"], HEADER, "frames from 0 to 11, as d has, got frame 12"),
        ([f"-1,{CELLS}"], HEADER, "frame '-1' in row 2"),
        ([f"x.png,{CELLS}"], HEADER, "frame 'x.png' in row 2"),
        (["0,10,20,30,22,11,38,29,40"], HEADER, "upper left, upper right, lower right, lower left"),
        (["0,10,20,11,38,29,40,30,22"], HEADER, "of a convex area.*row 2"),
        (["0,1,1,2,2,3,3,4,4"], HEADER, "convex"),
        (["0,1,1,9,1,9,9,4,nan"], HEADER, "finite numbers"),
        (["0,1,1,9,1,9,9,4,"], HEADER, "numbers of px in every corner"),
        (["0,1,1"], HEADER, "3 cells in row 2"),
        ([], "frame,x,y", "the header frame,x,y"),
        (["0,,,,,,,,,car,50,50,10,60,a"], FULL, "x1 < x2 and y1 < y2, got .50.0, 50.0, 10.0, 60.0. in row 2"),
        (["0,,,,,,,,,car,10,60,50,20,a"], FULL, "a box from its upper left to its lower right"),
        (["3,,,,,,,,,car,1,1,9,9,a", "3,,,,,,,,,car,5,5,9,9,a"], FULL, "object 'a' twice in frame 3, row 3"),
    ],
)
def test_a_bad_table_is_said_in_a_sentence(drive, rows, header, text):
    table(drive, *rows, header=header)
    with pytest.raises(DataError, match=text) as e:
        read_drives(drive)
    assert "\n" not in str(e.value)


def test_unreadable_sidecars_are_said(drive):
    path = drive / "d.areas.csv"
    path.write_bytes(b"\xff\xfe\x00frame")
    with pytest.raises(DataError, match=r"areas d\.areas\.csv: expected UTF-8"):
        read_drives(drive)
    table(drive, f"0,{CELLS}")
    labelme(drive / "d" / "0.json", shape("area", QUAD))
    with pytest.raises(DataError, match="areas from one source"):
        read_drives(drive)
    with pytest.raises(DataError, match="areas gone"):
        read_frames(drive / "d", areas=drive / "gone.csv")
    with pytest.raises(DataError, match="at least one annotated frame"):
        read_frames(drive / "d", areas=table(drive, name="empty.csv"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=4, max_size=4, unique=True))
def test_convexity_against_opencv(points):
    quad = np.array(points)
    hull = cv2.convexHull(quad.astype(np.int32)).reshape(-1, 2)
    # all four on the hull, and met in its own order; OpenCV's orientation, with y down
    clockwise = cv2.contourArea(quad.astype(np.float32), oriented=True) > 0
    convex = len(hull) == 4 and cv2.isContourConvex(quad.astype(np.int32)) and clockwise
    assert is_convex(quad) == convex


def test_boxes_over_the_edge_are_clipped_and_noted(drive):
    table(drive, "0,-20,-20,30,-20,30,30,-20,30", "1,-40,-40,-20,-40,-20,-20,-40,-20")
    first, second = read_drives(drive)
    assert first.boxes.tolist() == [[0, 0, 30, 30]]
    assert first.areas[0, 0].tolist() == [-20, -20]
    assert second.ignore.tolist() == [True]
    notes = " ".join(read_drives(drive).notes)
    assert "1 box(es) without area inside the frame" in notes
    assert "1 box(es) reached over the edge" in notes


# labelme


def test_labelme_files_beside_frames(drive):
    backwards = [QUAD[2], QUAD[1], QUAD[0], QUAD[3]]  # drawn from the lower right, the other way round
    labelme(drive / "d" / "0.json", shape("truck", [(5, 10), (50, 60)], "rectangle"), shape("area", backwards))
    labelme(drive / "d" / "10.json", shape("area:bus", QUAD), shape("hidden", [(15, 25), (25, 25), (20, 35)]))
    labelme(drive / "d" / "2.json")
    for scenes in (open_scenes(drive), open_scenes(drive / "d"), open_scenes(f"video:{drive}")):
        assert [s.id for s in scenes] == ["d/000000", "d/000002", "d/000010"]
        assert scenes.classes == ("bus", "truck")
        assert scenes[0].boxes.tolist() == [[5, 10, 50, 60]]
        assert scenes[0].areas[0].tolist() == [list(map(float, p)) for p in QUAD]
        assert len(scenes[1].boxes) == 0
        assert scenes[2].boxes.tolist() == [[10, 20, 30, 40]]
        assert scenes[0].hidden is None
        mask = scenes[2].hidden()
        assert mask.shape == (64, 96)
        assert mask.dtype == torch.uint8
        assert mask[28, 20] == 255
        assert mask[40, 20] == 0
        assert float(mask.sum()) / 255 == pytest.approx(50, abs=3)  # the triangle's 50 px²


def test_an_area_finds_its_object(tmp_path):
    far, near = [(0, 0), (90, 60)], [(8, 18), (40, 50)]
    labelme(
        tmp_path / "1.json",
        shape("car", far, "rectangle", 7),
        shape("truck", near, "rectangle"),
        shape("area", QUAD),
        shape("area", [(50, 5), (80, 15)], "rectangle", 7),
    )
    labelme(
        tmp_path / "2.json", shape("car", far, "rectangle"), shape("truck", far, "rectangle"), shape("area:truck", QUAD)
    )
    labelme(tmp_path / "3.json", shape("car", [(60, 40), (90, 60)], "rectangle"), shape("area", QUAD))
    marks = read_labelme(tmp_path, default_class="bus")
    car, truck = marks.frames[1]
    assert car.area.tolist() == [[50, 5], [80, 5], [80, 15], [50, 15]]
    assert truck.area.tolist() == [list(map(float, p)) for p in QUAD]
    assert [t.area is None for t in marks.frames[2]] == [True, False]
    assert [(t.label, t.box is None) for t in marks.frames[3]] == [("car", False), ("bus", True)]
    assert marks.notes == ["1 area(s) without a class are taken for 'bus'"]


def test_circles_reach_as_far_as_their_radius(drive):
    wheel = shape("car", [(40, 30), (43, 34)], "circle")  # the radius is 5
    labelme(drive / "d" / "0.json", wheel, shape("hidden", [(48, 32), (48, 52)], "circle"))
    (scene,) = read_drives(drive)
    assert torch.allclose(scene.boxes, torch.tensor([[35.0, 25, 45, 35]]))
    mask = scene.hidden().float() / 255
    y, x = np.mgrid[:64, :96] + 0.5
    inside = torch.from_numpy((x - 48) ** 2 + (y - 32) ** 2 < 400).float()
    assert float((mask - inside).abs().mean()) < 0.01
    assert float(mask.sum()) == pytest.approx(np.pi * 400, rel=0.01)


def test_labelme_files_of_a_video(tmp_path):
    write_video(tmp_path / "v.mp4", moving(12))
    labelme(tmp_path / "v" / "frame_0007.json", shape("area:car", QUAD))
    labelme(tmp_path / "v" / "frame_0009.json", shape("area:car", QUAD), size=(640, 960))
    scenes = open_scenes(tmp_path)
    assert [s.id for s in scenes] == ["v/000007"]
    assert [(u.name, u.reason[:8]) for u in scenes.unreadable] == [("v/000009", "drawn on")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{broken 'shapes' \"shapes\"", "labelme 1.json: expected labelme's JSON"),
        ('{"shapes": 3}', "a list 'shapes'"),
        ('{"shapes": [{"label": "area"}]}', "a label and points"),
        ('{"shapes": [{"label": "area", "points": [[1, 2], [3, 4], [5, 9]]}]}', "areas of four points"),
        ('{"shapes": [{"label": "area", "points": [[0, 0], [9, 9], [9, 0], [0, 9]]}]}', "convex area"),
        ('{"shapes": [{"label": "car", "points": [[0, 0], [9, NaN]]}]}', "finite points"),
        ('{"shapes": [{"label": "car", "points": [[0, 0], "x"]}]}', "a label and points"),
        *(
            (json.dumps({"shapes": [shape("car", points, kind)]}), f"car drawn as a {kind}")
            for kind, points in (
                ("point", [(1, 2)]),
                ("line", [(1, 2), (9, 9)]),
                ("linestrip", [(1, 2), (9, 9), (3, 7)]),
                ("mask", [(1, 2), (9, 9)]),
            )
        ),
        (json.dumps({"shapes": [shape("car", [(1, 2)] * 3, "circle")]}), "middle and a point on the rim"),
        (json.dumps({"shapes": [shape("area", [(9, 9), (9, 12)], "circle")]}), "areas of four points"),
    ],
)
def test_bad_labelme_files_are_said(tmp_path, content, text):
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(DataError, match=text) as e:
        read_labelme(tmp_path)
    assert "\n" not in str(e.value)


def test_labelme_files_without_frames_are_said(drive):
    labelme(drive / "d" / "nine.json", shape("area", QUAD))
    with pytest.raises(DataError, match="named as the frame is"):
        read_drives(drive)
    with pytest.raises(DataError, match="got none"):
        read_labelme(drive)


# what stands in front


def mask(path, size=(96, 64), box=(10, 10, 30, 30)):
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels)


def test_one_mask_for_all_and_one_per_frame(drive):
    table(drive, f"0,{CELLS}", f"3,{CELLS}")
    everywhere = mask(drive / "hidden.png")
    digest = read_drives(drive).digest
    assert all(torch.equal(s.hidden(), everywhere) for s in read_drives(drive))
    of_three = mask(drive / "d.hidden" / "3.png", box=(0, 0, 96, 5))
    first, third = read_drives(drive)
    assert first.hidden is None
    assert torch.equal(third.hidden(), of_three)
    assert read_drives(drive).digest != digest
    batch = next(iter(Execution().batches(read_drives(drive), 8)))
    assert batch.areas[0].hidden is None
    assert float(batch.areas[1].hidden.sum()) == 96 * 5
    mask(drive / "d.hidden" / "3.png", size=(90, 64))
    with pytest.raises(DataError, match=r"96x64 px as frame 3 has, got 90x64"):
        read_drives(drive)
    (drive / "d.hidden" / "3.png").rename(drive / "d.hidden" / "other.png")
    with pytest.raises(DataError, match="named as one of the frames"):
        read_drives(drive)


def test_masks_numbered_from_1_or_twice_are_refused(tmp_path):
    write_video(tmp_path / "v.mp4", moving(4))
    table(tmp_path, *(f"{i},{CELLS}" for i in range(4)), name="v.areas.csv")
    for i in range(1, 5):
        mask(tmp_path / "v.hidden" / f"{i:04d}.png", box=(0, 0, 10 * i, 9))
    with pytest.raises(DataError, match=r"mask 0004\.png: expected masks of frames 0 to 3, got one of frame 4; count"):
        read_drives(tmp_path)
    (tmp_path / "v.hidden" / "0004.png").unlink()
    scenes = read_drives(tmp_path)
    assert [None if s.hidden is None else int(s.hidden().sum()) // 2295 for s in scenes] == [None, 10, 20, 30]
    assert "v: 1 frame(s) have no mask though others do: nothing hides areas there" in scenes.notes
    mask(tmp_path / "v.hidden" / "0000.png")
    assert not any("have no mask" in n for n in read_drives(tmp_path).notes)
    mask(tmp_path / "v.hidden" / "frame_2.png")
    with pytest.raises(DataError, match=r"one mask per frame, got frame 2 in 0002\.png as well"):
        read_drives(tmp_path)


@pytest.mark.parametrize(
    ("frame", "name", "hides"),
    [
        ("cam_{}_left", "1", 1),  # by place
        ("cam_{}_left", "cam_1_left", 1),
        ("00{}", "2", 2),  # frames are numbers themselves: those count
        ("7{}", "71", 1),
        ("7{}", "1", None),
        ("cam_{}_left", "cam_2", None),  # a name, though of no frame
        ("cam_{}_left", "3", None),
    ],
)
def test_masks_of_a_folder_go_by_name_or_number(tmp_path, frame, name, hides):
    folder = write_frames(tmp_path / "d", moving(3))
    for i in range(3):
        (folder / f"{i}.png").rename(folder / f"{frame.format(i)}.png")
    table(tmp_path, *(f"{i},{CELLS}" for i in range(3)))
    mask(tmp_path / "d.hidden" / f"{name}.png")
    if hides is None:
        with pytest.raises(DataError, match=rf"mask {name}\.png: expected"):
            read_drives(tmp_path)
    else:
        assert [s.hidden is not None for s in read_drives(tmp_path)] == [i == hides for i in range(3)]


@pytest.mark.parametrize("given", [".", "..", "../d", "inner/.."])
def test_sidecars_are_found_from_inside_the_folder(drive, monkeypatch, given):
    table(drive, f"3,{CELLS}")
    mask(drive / "d.hidden.png")
    outside = read_drives(drive / "d")
    (drive / "d" / "inner").mkdir()
    monkeypatch.chdir(drive / "d" / ("inner" if given == ".." else ""))
    for scenes in (open_scenes(given), read_frames(given)):
        assert [s.id for s in scenes] == ["d/000003"]
        assert scenes[0].hidden is not None
        assert (scenes.name, scenes.digest) == ("d", outside.digest)


# models and differencing beside tables


def test_a_model_takes_the_frames_of_a_table(drive):
    table(drive, "0,10,20,30,20,30,40,10,40,5,15,35,45", header=f"{HEADER},box_x1,box_y1,box_x2,box_y2")
    (drive / "d.drive.toml").write_text('model = "pinhole"\nvanishing_frame = 20\ncentre = [10, 20]\nlast = 10\n')
    scenes = read_drives(drive)
    assert len(scenes) == 11
    assert scenes[10].areas[0].tolist() == [[10, 20], [50, 20], [50, 60], [10, 60]]  # twice as near
    assert scenes[10].boxes[0].tolist() == [0, 10, 60, 64]
    assert any("left out" in n for n in scenes.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "expected TOML"),
        ('model = "spline"', "at 'model'"),
        ('model = "pinhole"\nspeed = 3', "at 'speed'"),
        ('model = "pinhole"', "at least one annotated frame"),
        ('model = "pinhole"\n[[annotated]]\nframe = 40\nbox = [1, 1, 9, 9]', "0 to 11, got frame 40"),
        ('model = "pinhole"\nlast = 99\n[[annotated]]\nframe = 4\nbox = [1, 1, 9, 9]', "got frame 99"),
        ('model = "pinhole"\n[[annotated]]\nframe = 4\nbox = [1, 1, 9, 9]', "annotate a second frame or write"),
        ('model = "pinhole"\n[[annotated]]\nframe = 4\nbox = [9, 1, 1, 9]', "x1 < x2 and y1 < y2.* in frame 4"),
        ('model = "pinhole"\n[[annotated]]\nframe = 4', "now one, now the other"),
        ('model = "pinhole"\n' + "[[annotated]]\nframe = 4\nbox = [1, 1, 9, 9]\n" * 2, "frame 4 twice"),
        ('model = "pinhole"\n[[annotated]]\nframe = 4\narea = [[1, 1], [9, 9], [9, 1], [1, 9]]', "convex"),
    ],
)
def test_a_bad_model_is_said(drive, text, message):
    (drive / "d.drive.toml").write_text(text)
    with pytest.raises(DataError, match=message) as e:
        read_drives(drive)
    assert "\n" not in str(e.value)


def test_differencing_gives_areas_to_boxes(drive):
    frames = list(moving(12))
    for f in frames:
        f[20:40, 40:70] = 255 - f[20:40, 40:70] // 2
    write_frames(drive / "d.patched", frames)
    table(
        drive,
        *(f"{i},,,,,,,,,truck,30,10,80,50,a" for i in range(12)),
        "3,,,,,,,,,car,0,0,20,20,b",
        header=FULL,
    )
    scenes = read_drives(drive)
    assert {s.id.split("/")[0] for s in scenes} == {"d"}
    assert len(scenes) == 12
    for s in scenes:
        assert s.boxes[0].tolist() == [30, 10, 80, 50]
        assert float((s.areas[0] - torch.tensor([(40, 20), (70, 20), (70, 40), (40, 40)])).abs().max()) < 1.5
    assert scenes[3].areas[1].isnan().all()
    (drive / "d.patched" / "11.png").unlink()
    with pytest.raises(DataError, match="expected 12 frames, as d has, got 11"):
        read_drives(drive)


def test_a_corner_table_says_where_rows_come_from(tmp_path):
    marks = read_areas_csv(table(tmp_path, f"4,{CELLS}", name="x.csv"))
    assert list(marks.frames) == [4]
    assert marks.frames[4][0].label == "car"
    assert "x.csv" in marks.source
