"""Areas and boxes of a whole drive from a few annotated frames, against the boxes that were rendered."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from audit.data import find_areas, fit_pinhole, fit_polynomial, pinhole, read_drives
from audit.data.areas import is_convex, upright
from audit.errors import DataError
from tests.videos import texture, write_frames, write_video

COUNT = 60
SIZE = (360, 640)
RED = np.array([220, 30, 30])


def camera(position, turn, points, focal=700.0):
    """Pixels (P, 2) of points (P, 3) (right, down, ahead) seen from ``position``, turned right by ``turn`` rad."""
    c, s = np.cos(turn), np.sin(turn)
    x, y, z = (points - position).T
    right, ahead = c * x - s * z, s * x + c * z
    return np.stack([focal * right / ahead + SIZE[1] / 2, focal * y / ahead + SIZE[0] / 2], 1)


TRUCK = np.array([(-1.3, -1.6, 0), (1.3, -1.6, 0), (1.3, 1.4, 0), (-1.3, 1.4, 0)])
AREA = TRUCK * 0.5


def drawn(quad):
    """A frame with a red target, and the box of the pixels that are red: the truth is what was rendered."""
    frame = texture(*SIZE) // 3
    cv2.fillPoly(frame, [np.round((quad - 0.5) * 16).astype(np.int32)], RED.tolist(), cv2.LINE_8, 4)
    rows, columns = np.nonzero((frame == RED).all(2))
    return frame, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def straight(i):
    """Straight ahead, 0.5 m a frame, from 50 m: 0 m would be reached at frame 100."""
    return camera(np.array([0.0, 0.2, -50 + 0.5 * i]), 0.0, TRUCK)


def winding(i):
    """Braking, drifting to the side and steering: no pinhole at a constant speed."""
    t = i / (COUNT - 1)
    position = np.array([3 * t * t - t, 0.1 * t, -50 + 45 * t - 12 * t * t])
    return camera(position, 0.08 * t - 0.1 * t * t, TRUCK + np.array([0.5, 0, 0]))


@pytest.fixture(scope="module", params=[straight, winding], ids=["straight", "winding"])
def drive(request):
    frames, boxes = zip(*(drawn(request.param(i)) for i in range(COUNT)), strict=True)
    return request.param, frames, torch.tensor(np.array(boxes)).float()


def overlap(points, boxes):
    found = torch.tensor(np.concatenate([points.min(1), points.max(1)], 1)).float()
    return float(box_iou(found, boxes).diagonal().mean())


def test_the_pinhole_recovers_a_straight_drive(drive):
    kind, _, boxes = drive
    from_one = pinhole(boxes[10], 10, 100, range(COUNT), (320, 180))
    from_three = fit_pinhole({i: boxes[i] for i in (0, 25, 50)})
    if kind is winding:  # the model's own limit, not the code's
        assert overlap(from_one, boxes) < 0.8
        return
    assert overlap(from_one, boxes) >= 0.95
    assert overlap(from_three.at(range(COUNT)), boxes) >= 0.95
    assert from_three.vanishing_frame == pytest.approx(100, abs=2)


def test_the_polynomial_recovers_any_drive(drive):
    _, _, boxes = drive
    known = (0, 12, 24, 36, 48, 59)
    assert overlap(fit_polynomial({i: boxes[i] for i in known}, range(COUNT), 3), boxes) >= 0.95


def test_a_drive_is_read_from_video_and_toml(drive, tmp_path):
    kind, frames, boxes = drive
    write_video(tmp_path / "d.mp4", frames)
    known, model = ((0, 30, 59), "pinhole") if kind is straight else ((0, 12, 24, 36, 48, 59), "polynomial")
    text = f'model = "{model}"\nclass = "truck"\n' + ("degree = 3\n" if model == "polynomial" else "")
    for i in known:
        middle = kind(i).mean(0)
        area = (middle + (kind(i) - middle) * 0.5).tolist()
        text += f"[[annotated]]\nframe = {i}\nbox = {boxes[i].tolist()}\narea = {area}\n"
    (tmp_path / "d.drive.toml").write_text(text)
    scenes = read_drives(tmp_path)
    assert len(scenes) == COUNT
    assert scenes.classes == ("truck",)
    assert float(box_iou(torch.cat([s.boxes for s in scenes]), boxes).diagonal().mean()) >= 0.95
    truth = torch.tensor(np.array([kind(i).mean(0) + (kind(i) - kind(i).mean(0)) * 0.5 for i in range(COUNT)])).float()
    assert float((torch.cat([s.areas for s in scenes]) - truth).norm(dim=2).mean()) < 1.5
    assert any(f"{len(known)} annotated one(s) by the {model} model" in n for n in scenes.notes)


# the formulas


def test_pinhole_is_its_formula():
    out = pinhole([100, 50, 200, 150], 0, 269, [0, 100, 231], (480, 270))
    for quad, i in zip(out, (0, 100, 231), strict=True):
        zoom = 269 / (269 - i)  # h_i / h_0 = d_0 / d_i
        assert quad[2, 1] - quad[0, 1] == pytest.approx(100 * zoom)
        assert quad[0].tolist() == pytest.approx([480 + (100 - 480) * zoom, 270 + (50 - 270) * zoom])
    assert np.isnan(pinhole([0, 0, 1, 1], 0, 10, [10, 11], (0, 0))).all()
    leaving = pinhole([100, 50, 200, 150], 5, -5, [15], (0, 0))
    assert leaving[0, 2].tolist() == pytest.approx([100, 75])


@settings(max_examples=25, deadline=None)
@given(
    vanishing=st.one_of(st.floats(80, 600), st.floats(-500, -20)),
    centre=st.tuples(st.floats(200, 700), st.floats(100, 400)),
    known=st.lists(st.integers(0, 60), min_size=2, max_size=5, unique=True).filter(lambda k: max(k) - min(k) > 20),
)
def test_a_fit_finds_the_drive_that_made_it(vanishing, centre, known):
    quad = np.array([(300, 200), (380, 205), (378, 260), (305, 255)], dtype=float)
    truth = pinhole(quad, 30, vanishing, range(61), centre)
    fit = fit_pinhole({i: truth[i] for i in known})
    assert fit.vanishing_frame == pytest.approx(vanishing, rel=1e-3)
    assert fit.centre == pytest.approx(centre, abs=1)
    assert np.abs(fit.at(range(61)) - truth).max() < 0.05
    assert fit.rms < 1e-3
    given_centre = fit_pinhole({i: truth[i] for i in known}, centre)
    assert given_centre.vanishing_frame == pytest.approx(vanishing, rel=1e-3)
    line = fit_polynomial({i: truth[i] for i in known}, range(61), 1)  # a constant speed is degree 1 exactly
    assert np.abs(line - truth).max() < 1e-6 * np.abs(truth).max()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: pinhole([0, 0, 1, 1], 5, 5, [1], (0, 0)), "vanishing frame other than"),
        (lambda: pinhole([0, 0, np.nan, 1], 5, 9, [1], (0, 0)), "finite points"),
        (lambda: fit_pinhole({0: [0, 0, 9, 9]}), "at least two annotated frames"),
        (lambda: fit_pinhole({0: [0, 0, 9, 9], 9: [0, 0, 9, 9]}), "of the same size"),
        (lambda: fit_pinhole({0: [0, 0, 9, 9], 9: np.zeros((3, 2))}), "the same points"),
        (lambda: fit_polynomial({0: [0, 0, 9, 9]}, [0], 1), "1 for degree 1"),
        (lambda: fit_polynomial({0: [4, 4, 4, 4]}, [0], 0), "span an area"),
        (lambda: fit_polynomial({0: [0, 0, 9, 9], 5: [0, 0, 99, 99]}, [20], 1), "none at frame 20"),
    ],
)
def test_what_cannot_be_fitted_is_said(call, text):
    with pytest.raises(DataError, match=text):
        call()


# objects through the frames


BOXES = {"car": [(10, 10, 40, 40), (8, 10, 44, 46)], "truck": [(80, 10, 120, 50), (84, 10, 132, 58)]}


@pytest.fixture
def clips(tmp_path):
    """A folder with the folder ``d`` of seven frames."""
    write_frames(tmp_path / "d", [texture(120, 160)] * 7)
    return tmp_path


def write_shapes(folder, groups):
    """labelme files of frames 0 and 6; in the second the shapes stand in the other order."""
    for k, frame in enumerate((0, 6)):
        shapes = [
            {"label": n, "points": [BOXES[n][k][:2], BOXES[n][k][2:]], "shape_type": "rectangle", "group_id": g}
            for n, g in groups
        ]
        text = json.dumps({"shapes": shapes[::-1] if k else shapes, "imageHeight": 120, "imageWidth": 160})
        (folder / "d" / f"{frame}.json").write_text(text)


def test_group_ids_are_followed_through_the_frames(clips):
    (clips / "d.drive.toml").write_text('model = "polynomial"\n')
    write_shapes(clips, [("car", 1), ("truck", 2)])
    scenes = read_drives(clips)
    assert len(scenes) == 7
    for k, s in ((0, scenes[0]), (1, scenes[6])):
        assert [scenes.classes[i] for i in s.labels] == ["car", "truck"]
        assert torch.allclose(s.boxes, torch.tensor([BOXES["car"][k], BOXES["truck"][k]]).float(), atol=1e-3)
    assert not any("place in the file" in n for n in scenes.notes)
    write_shapes(clips, [("car", None), ("truck", 2)])  # one without: told by its place among those without
    assert [scenes.classes[i] for i in read_drives(clips)[6].labels] == ["car", "truck"]
    write_shapes(clips, [("car", None), ("truck", None)])
    with pytest.raises(DataError, match=r"same class .* got 'car' in frame 0, 'truck' in frame 6 of object #0; tell"):
        read_drives(clips)
    write_shapes(clips, [("car", 3), ("truck", 3)])
    with pytest.raises(DataError, match=r"drive d\.drive\.toml: .* got 'group 3' twice in frame 0"):
        read_drives(clips)
    (clips / "d.drive.toml").unlink()
    assert len(read_drives(clips)) == 2  # parts of a group, where nothing is to be followed


def test_objects_without_names_are_noted(clips):
    header = "frame,x1,y1,x2,y2,x3,y3,x4,y4"
    rows = [f"{i},{x},10,{x + 20},10,{x + 20},30,{x},30" for i in (0, 6) for x in (10, 60)]
    (clips / "d.areas.csv").write_text("\n".join([header, *rows]))
    (clips / "d.drive.toml").write_text('model = "polynomial"\n')
    assert any("objects without a name are followed by their place" in n for n in read_drives(clips).notes)


def entry(frame, box, more=""):
    return f"[[annotated]]\nframe = {frame}\nbox = {list(box)}\n{more}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'model = "polynomial"\n' + entry(0, (1, 1, 9, 9)) + entry(5, (1, 1, 9, 9), 'class = "truck"'),
            "same class in every annotated frame of an object, got 'car' in frame 0, 'truck' in frame 5",
        ),
        (
            'model = "pinhole"\nvanishing_frame = 3\n' + entry(0, (1, 1, 9, 9)) + entry(5, (1, 1, 9, 9)),
            "a vanishing frame before or after all annotated frames.* vanishing_frame = 3 among .*, 0 to 5",
        ),
        (
            'model = "pinhole"\nvanishing_frame = 5\n' + entry(0, (1, 1, 9, 9)) + entry(5, (1, 1, 9, 9)),
            "a vanishing frame before or after",
        ),
        (
            'model = "pinhole"\n' + entry(2, (1, 1, 9, 9), 'object = "x"'),
            "pinhole model of object x: .* got 1 frame.*; annotate a second frame or write vanishing_frame",
        ),
        (
            'model = "pinhole"\n' + entry(0, (1, 1, 9, 9)) + entry(5, (2, 1, 10, 9)),
            "pinhole model: .* of the same size .*; annotate frames that lie further apart",
        ),
        (
            'model = "polynomial"\ndegree = 2\n' + entry(0, (1, 1, 9, 9)) + entry(5, (1, 1, 9, 9)),
            "polynomial fit: .* got 2 for degree 2; annotate more frames",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_the_file(clips, text, message):
    (clips / "d.drive.toml").write_text(text)
    with pytest.raises(DataError, match=rf"drive d\.drive\.toml.*{message}"):
        read_drives(clips)


def test_frames_beyond_the_vanishing_frame_are_left_out(clips):
    text = 'model = "pinhole"\nvanishing_frame = 4\n'
    (clips / "d.drive.toml").write_text(text + entry(0, (60, 40, 110, 80)))
    scenes = read_drives(clips)
    assert [s.id for s in scenes] == [f"d/{i:06d}" for i in range(4)]
    assert all(len(s.boxes) == 1 for s in scenes)
    told = " ".join(scenes.notes)
    assert "areas and boxes of 4 frame(s) follow from 1 annotated" in told
    assert "3 more at or beyond the vanishing frame are left out" in told
    (clips / "d.drive.toml").write_text(text + "first = 1\nlast = 2\n" + entry(0, (60, 40, 110, 80)))
    assert not any("vanishing frame" in n for n in read_drives(clips).notes)


# areas by differencing


def patched(frame, quad, seed=5):
    """The frame with a noisy patch on the quadrilateral."""
    patch = texture(90, 120, seed, block=6)
    corners = np.array([(0, 0), (120, 0), (120, 90), (0, 90)], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(corners, (quad - 0.5).astype(np.float32))
    warped = cv2.warpPerspective(patch, matrix, frame.shape[1::-1])
    mask = cv2.warpPerspective(np.ones(patch.shape[:2], np.uint8), matrix, frame.shape[1::-1])
    return np.where(mask[..., None] > 0, warped, frame)


QUADS = [
    [(200, 100), (330, 110), (320, 210), (195, 190)],
    [(420, 60), (520, 60), (520, 140), (420, 140)],
    [(100, 220), (260, 200), (270, 330), (90, 310)],
]


def test_differencing_finds_the_corners_through_a_codec(tmp_path):
    plain = [texture(*SIZE, seed=9) for _ in range(9)]
    quads = [np.array(QUADS[i % 3], dtype=float) for i in range(9)]
    worn = [patched(f, q) for f, q in zip(plain, quads, strict=True)]
    worn[4] = plain[4]  # nothing to be found here
    write_video(tmp_path / "d.mp4", plain, crf="28")
    write_video(tmp_path / "d.patched.mp4", worn, crf="28")
    scenes = read_drives(tmp_path, default_class="truck")
    assert [s.id for s in scenes] == [f"d/{i:06d}" for i in range(9) if i != 4]
    for s in scenes:
        truth = torch.tensor(quads[int(s.id[-6:])]).float()
        assert float((s.areas[0] - truth).norm(dim=1).max()) < 4
    assert any("in 8 of 9 frame(s)" in n for n in scenes.notes)


def test_differencing_is_exact_without_a_codec_and_calm_in_noise():
    plain = torch.from_numpy(texture(*SIZE, seed=9)).permute(2, 0, 1)
    for corners in QUADS:
        quad = np.array(corners, dtype=float)
        worn = torch.from_numpy(patched(texture(*SIZE, seed=9), quad)).permute(2, 0, 1)
        found = find_areas([plain], [worn])
        assert float((found[0] - torch.tensor(quad)).norm(dim=1).max()) < 2
    noise = torch.randint(-20, 21, plain.shape, generator=torch.Generator().manual_seed(0))
    noisy = (plain.int() + noise).clamp(0, 255).to(torch.uint8)
    assert find_areas([plain, plain, None], [plain, noisy, plain]).isnan().all()
    round_ = plain.clone().permute(1, 2, 0).numpy().copy()
    cv2.circle(round_, (300, 200), 60, (255, 0, 255), -1)
    cv2.circle(round_, (380, 200), 60, (255, 0, 255), -1)
    cv2.rectangle(round_, (200, 60), (210, 300), (0, 255, 0), -1)
    assert find_areas([plain], [torch.from_numpy(round_).permute(2, 0, 1)]).isnan().all()


def test_differencing_needs_alike_videos():
    a, b = torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(3, 20, 31, dtype=torch.uint8)
    with pytest.raises(DataError, match="same number of frames"):
        find_areas([a, a], [a])
    with pytest.raises(DataError, match="30x20 px and 31x20 px"):
        find_areas([a], [b])
    assert find_areas([], []).shape == (0, 4, 2)


@settings(max_examples=40, deadline=None)
@given(turn=st.floats(-0.6, 0.6), start=st.integers(0, 3), flip=st.booleans())
def test_upright_finds_the_upper_left_however_it_was_drawn(turn, start, flip):
    c, s = np.cos(turn), np.sin(turn)
    quad = np.array([(-40, -25), (40, -25), (40, 25), (-40, 25)]) @ np.array([(c, s), (-s, c)]) + 100
    drawn_so = np.roll(quad[::-1] if flip else quad, start, 0)
    assert np.allclose(upright(drawn_so), quad)
    assert is_convex(upright(drawn_so))
