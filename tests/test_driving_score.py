"""The driving score against hand-worked numbers and a second implementation written with numpy and scipy alone."""

from __future__ import annotations

import hashlib
import io
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from audit.contracts import Detections
from audit.data.scenes import Scene
from audit.data.submissions import read_submission
from audit.errors import DataError
from audit.measures import driving
from audit.measures.driving import DrivingScore, Rule, SceneShare
from audit.measures.intervals import Resampling

FEW = settings(max_examples=40, deadline=None)
MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 255]))


def squares(count, shape=(1260, 2790), side=100):
    """A mask of that many squares apart from each other."""
    mask = np.zeros(shape, np.uint8)
    for i in range(count):
        mask[50 : 50 + side, 50 + 2 * side * i : 50 + side + 2 * side * i] = 255
    return mask


def shares_of(table):
    return [SceneShare(d, s, len(f), sum(f)) for d, scenes in table.items() for s, f in scenes.items()]


def second(table, mask, width, height):
    """Eq. 5 as it is printed, term by term; NaN for a void patch."""
    _, count = ndimage.label(mask > 0, structure=np.ones((3, 3)))
    if count > 5:
        return float("nan")
    over_detectors = 0.0
    for scenes in table.values():
        over_scenes = 0.0
        for frames in scenes.values():
            over_scenes += sum(1 for f in frames if f) / len(frames)
        over_detectors += over_scenes / len(scenes)
    worn = np.abs(mask.astype(np.float64) / 255).sum()
    return over_detectors / len(table) + 0.2 * (1 - worn / (width * height))


def detections(scores, labels, boxes=None):
    boxes = [[0, 0, 10, 10]] * len(scores) if boxes is None else boxes
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def test_a_frame_is_clear_where_nothing_attacked_reaches_the_threshold():
    assert driving.frame_clear(detections([], []), {2, 5, 7}, 0.5)
    assert driving.frame_clear(detections([0.9, 0.49], [0, 7]), {2, 5, 7}, 0.5)
    assert not driving.frame_clear(detections([0.1, 0.5], [2, 7]), {2, 5, 7}, 0.5)  # at the threshold counts


@pytest.mark.parametrize(
    ("count", "area"),
    [
        (0, 0.2),
        (1, 0.2 * (1 - 10_000 / 3_515_400)),
        (5, 0.2 * (1 - 50_000 / 3_515_400)),
        (6, 0.2 * (1 - 60_000 / 3_515_400)),
    ],
)
def test_hand_worked_scores(count, area):
    mask = squares(count)
    table = {
        "yolo": {"a": [True] * 60 + [False] * 180, "b": [True] * 120 + [False] * 120},
        "frcnn": {"a": [False] * 240, "b": [True] * 240},
    }
    score = DrivingScore(
        "truck",
        (Rule("connected regions", driving.regions(mask) <= 5, "at most 5", str(driving.regions(mask))),),
        tuple(shares_of(table)),
        driving.regions(mask),
        driving.area_term(mask),
    )
    assert score.regions == count
    assert score.area == pytest.approx(area, abs=1e-15)
    assert score.detection == (0.25 + 0.5 + 0.0 + 1.0) / 4
    assert score.void == (count == 6)
    assert score.score == (None if count == 6 else pytest.approx(0.4375 + area, abs=1e-15))


def test_scenes_of_different_length_weigh_the_same():
    shares = [SceneShare("d", "long", 1000, 0), SceneShare("d", "short", 1, 1)]
    assert driving.detection_term(shares) == 0.5


def test_nothing_is_never_zero():
    assert driving.detection_term([]) is None
    assert driving.detection_term([SceneShare("d", "s", 3, 3), SceneShare("d", "empty", 0, 0)]) is None
    assert driving.total(None, 0.5) is None
    assert driving.total(0.5, None) is None
    assert DrivingScore("truck", (), (), None, 0.2).score is None
    assert DrivingScore("truck", (), (SceneShare("d", "s", 1, 1),), None, None).score is None


@pytest.mark.parametrize(
    ("truck", "person", "printed"),
    [(0.79, 0.0, 0.63), (0.67, 0.19, 0.57), (0.45, 0.20, 0.40), (0.38, 0.20, 0.34), (0.39, 0.0, 0.31)],
)
def test_total_gives_the_competitions_own_table(truck, person, printed):
    """Table 4 of the report: the five best teams, to the two places that are printed."""
    assert driving.total(truck, person) == pytest.approx(printed, abs=0.005)


def test_a_warning_does_not_void():
    rules = (Rule("frames", False, "240", "3", voids=False),)
    score = DrivingScore("truck", rules, (SceneShare("d", "s", 1, 1),), 0, 0.2)
    assert not score.void
    assert score.score == pytest.approx(1.2)


