"""Evidence pictures: stored by content, drawn so that they can be told apart, chosen without favour."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audit.contracts import Detections
from audit.evidence import FALSE, FOUND, MISSED, EvidenceStore, difference, draw, draw_matches, pick_cases, window
from audit.measures.matching import match

GREY = np.full((256, 256, 3), 120, dtype=np.uint8)
BOX = (60, 60, 180, 180)


def share(picture, colour):
    return float((picture == np.array(colour, dtype=np.uint8)).all(2).mean())


def along_top(picture, box=BOX, scale=2):
    """Brightness under the middle of the line along the top of a box."""
    y = int(box[1] * scale)
    return picture[y, int(box[0] * scale) : int(box[2] * scale)].astype(int)


def strokes(line, colour):
    """Number of separate pieces of a colour along a line."""
    on = (np.abs(line - np.array(colour)).sum(1) < 30).astype(int)
    return int((np.diff(on, prepend=0) == 1).sum())


def test_a_picture_is_stored_once_under_its_digest_and_reads_back(tmp_path):
    store = EvidenceStore(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    e = store.picture(pixels, "patch", "the patch", "worst")
    again = store.picture(pixels.copy(), "file", "the same")
    path = tmp_path / e.path
    raw = path.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == e.sha256 == again.sha256
    assert e.path == again.path == f"evidence/{e.sha256[:16]}.png"
    assert (e.role, e.caption, e.case, e.width_px, e.height_px) == ("patch", "the patch", "worst", 30, 20)
    assert (np.asarray(Image.open(path)) == pixels).all()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_workers_that_store_the_same_picture_do_not_tear_it(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: EvidenceStore(tmp_path).picture(GREY, "clean", "x"), range(40)))
    assert len({e.path for e in made}) == 1
    assert hashlib.sha256((tmp_path / made[0].path).read_bytes()).hexdigest() == made[0].sha256
    assert len(list((tmp_path / "evidence").iterdir())) == 1


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((3, 8, 8), np.uint8)])
def test_what_is_no_picture_is_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="expected uint8"):
        EvidenceStore(tmp_path).picture(bad, "clean", "x")


def test_found_is_one_line_missed_is_dashes_and_false_is_dots():
    found, missed = draw(GREY, truth=[BOX], found=[True]), draw(GREY, truth=[BOX], found=[False])
    false = draw(GREY, false=[BOX])
    assert strokes(along_top(found), FOUND) == 1
    assert 3 <= strokes(along_top(missed), MISSED) <= 10
    assert strokes(along_top(false), FALSE) > 2 * strokes(along_top(missed), MISSED)
    assert share(found, FOUND) > share(missed, MISSED) > 0.5 * share(false, FALSE) > 0


def test_without_colour_and_at_256_px_the_three_still_differ():
    def small(picture):
        grey = Image.fromarray(picture).convert("L")
        return np.asarray(grey.resize((256, 256), Image.Resampling.LANCZOS)).astype(int)

    rows = [small(draw(GREY, **how))[60, 64:176] for how in (
        {"truth": [BOX], "found": [True]}, {"truth": [BOX], "found": [False]}, {"false": [BOX]})]  # fmt: skip
    steps = [int((np.abs(np.diff(r)) > 15).sum()) for r in rows]
    assert steps[0] == 0
    assert 0 < steps[1] < 0.6 * steps[2]


@pytest.mark.parametrize("tone", [0, 120, 255])
def test_lines_stand_out_from_any_background(tone):
    flat = np.full((256, 256, 3), tone, dtype=np.uint8)
    for how in ({"truth": [BOX], "found": [True]}, {"truth": [BOX], "found": [False]}, {"regions": [BOX]}):
        changed = np.abs(draw(flat, **how).astype(int) - tone).max(2)
        assert (changed > 80).mean() > 0.005


@pytest.mark.parametrize(
    ("shape", "expected"), [((64, 64), (256, 256)), ((900, 1800), (256, 512)), ((300, 100), (512, 171))]
)
def test_pictures_have_one_size_whatever_the_image(shape, expected):
    assert draw(np.zeros((*shape, 3), dtype=np.uint8)).shape == (*expected, 3)


def test_boxes_stay_on_their_objects_when_a_window_is_cut_and_scaled():
    image = np.zeros((600, 800, 3), dtype=np.uint8)
    out = draw(image, truth=[(400, 300, 440, 340)], found=[True], window=(350, 250, 478, 378))
    blue = np.argwhere((out == FOUND).all(2))
    assert out.shape == (512, 512, 3)
    assert blue.min(0).tolist() == pytest.approx([200, 200], abs=3)
    assert blue.max(0).tolist() == pytest.approx([360, 360], abs=3)


def test_boxes_partly_or_wholly_outside_are_no_trouble():
    boxes = [(-50, -50, 20, 20), (240, 240, 400, 400), (1000, 1000, 1100, 1100), (5, 5, 5, 5)]
    out = draw(GREY, truth=boxes, found=[True, False] * 2, labels=["a"] * 4, false=boxes, regions=boxes)
    assert out.shape == (512, 512, 3)


def test_labels_do_not_lie_on_each_other_and_errors_are_named_first():
    boxes = [(60 + i, 60, 100 + i, 100) for i in range(8)]
    plain = draw(GREY, truth=boxes, found=[True] * 7 + [False])
    named = draw(GREY, truth=boxes, found=[True] * 7 + [False], labels=["0.99"] * 7 + ["missed"])
    changed = (plain != named).any(2)
    # the missed one's frame colour is that of a label's edge as well
    assert share(named, MISSED) > share(plain, MISSED)
    assert 0.002 < changed.mean() < 0.03


def test_matches_are_drawn_at_the_threshold_and_ignored_ones_left_out():
    truth = torch.tensor([[20.0, 20, 80, 80], [120, 20, 180, 80], [20, 120, 80, 180]])
    d = Detections(
        torch.cat([truth, torch.tensor([[150.0, 150, 220, 220]])]),
        torch.tensor([0.9, 0.3, 0.8, 0.7]),
        torch.zeros(4).long(),
    )
    m = match(d, truth, torch.zeros(3).long(), torch.tensor([False, False, True]))
    at = {t: draw_matches(GREY, m, t) for t in (0.5, 0.2, 0.95)}
    assert strokes(along_top(at[0.5], (20, 20, 80, 80)), FOUND) == 1
    assert strokes(along_top(at[0.5], (120, 20, 180, 80)), MISSED) > 1
    assert strokes(along_top(at[0.2], (120, 20, 180, 80)), FOUND) == 1
    assert share(at[0.5], FALSE) > 0 == share(at[0.95], FALSE)
    assert (at[0.5][250:350, 40:150] == 120).all()  # the ignored one


def test_the_image_handed_in_is_not_drawn_on():
    image = GREY.copy()
    draw(image, truth=[BOX], found=[True], regions=[BOX])
    assert (image == GREY).all()


def test_a_difference_of_one_level_shows_and_none_is_black():
    changed = GREY.copy()
    changed[100:140, 100:140] += 1
    out = difference(GREY, changed)
    assert out[210:270, 210:270].min() >= 40
    assert out[:190].max() == 0
    assert difference(GREY, GREY).max() == 0
    assert (difference(np.zeros_like(GREY), np.full_like(GREY, 255)) == 255).all()
    with pytest.raises(ValueError, match="one shape"):
        difference(GREY, GREY[:10])


def test_a_window_shows_most_objects_and_large_ones_need_none():
    small = np.array([[10, 10, 30, 30], [700, 500, 720, 520], [730, 510, 750, 530], [740, 540, 760, 560]])
    x1, y1, x2, y2 = window(small, (768, 1024))
    assert (x2 - x1, y2 - y1) == (140, 105)
    for b in small[1:]:
        assert min(b[:2] - [x1, y1]) >= 0
        assert min([x2, y2] - b[2:]) >= 0
    assert window([(10, 10, 300, 300)], (400, 500)) is None
    assert window([], (400, 500)) is None


@given(st.lists(st.tuples(st.floats(-20, 400), st.floats(-20, 300), st.floats(0, 200), st.floats(0, 200)), max_size=6))
def test_a_window_lies_inside_the_image(rows):
    w = window([(x, y, x + a, y + b) for x, y, a, b in rows], (300, 400))
    if w is not None:
        assert 0 <= w[0] < w[2] <= 400
        assert 0 <= w[1] < w[3] <= 300


def test_cases_are_the_worst_the_median_and_a_survivor():
    kept = [0.5, 1.0, None, 0.0, 0.75, 0.25]
    assert pick_cases(kept) == {"worst": 3, "median": 0, "survivor": 1}
    assert pick_cases([0.4]) == {"worst": 0}
    assert pick_cases([0.4, 0.2]) == {"worst": 1, "survivor": 0}
    assert set(pick_cases([0.0] * 5)) == {"worst", "median"}
    assert pick_cases([None, None]) == {} == pick_cases([])


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30), st.integers(0, 99))
def test_cases_are_distinct_repeatable_and_in_order(kept, seed):
    cases = pick_cases(kept, seed=seed)
    assert cases == pick_cases(kept, seed=seed)
    assert len(set(cases.values())) == len(cases)
    values = [kept[cases[c]] for c in ("worst", "median", "survivor") if c in cases]
    assert None not in values
    assert values == sorted(values)
    known = [v for v in kept if v is not None]
    if known:
        assert values[0] == min(known)
    if "survivor" in cases:
        assert values[-1] == max(known) > 0


def test_equals_are_drawn_by_lot_not_by_order():
    firsts = {pick_cases([0.0] * 20, seed=s)["worst"] for s in range(30)}
    assert len(firsts) > 8
