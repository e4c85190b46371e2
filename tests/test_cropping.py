"""Faces cut out of frames: geometry against plain padding and slicing, detectors that are planted and a real one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from audit.contracts import Detections
from audit.data.clips import Clip
from audit.data.cropping import MARGIN, cut, face_boxes, resized, scaled, square
from audit.data.footage import VideoFootage
from audit.errors import DataError, ModelError
from tests.kit import kit, retinaface


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Given:
    """Footage of frames in memory that counts what is read."""

    fps = 25.0

    def __init__(self, frames):
        self.frames, self.count, self.asked = frames, len(frames), []

    def read(self, indices):
        self.asked += list(indices)
        return [self.frames[i] for i in indices]

    def compression(self):
        pytest.fail("it decodes a whole video")


class Planted:
    """A detector that finds in frame n, told by the first pixel, what it was told; its batches are noted."""

    score_threshold = 0.5

    def __init__(self, found, classes=("face",)):
        self.found, self.classes, self.batches = found, classes, []

    def __call__(self, images):
        self.batches.append(tuple(images.shape))
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
        out = []
        for image in images:
            rows = self.found.get(round(float(image[0, 0, 0]) * 255), [])
            boxes = torch.tensor([r[0] for r in rows], dtype=torch.float32).reshape(-1, 4)
            labels = torch.tensor([r[2] if len(r) > 2 else 0 for r in rows], dtype=torch.int64)
            out.append(Detections(boxes, torch.tensor([float(r[1]) for r in rows]), labels))
        return out


def numbered(count, size=(40, 60)):
    frames = [picture(*size, seed=i) for i in range(count)]
    for i, f in enumerate(frames):
        f[0, 0] = i
    return frames


def clip(frames, **more):
    return Clip("a", "", "g", Given(frames), "0" * 64, **more)


def rows(boxes):
    return [None if b is None else b.tolist() for b in boxes]


# --- geometry

SIDES = st.integers(1, 30)
COORDINATES = st.floats(-50, 50, allow_nan=False)
LENGTHS = st.floats(0.5, 40)


@settings(max_examples=50, deadline=None)
@given(COORDINATES, COORDINATES, LENGTHS, LENGTHS, st.floats(0.5, 3))
def test_a_square_has_the_centre_of_its_box_and_margin_times_its_longer_side(x, y, w, h, margin):
    x1, y1, x2, y2 = square(torch.tensor([x, y, x + w, y + h], dtype=torch.float64), margin).tolist()
    assert (x1 + x2) / 2 == pytest.approx(x + w / 2)
    assert (y1 + y2) / 2 == pytest.approx(y + h / 2)
    assert x2 - x1 == pytest.approx(margin * max(w, h))
    assert y2 - y1 == pytest.approx(margin * max(w, h))


def test_squares_of_many_boxes_are_those_of_each():
    boxes = torch.rand((5, 4), generator=torch.Generator().manual_seed(0))
    boxes[:, 2:] += boxes[:, :2] + 0.1
    assert torch.equal(square(boxes), torch.stack([square(b, MARGIN) for b in boxes]))


def by_padding(frame, box):
    """The same by the books: pad much, find the nearest place that lies inside (or covers the frame), slice."""
    height, width = frame.shape[:2]
    pad = 300
    wide = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    at = []
    for low, high, length in ((box[1], box[3], height), (box[0], box[2], width)):
        side = max(1, round(high - low))
        centred = round((low + high - side) / 2)
        fits = [i for i in range(-pad, pad) if (i >= 0 and i + side <= length) or (i <= 0 and i + side >= length)]
        at.append((min(fits, key=lambda i, c=centred: abs(i - c)), side))
    (top, tall), (left, long) = at
    return wide[top + pad : top + pad + tall, left + pad : left + pad + long]


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, COORDINATES, COORDINATES, LENGTHS, LENGTHS)
def test_a_cut_lies_inside_the_frame_or_covers_it(height, width, x, y, w, h):
    frame = picture(height, width)
    w, h = min(w, 7.9 * max(height, width)), min(h, 7.9 * max(height, width))
    box = torch.tensor([x, y, x + w, y + h])
    x1, y1, x2, y2 = box.tolist()
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        with pytest.raises(DataError, match="lies in its frame"):
            cut(frame, box)
        return
    out = cut(frame, box)
    assert out.shape == (max(1, round(float(box[3] - box[1]))), max(1, round(float(box[2] - box[0]))), 3)
    assert np.array_equal(out, by_padding(frame, box.tolist()))


def test_cuts_that_can_be_told_by_eye():
    frame = picture(10, 20)
    assert np.array_equal(cut(frame, torch.tensor([3.0, 2, 7, 6])), frame[2:6, 3:7])
    assert np.array_equal(cut(frame, torch.tensor([-3.0, -2, 1, 2])), frame[:4, :4]), "shifted inside"
    assert np.array_equal(cut(frame, torch.tensor([18.0, 9, 22, 13])), frame[6:, 16:])
    high = cut(frame, torch.tensor([0.0, -2, 20, 18]))
    assert np.array_equal(high[2:12], frame), "it covers the frame"
    assert np.array_equal(high[:2], frame[:1].repeat(2, 0)), "beyond the edge the edge is repeated"
    assert np.array_equal(high[12:], frame[-1:].repeat(8, 0))
    out = cut(frame, torch.tensor([3.0, 2, 7, 6]))
    out[:] = 0
    assert frame[2:6, 3:7].any(), "the frame is its own"


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 5], [5, 5, 4, 9], [0, 0, NAN, 5], [0, 0, INF, 5], [0, 0, 1e5, 5], [1e9, 0, 1e9 + 99, 5]]
)
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(DataError, match="expected a box with an area"):
        cut(picture(10, 10), torch.tensor(box))


@pytest.mark.parametrize(
    "box", [[20, 0, 25, 5], [-5, 0, 0, 5], [0, 10, 5, 15], [0, -5, 5, 0], [64, 36, 90, 70], [30, 2, 34, 6]]
)
def test_a_box_outside_of_its_frame_is_refused(box):
    """Of whole frames a table of boxes was made for, of small copies of them it names places that are not there."""
    with pytest.raises(DataError, match=r"lies in its frame of 20x10 px, got .*; .*boxes\.csv .* another resolution"):
        cut(picture(10, 20), torch.tensor(box, dtype=torch.float32))
    assert cut(picture(10, 20), torch.tensor([19.9, 9.9, 24, 14])).shape == (4, 4, 3), "it touches the frame"


@settings(max_examples=50, deadline=None)
@given(SIDES, SIDES, st.integers(1, 4), st.integers(1, 4))
def test_shrinking_by_whole_numbers_averages_blocks(height, width, down, across):
    frame = picture(height * down, width * across)
    blocks = frame.reshape(height, down, width, across, 3).mean((1, 3))
    out = resized(frame, (height, width))
    assert (out.shape, out.dtype) == ((3, height, width), torch.uint8)
    assert np.abs(out.permute(1, 2, 0).numpy() - blocks).max() <= 0.5 + 1e-6


def test_growing_is_bilinear_also_on_one_side_alone():
    frame = picture(12, 10)
    expected = resize(frame, (30, 25), order=1, mode="edge", preserve_range=True)
    assert np.abs(resized(frame, (30, 25)).permute(1, 2, 0).numpy() - expected).max() <= 1
    shrunk = frame.reshape(6, 2, 10, 3).mean(1)
    mixed = resize(shrunk, (6, 25), order=1, mode="edge", preserve_range=True)
    assert np.abs(resized(frame, (6, 25)).permute(1, 2, 0).numpy() - mixed).max() <= 1.5
    assert np.array_equal(resized(frame, (12, 10)).permute(1, 2, 0).numpy(), frame)


def test_a_box_goes_with_its_frame():
    assert scaled(torch.tensor([2.0, 3, 10, 12]), (100, 200), (50, 400)).tolist() == [4, 1.5, 20, 6]
    assert scaled(torch.tensor([[2.0, 3, 10, 12]]), (100, 200), (100, 200)).tolist() == [[2, 3, 10, 12]]


# --- where the face is


def test_of_a_clip_that_is_cut_out_the_whole_frame_is_the_face():
    a = clip([picture(8, 9), picture(5, 7)], cropped=True, boxes=lambda i: pytest.fail("asked"))
    assert rows(face_boxes(a, [0, 1], None, Planted({}))) == [[0, 0, 9, 8], [0, 0, 7, 5]]


def test_the_data_goes_before_the_detector():
    frames = numbered(4)
    own = {1: torch.tensor([1.0, 1, 5, 5]), 3: torch.tensor([2.0, 2, 6, 6])}
    a = clip(frames, boxes=own.get)
    finder = Planted({0: [([0, 0, 9, 9], 0.9)], 2: [([20, 20, 40, 40], 0.9), ([2, 2, 5, 5], 0.6)]})
    assert rows(face_boxes(a, [0, 1, 2, 3], None, finder)) == [[0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 5, 5], [2, 2, 6, 6]]
    assert a.footage.asked == [0, 2], "the others are not decoded"
    assert rows(face_boxes(a, [0, 1, 3])) == [None, [1, 1, 5, 5], [2, 2, 6, 6]]
    again = clip(frames, boxes=own.get)
    assert rows(face_boxes(again, [2, 3], [frames[2], frames[3]], finder))[0] == [20, 20, 40, 40], "no face before it"
    assert again.footage.asked == []


def test_the_face_is_the_largest_times_score_and_then_the_same():
    large, surer, small = [10, 10, 30, 30], [0, 10, 18, 28], [40, 20, 50, 30]
    finder = Planted({
        0: [(small, 0.99), (large, 0.7), (surer, 0.9), ([0, 0, 60, 40], 0.49)],
        1: [(large, 0.99), ([2, 10, 20, 28], 0.5)],
        2: [],
        3: [([0, 0, 1, 1], 0.6), ([4, 11, 22, 30], 0.6), ([14, 10, 34, 30], 0.9)],
        4: [(small, 0.9), ([45, 20, 50, 30], 0.9)],
        5: [([float("nan")] * 4, 0.9), ([9, 9, 9, 12], 0.9)],
    })  # fmt: skip
    found = rows(face_boxes(clip(numbered(6)), range(6), None, finder))
    # 400 x 0.7 against 324 x 0.9; frame 3 goes on from frame 1; in frame 4 nothing overlaps the face any more
    assert found == [surer, [2, 10, 20, 28], None, [4, 11, 22, 30], small, None]


def test_only_faces_are_faces():
    found = {0: [([0, 0, 30, 30], 0.9, 0), ([5, 5, 9, 9], 0.9, 1)]}
    assert rows(face_boxes(clip(numbered(1)), [0], None, Planted(found, ("person", "Face")))) == [[5, 5, 9, 9]]
    assert rows(face_boxes(clip(numbered(1)), [0], None, Planted(found, ("head",)))) == [[0, 0, 30, 30]]
    with pytest.raises(ModelError, match="expected a class called face, got person, car"):
        face_boxes(clip(numbered(1)), [0], None, Planted(found, ("person", "car")))
    with pytest.raises(DataError, match="clip a: expected boxes of the faces"):
        face_boxes(clip(numbered(1)), [0])


def test_frames_of_one_size_are_found_together():
    frames = [*numbered(5), *numbered(2, (30, 30))]
    finder = Planted({i: [([i, 0, i + 9, 9], 0.9)] for i in range(5)})
    alone = rows(face_boxes(clip(frames), range(7), None, finder, batch=1))
    assert finder.batches == [(1, 3, 40, 60)] * 5 + [(1, 3, 30, 30)] * 2
    finder.batches.clear()
    assert rows(face_boxes(clip(frames), range(7), None, finder, batch=3)) == alone
    assert finder.batches == [(3, 3, 40, 60), (2, 3, 40, 60), (2, 3, 30, 30)]
    assert alone == [[i, 0, i + 9, 9] for i in (0, 1, 2, 3, 4, 0, 1)]


@pytest.mark.kit
@pytest.mark.slow
def test_a_real_detector_follows_a_real_face():
    whole = VideoFootage(kit("ffpp_c23_videos", "634.mp4")).read([0, 20])
    frames = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in whole]
    net = retinaface()
    found = face_boxes(clip(frames), [0, 1], frames, net)
    answers = net(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255)
    for box, answer in zip(found, answers, strict=True):
        sure = answer.boxes[answer.scores >= net.score_threshold]
        assert min((b - box).abs().amax() for b in sure) < 1e-3, "one of its confident boxes, as it stands"
    middles = [(b[:2] + b[2:]) / 2 for b in found]
    sides = [float((b[2:] - b[:2]).amax()) for b in found]
    assert (middles[1] - middles[0]).norm() < min(sides), "it is one face"
    face = cut(frames[0], square(found[0]))
    assert face.shape[:2] == (round(MARGIN * sides[0]),) * 2
    again = net(torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255)[0]
    best = again.boxes[again.scores.argmax()]
    assert again.scores.amax() > 0.9
    assert ((best[:2] + best[2:]) / 2 - face.shape[0] / 2).abs().amax() < 0.1 * sides[0], "in the middle of its crop"