@FEW
@given(
    mask=MASKS,
    frames=st.lists(st.lists(st.lists(st.booleans(), min_size=1), min_size=2, max_size=2), min_size=1, max_size=3),
)
def test_score_equals_the_second_implementation(mask, frames):
    table = {f"d{i}": {f"s{j}": f for j, f in enumerate(scenes)} for i, scenes in enumerate(frames)}
    height, width = mask.shape
    count = driving.regions(mask)
    ours = DrivingScore(
        "truck",
        (Rule("connected regions", count <= driving.MOST_REGIONS, "", ""),),
        tuple(shares_of(table)),
        count,
        driving.area_term(mask, (width, height)),
    ).score
    theirs = second(table, mask, width, height)
    assert ours is None if np.isnan(theirs) else ours == pytest.approx(theirs, abs=1e-12)


@FEW
@given(mask=MASKS)
def test_regions_equal_scipys(mask):
    for connectivity, structure in ((8, np.ones((3, 3))), (4, None)):
        assert driving.regions(mask, connectivity) == ndimage.label(mask, structure=structure)[1]
    assert driving.regions(mask, 8) <= driving.regions(mask, 4)


@FEW
@given(mask=hnp.arrays(np.uint8, (7, 9)))
def test_area_term_falls_with_every_pixel(mask):
    full = driving.area_term(mask, (9, 7))
    assert 0 <= full <= 0.2
    assert full == pytest.approx(0.2 * (1 - (mask / 255.0).mean()), abs=1e-12)
    less = mask.copy()
    less[3, 4] = 0
    assert driving.area_term(less, (9, 7)) >= full


