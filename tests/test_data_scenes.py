"""Split, sample, digest, classes and groups of Scenes, and how boxes are made sound."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.data import Scene, Scenes, group_by
from audit.data.assemble import as_box, sound
from audit.data.groups import grouped
from audit.errors import DataError


def scene(id_, group=None, boxes=((1, 2, 3, 5),), labels=None, digest=None):
    n = len(boxes)
    return Scene(
        id=id_,
        group=group or id_,
        size=(8, 8),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels if labels is not None else [0] * n),
        ignore=torch.zeros(n, dtype=torch.bool),
        digest=digest or hashlib.sha256(id_.encode()).hexdigest(),
        load=lambda: torch.zeros(3, 8, 8, dtype=torch.uint8),
    )


def make(*scenes, classes=("face",)):
    return Scenes(scenes=tuple(scenes), classes=classes, name="made", source="test")


many = st.lists(st.tuples(st.text(max_size=6), st.integers(0, 30)), min_size=1, max_size=60, unique_by=lambda t: t[0])
shares = st.floats(0.05, 0.95)


@given(many, shares)
@settings(deadline=None)
def test_split_keeps_groups_whole_and_loses_nothing(items, share):
    data = make(*(scene(i, f"g{g}") for i, g in items))
    if len({g for _, g in items}) < 2:
        with pytest.raises(DataError, match="at least two groups"):
            data.split(share)
        return
    craft, held_out = data.split(share)
    assert len(craft) > 0
    assert len(held_out) > 0
    assert {s.group for s in craft}.isdisjoint(s.group for s in held_out)
    assert sorted(s.id for s in [*craft, *held_out]) == sorted(i for i, _ in items)


@given(many, shares, st.randoms())
@settings(deadline=None)
def test_split_does_not_depend_on_order(items, share, rng):
    if len({g for _, g in items}) < 2:
        return
    shuffled = items[:]
    rng.shuffle(shuffled)
    a, b = (make(*(scene(i, f"g{g}") for i, g in x)).split(share) for x in (items, shuffled))
    for one, other in zip(a, b, strict=True):
        assert {s.id for s in one} == {s.id for s in other}


@given(st.sets(st.integers(0, 10**6), min_size=40, max_size=80))
@settings(deadline=None, max_examples=30)
def test_split_does_not_depend_on_company(numbers):
    everything = sorted(numbers)
    whole = {s.id for s in make(*(scene(str(i)) for i in everything)).split(0.5)[0]}
    part = everything[::2]
    assert {s.id for s in make(*(scene(str(i)) for i in part)).split(0.5)[0]} == whole & {str(i) for i in part}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_split_has_about_the_share_that_was_asked(share):
    n = 4000
    craft, _ = make(*(scene(str(i)) for i in range(n))).split(share)
    assert abs(len(craft) - n * share) < 4 * math.sqrt(n * share * (1 - share))


def test_another_salt_is_another_split():
    data = make(*(scene(str(i)) for i in range(100)))
    assert {s.id for s in data.split(0.5)[0]} != {s.id for s in data.split(0.5, salt="x")[0]}


def test_sample_is_by_seed_never_the_first():
    data = make(*(scene(f"{i:03d}") for i in range(200)))
    ids = [tuple(s.id for s in data.sample(20, seed)) for seed in range(20)]
    assert ids[0] == tuple(s.id for s in data.sample(20, 0))
    assert len(set(ids)) == 20
    first = tuple(s.id for s in data[:20])
    assert first not in ids
    assert len({i for chosen in ids for i in chosen}) > 150  # 1 - 0.9^20 of 200 is 176
    assert [s.id for s in make(*reversed(data.scenes)).sample(20, 3)] == list(ids[3])
    assert len(data.sample(200, 0)) == 200


def test_digest_is_of_content_not_of_order():
    a, b = scene("a"), scene("b")
    base = make(a, b).digest
    assert make(b, a).digest == base
    assert make(replace(a, load=lambda: None), b).digest == base


@pytest.mark.parametrize(
    "change",
    [
        {"id": "c"},
        {"group": "other"},
        {"digest": "0" * 64},
        {"boxes": torch.tensor([[1.0, 2, 3, 5.0001]])},
        {"labels": torch.tensor([1])},
        {"ignore": torch.tensor([True])},
        {"subsets": {"easy": torch.tensor([True])}},
    ],
)
def test_digest_sees_every_change(change):
    a, b = scene("a"), scene("b")
    assert make(replace(a, **change), b).digest != make(a, b).digest


def test_digest_sees_classes_and_subset_values():
    assert make(scene("a"), classes=("cat",)).digest != make(scene("a")).digest
    easy, hard = (replace(scene("a"), subsets={"easy": torch.tensor([v])}) for v in (True, False))
    assert make(easy).digest != make(hard).digest


def test_for_classes_maps_names_and_ignores_the_rest():
    boxes = ((0, 0, 4, 4),) * 3
    data = make(
        scene("a", boxes=boxes, labels=[0, 1, 2]), scene("b", boxes=()), classes=("Traffic Light", "dog", "CAR")
    )
    out = data.for_classes(["person", "car", "traffic_light"])
    assert out.classes == ("person", "car", "traffic_light")
    assert out[0].labels[[0, 2]].tolist() == [2, 1]
    assert out[0].ignore.tolist() == [False, True, False]
    assert out.objects == 2
    only = data.for_classes(["person", "car", "traffic_light"], wanted=["car"])
    assert only[0].ignore.tolist() == [True, True, False]
    assert data[0].ignore.tolist() == [False] * 3


def test_for_classes_says_when_nothing_is_left():
    data = make(scene("a"), classes=("dog",))
    with pytest.raises(DataError, match=r"expected objects of class face.*got classes dog"):
        data.for_classes(["face"])


def test_small_objects_are_ignored_by_their_shorter_side():
    data = make(scene("a", boxes=((0, 0, 8, 3), (0, 0, 4, 4), (0, 0, 3.9, 8))), scene("b", boxes=()))
    assert data.smaller_ignored(4)[0].ignore.tolist() == [True, False, True]


def test_slices_stay_data_sets():
    data = make(scene("a"), scene("b"))
    assert isinstance(data[:1], Scenes)
    assert data[1].id == "b"
    assert [s.id for s in data] == ["a", "b"]


coordinate = st.one_of(st.floats(-50, 150), st.just(math.nan), st.just(math.inf), st.just(-math.inf), st.just(1e300))


@given(st.lists(st.tuples(*[coordinate] * 4), max_size=8), st.booleans())
@settings(deadline=None)
def test_boxes_end_up_inside_their_image(boxes, relative):
    height, width = 60, 100
    out, bad, clipped = sound(boxes, (height, width), relative=relative)
    assert out.dtype == torch.float32
    assert out.shape == (len(boxes), 4)
    assert bool(out.isfinite().all())
    assert bool((out >= 0).all())
    assert bool((out[:, [0, 2]] <= width).all())
    assert bool((out[:, [1, 3]] <= height).all())
    assert bool((out[:, :2] <= out[:, 2:]).all())
    scale = (width, height, width, height) if relative else (1, 1, 1, 1)
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = (v * f for v, f in zip(box, scale, strict=True))
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            assert bad[i]
            continue
        inner = min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)
        area = inner[2] - inner[0] > 1e-5 and inner[3] - inner[1] > 1e-5
        if area:
            assert not bad[i]
            assert out[i].tolist() == pytest.approx(inner, abs=1e-4)
            lost = max(abs(a - b) for a, b in zip(inner, (x1, y1, x2, y2), strict=True))
            assert bool(clipped[i]) == (lost > 1) or lost == pytest.approx(1, abs=1e-4)
        elif inner[2] <= inner[0] or inner[3] <= inner[1]:
            assert bad[i]


@pytest.mark.parametrize("value", [None, "1234", [1, 2, 3], [1, 2, 3, "x"], {}, [1, 2, 3, None], [10**400, 1, 2, 3], 5])
def test_what_is_no_box_becomes_nan(value):
    assert all(map(math.isnan, as_box(value)))


def test_copies_join_their_groups_whatever_the_order():
    a, b, c, d = scene("a", "z"), scene("b", "y", digest="1" * 64), scene("c", "x", digest="1" * 64), scene("d", "x")
    for order in ((a, b, c, d), (d, c, b, a), (c, a, d, b)):
        assert {s.id: s.group for s in grouped(order)} == {"a": "z", "b": "x", "c": "x", "d": "x"}


def test_copies_join_groups_through_others():
    one, two = "1" * 64, "2" * 64
    items = [scene("a", "g1", digest=one), scene("b", "g2", digest=one), scene("c", "g2"), scene("d", "g2", digest=two)]
    items += [scene("e", "g3", digest=two), scene("f", "g4")]
    assert [s.group for s in grouped(items)] == ["g1"] * 5 + ["g4"]


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("street_000123.jpg", "street"),
        ("a/street_000123.jpg", "a/street"),
        ("b/street-frame12.png", "b/street"),
        ("clip.0007.jpg", "clip"),
        ("portrait.jpg", "portrait"),
        ("cam1/000001.jpg", "cam1"),
    ],
)
def test_frames_are_grouped_by_video(name, video):
    assert group_by(make(scene(name)), "video")[0].group == f"video:{video}"


def test_folder_rule_and_an_unknown_one():
    data = make(scene("ann/1.jpg"), scene("ann/2.jpg"), scene("bob/1.jpg"))
    assert [s.group for s in group_by(data, "folder")] == ["folder:ann", "folder:ann", "folder:bob"]
    with pytest.raises(DataError, match="image, folder or video"):
        group_by(data, "person")