def test_a_mask_of_another_size_has_no_area():
    with pytest.raises(ValueError, match="1260 rows"):
        driving.area_term(np.zeros((1260, 2789), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        driving.area_term(np.zeros((2, 2)), (2, 2))
    with pytest.raises(ValueError, match="4 or 8"):
        driving.regions(np.zeros((2, 2), np.uint8), 6)


def test_only_the_competitions_numbers_are_comparable():
    good = driving.comparable(2, {f"s{i}": 240 for i in range(5)})
    assert [r.ok for r in good] == [True] * 3
    bad = driving.comparable(1, {"a": 240, "b": 12})
    assert [(r.ok, r.got) for r in bad] == [(False, "1"), (False, "2"), (False, "b: 12")]
    assert not any(r.voids for r in good + bad)
    assert [r.ok for r in driving.comparable(2, {})] == [True, False, False]


# the controls' own measure


def frame(boxes, ignore, group="v"):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    n = len(boxes)
    return Scene(
        id=f"{group}-{id(boxes)}", group=group, size=(100, 100), boxes=boxes, labels=torch.zeros(n, dtype=torch.int64),
        ignore=torch.tensor(ignore, dtype=torch.bool).reshape(n), digest="0", load=lambda: torch.zeros(3, 100, 100),
    )  # fmt: skip


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    own = (a[2] - a[0]) * (a[3] - a[1])
    union = own + (b[2] - b[0]) * (b[3] - b[1]) - both
    return (both / union if union > 0 else 0.0), (both / own if own > 0 else 0.0)


def found_by_hand(found, scene, attacked, threshold):
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        if score < threshold or label not in attacked:
            continue
        counted = [b for b, i in zip(scene.boxes.tolist(), scene.ignore.tolist(), strict=True) if not i]
        beside = [b for b, i in zip(scene.boxes.tolist(), scene.ignore.tolist(), strict=True) if i]
        if any(overlap(box, b)[0] >= 0.5 for b in counted):
            return True
        if not any(max(overlap(box, b)) >= 0.5 for b in beside):
            return True
    return False


def test_what_sits_on_an_ignored_object_does_not_count():
    parked = frame([[0, 0, 40, 40], [60, 60, 90, 90]], [True, False])
    cases = [
        ([2, 2, 40, 40], False),  # the parked car itself
        ([5, 5, 15, 15], False),  # a piece of it, wholly inside, of little IoU
        ([60, 60, 90, 90], True),
        ([30, 30, 80, 80], True),  # mostly beside it: something is found here
    ]
    for box, expected in cases:
        got = driving.frames_found([detections([0.9], [2], [box])], [parked], {2}, 0.5)
        assert got.tolist() == [expected], box
    crowd = frame([[0, 0, 100, 100], [60, 60, 90, 90]], [True, False])
    got = driving.frames_found([detections([0.9], [2], [[60, 60, 90, 91]])], [crowd], {2}, 0.5)
    assert got.tolist() == [True], "the object itself is found, although an ignored region lies all around it"
    with pytest.raises(ValueError, match="1 frames"):
        driving.frames_found([], [parked], {2}, 0.5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_frames_found_equals_plain_loops(seed):
    rng = np.random.default_rng(seed)

    def some(n):
        low = rng.integers(0, 60, (n, 2))
        return np.concatenate([low, low + rng.integers(0, 40, (n, 2))], 1).tolist()

    scenes, found = [], []
    for _ in range(5):
        k, d = int(rng.integers(0, 4)), int(rng.integers(0, 3))
        scenes.append(frame(some(k), rng.random(k) < 0.6))
        found.append(detections(rng.integers(0, 11, d) / 10, rng.integers(0, 3, d), some(d)))
    ours = driving.frames_found(found, scenes, {0, 2}, 0.5)
    assert ours.tolist() == [found_by_hand(f, s, {0, 2}, 0.5) for f, s in zip(found, scenes, strict=True)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_carriers_found_equals_plain_loops(seed):
    rng = np.random.default_rng(seed)

    def some(n):
        low = rng.integers(0, 20, (n, 2))
        return np.concatenate([low, low + rng.integers(15, 40, (n, 2))], 1).tolist()

    def iou(a, b):
        w, h = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
        return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)

    scenes, found = [], []
    for _ in range(5):
        k, d = int(rng.integers(0, 4)), int(rng.integers(0, 4))
        scenes.append(frame(some(k), rng.random(k) < 0.4))
        found.append(detections(rng.integers(0, 11, d) / 10, rng.integers(0, 3, d), some(d)))
    ours = driving.carriers_found(found, scenes, {0, 2}, 0.5)
    for got, f, s in zip(ours, found, scenes, strict=True):
        wanted = any(
            score >= 0.5 and label in (0, 2) and not ignored and iou(box, own) >= 0.5
            for box, score, label in zip(f.boxes.tolist(), f.scores.tolist(), f.labels.tolist(), strict=True)
            for own, ignored in zip(s.boxes.tolist(), s.ignore.tolist(), strict=True)
        )
        assert got == wanted
    with pytest.raises(ValueError, match="expected detections for"):
        driving.carriers_found(found[1:], scenes, {0}, 0.5)


@FEW
@given(rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcd")), max_size=40))
def test_frames_kept_counts_what_was_found_clean(rows):
    clean = np.array([r[0] for r in rows], dtype=bool)
    patched = np.array([r[1] for r in rows], dtype=bool)
    kept = driving.frames_kept(clean, patched, [r[2] for r in rows], Resampling(seed=1, draws=200, cluster="videos"))
    before = [r for r in rows if r[0]]
    still = [r for r in before if r[1]]
    assert kept.value == (len(still) / len(before) if before else None)
    if before:
        assert (kept.k, kept.n) == (len(still), len(before))
    if kept.low is not None:
        assert kept.low <= kept.value <= kept.high


def test_frames_kept_is_resampled_by_video():
    """Ten videos, all of a kind inside: the interval is that of ten trials, not of a thousand."""
    clean = np.ones(1000, dtype=bool)
    patched = np.arange(1000) // 100 < 5
    how = Resampling(seed=1, cluster="videos")
    by_video = driving.frames_kept(clean, patched, [str(i // 100) for i in range(1000)], how)
    by_frame = driving.frames_kept(clean, patched, [str(i) for i in range(1000)], how)
    assert by_video.value == by_frame.value == 0.5
    assert by_video.high - by_video.low > 0.4
    assert by_frame.high - by_frame.low < 0.1
    with pytest.raises(ValueError, match="in step"):
        driving.frames_kept(clean, patched[:5], ["a"] * 1000, how)


# submitted files


def save(path, array, **how):
    Image.fromarray(array).save(path, **how)
    return path


def submitted(tmp_path, mask, patch=None, canvas=None):
    patch = np.where(mask[..., None] > 0, np.uint8(90), np.uint8(0)).repeat(3, 2) if patch is None else patch
    canvas = (mask.shape[1], mask.shape[0]) if canvas is None else canvas
    return read_submission(save(tmp_path / "p.png", patch), save(tmp_path / "m.png", mask), canvas=canvas)


def broken(submission):
    return [r.name for r in submission.rules if r.voids and not r.ok]


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_a_submission_of_the_real_canvas(tmp_path, count):
    found = submitted(tmp_path, squares(count))
    assert found.regions == count
    assert broken(found) == (["connected regions"] if count == 6 else [])
    assert all(r.ok for r in found.rules if r.name != "connected regions")
    assert found.pixels.shape == (1260, 2790, 3)
    assert {role: d["path"] for role, d in found.digests.items()} == {
        "patch": str(tmp_path / "p.png"),
        "mask": str(tmp_path / "m.png"),
    }


def test_digests_of_files_with_one_name(tmp_path):
    files = {role: tmp_path / role / "truck.png" for role in ("patch", "mask")}
    for role, shape in (("patch", (40, 60, 3)), ("mask", (40, 60))):
        files[role].parent.mkdir()
        Image.fromarray(np.full(shape, 255, np.uint8)).save(files[role])
    found = read_submission(files["patch"], files["mask"], canvas=(60, 40)).digests
    assert found == {
        role: {"path": str(f), "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for role, f in files.items()
    }
    assert len({d["sha256"] for d in found.values()}) == 2


def test_rules_that_void_and_rules_that_warn(tmp_path):
    mask = np.zeros((20, 40), np.uint8)
    mask[4:10, 4:20] = 255
    assert broken(submitted(tmp_path, mask)) == []
    assert broken(submitted(tmp_path, mask, canvas=(40, 21))) == [
        "patch has the canvas' size",
        "mask has the canvas' size",
    ]
    soft = mask.copy()
    soft[4, 4] = 128
    assert broken(submitted(tmp_path, soft)) == ["mask is binary"]
    assert broken(submitted(tmp_path, mask, patch=mask)) == ["patch is 8-bit RGB"]
    alpha = np.full((20, 40, 4), 255, np.uint8)
    assert broken(submitted(tmp_path, mask, patch=alpha)) == ["patch is 8-bit RGB"]
    loud = submitted(tmp_path, mask, patch=np.full((20, 40, 3), 7, np.uint8))
    assert broken(loud) == []
    assert [r.got for r in loud.rules if not r.ok][1:] == [f"{20 * 40 - 6 * 16} px of the patch outside, not stuck"]


def test_a_mask_in_three_equal_channels_will_do(tmp_path):
    mask = np.zeros((20, 40), np.uint8)
    mask[4:10, 4:20] = 255
    patch = save(tmp_path / "p.png", np.zeros((20, 40, 3), np.uint8))
    equal = save(tmp_path / "m.png", mask[..., None].repeat(3, 2))
    found = read_submission(patch, equal, canvas=(40, 20))
    assert broken(found) == []
    assert np.array_equal(found.mask, mask)
    coloured = mask[..., None].repeat(3, 2)
    coloured[5, 5, 1] = 0
    assert broken(read_submission(patch, save(tmp_path / "m.png", coloured), canvas=(40, 20))) == ["mask channels"]


def test_sixteen_bits_are_not_taken_for_eight(tmp_path):
    """Pillow opens a 16-bit RGB PNG as if it had 8."""
    import struct

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"\x12\x34" * 3 * 40
    deep = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 20, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 20))
        + chunk(b"IEND", b"")
    )
    assert Image.open(io.BytesIO(deep)).mode == "RGB"
    (tmp_path / "p.png").write_bytes(deep)
    mask = save(tmp_path / "m.png", np.zeros((20, 40), np.uint8))
    found = read_submission(tmp_path / "p.png", mask, canvas=(40, 20))
    assert broken(found) == ["patch is 8-bit RGB"]
    assert [r.got for r in found.rules if r.name == "patch is 8-bit RGB"] == ["16-bit RGB"]


def test_damaged_and_foreign_files_are_rules_and_missing_ones_errors(tmp_path):
    mask = save(tmp_path / "m.png", np.zeros((20, 40), np.uint8))
    good = save(tmp_path / "p.png", np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    data = good.read_bytes()
    for bad in (b"", b"GIF89a", data[:20], data[:-40], data[:60] + bytes([data[60] ^ 1]) + data[61:]):
        good.write_bytes(bad)
        assert broken(read_submission(good, mask, canvas=(40, 20))) == ["patch is a PNG"], bad[:10]
    with pytest.raises(DataError, match=r"nowhere\.png: expected a PNG file"):
        read_submission(tmp_path / "nowhere.png", mask, canvas=(40, 20))
    # a header that promises 10 gigapixels is never decoded
    huge = data[:16] + (100_000).to_bytes(4, "big") * 2 + data[24:]
    good.write_bytes(huge)
    assert broken(read_submission(good, mask, canvas=(40, 20))) == ["patch has the canvas' size"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_second_header_is_a_broken_rule(tmp_path, mode):
    """Pillow goes by the later one: other channels, or another size, than the rules looked at."""
    mask = save(tmp_path / "m.png", np.zeros((20, 40), np.uint8))
    first = save(tmp_path / "p.png", np.zeros((20, 40, 3), np.uint8)).read_bytes()[8:33]
    hidden = Image.new(mode, (40, 20) if mode == "L" else (400, 200))
    hidden.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[:8] + first + data[8:])
    found = read_submission(tmp_path / "p.png", mask, canvas=(40, 20))
    assert (broken(found), found.pixels) == (["patch is a PNG"], None)
    assert "more than one header" in [r.got for r in found.rules]
