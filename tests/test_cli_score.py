"""``python -m audit score driving`` on rendered frames and planted detectors whose answers follow from pixel counts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from audit.cli import main
from audit.contracts import Detections
from audit.data import open_scenes
from audit.data.scenes import Scene, Scenes
from audit.data.submissions import read_submission
from audit.errors import DataError, ModelError
from audit.execution import Execution
from suites import score_driving
from tests.test_cli import one_sentence, typed

torch.set_num_threads(1)

MODEL = """
import torch
from audit.contracts import Detections


class Counting:
    '''Finds one truck where the image has red: its score is the amount, in thousands of pixels.'''

    classes = {classes}
    score_threshold = {threshold}

    def __call__(self, images):
        out = []
        for amount in (images[:, 0] - (images[:, 1] + images[:, 2]) / 2).clamp(min=0).sum((1, 2)).tolist():
            score = min(1.0, amount / 1000)
            some = int(score > 0.01)
            out.append(Detections(
                torch.tensor([[0.0, 0, 9, 9]] * some).reshape(-1, 4),
                torch.tensor([score] * some),
                torch.full((some,), {label}),
            ))
        return out


def model(device):
    return Counting()
"""
VEHICLES = ("bicycle", "car", "truck", "bus")
FRAMES = {
    "a": [(20, 20), (40, 20), (40, 20), (12, 10)],
    "b": [(40, 20), (40, 20)],
}
"""Per scene the size of each frame's truck: 400, 800, 800, 120 and 800, 800 px of red."""


def write_model(folder, name, threshold, classes=VEHICLES, label=2):
    path = folder / name
    path.write_text(MODEL.format(threshold=threshold, classes=list(classes), label=label))
    return path


@pytest.fixture
def street(tmp_path):
    """Grey frames with one red truck each, boxes and videos in a CSV."""
    rows = ["image,x1,y1,x2,y2,class,group"]
    for scene, sizes in FRAMES.items():
        for i, (w, h) in enumerate(sizes):
            image = np.full((64, 96, 3), 100, np.uint8)
            image[0, 0] = i, 0, 0 if scene == "a" else 9  # no two frames are copies
            x, y = 10 + i, 20
            image[y : y + h, x : x + w] = 255, 0, 0
            name = f"{scene}_{i:03d}.png"
            Image.fromarray(image).save(tmp_path / name)
            rows.append(f"{name},{x},{y},{x + w},{y + h},truck,{scene}#{i // 2}")
    (tmp_path / "truck.csv").write_text("\n".join(rows))
    return tmp_path


def submit(folder, blocks=1, canvas=(80, 40), name="patch"):
    """A blue patch over the upper half of the canvas, in that many regions (0 to 6) of the same height."""
    mask = np.zeros((canvas[1], canvas[0]), np.uint8)
    for i in range(blocks):
        left, right = (canvas[0] * i // blocks, canvas[0] * (i + 1) // blocks)
        mask[: canvas[1] // 2, left + (blocks > 1) * 2 : right] = 255
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    pixels[mask > 0] = 0, 0, 255
    Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}-mask.png")
    return mask


def words(folder, models, *more, canvas="80x40"):
    return [
        "score", "driving", *(w for m in models for w in ("--model", str(m))),
        "--truck", str(folder / "patch.png"), "--truck-mask", str(folder / "patch-mask.png"),
        "--truck-data", str(folder / "truck.csv"), "--canvas", canvas, "--device", "cpu", *map(str, more),
    ]  # fmt: skip


def test_a_score_by_hand_as_a_process(street):
    """The patch covers half of every truck, which leaves 200, 400, 400, 60 and 400, 400 px of red.

    At 300 px two of four and none of two frames are clear; at 100 px one of four and none.
    """
    submit(street)
    models = [write_model(street, "near.py", 0.3), write_model(street, "far.py", 0.1)]
    out = street / "score.json"
    code, text, err = typed(*words(street, models, "--json", out), cwd=street)
    assert (code, err) == (0, "")
    found = json.loads(out.read_text())["tasks"]["truck"]
    rows = {(s["detector"], s["scene"]): (s["frames"], s["clear"], s["clean"]) for s in found["shares"]}
    assert rows == {
        ("near", "a"): (4, 2, 1),
        ("near", "b"): (2, 0, 0),
        ("far", "a"): (4, 1, 0),
        ("far", "b"): (2, 0, 0),
    }
    assert found["detection"] == pytest.approx(((2 / 4 + 0) / 2 + (1 / 4 + 0) / 2) / 2)
    assert found["area"] == pytest.approx(0.2 * (1 - 1600 / 3200))
    assert found["score"] == pytest.approx(0.1875 + 0.1)
    assert "truck: frames 0.187500 + area 0.100000 = score 0.287500" in text
    assert "total = 0.8 truck + 0.2 person = – (needs person as well)" in text
    assert "not comparable with the competition's own scores (canvas, scenes, frames of a scene)" in text
    assert "joined over 8 neighbours" in text
    for role, file in (("patch", street / "patch.png"), ("mask", street / "patch-mask.png")):
        assert found["files"][role] == {
            "path": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }


def run(capsys, *given):
    code = main([str(g) for g in given])
    return code, capsys.readouterr()


@pytest.mark.parametrize("blocks", [0, 1, 5, 6])
def test_regions_decide_whether_a_patch_is_void(street, capsys, blocks):
    mask = submit(street, blocks)
    models = [write_model(street, "near.py", 0.3)]
    code, shown = run(capsys, *words(street, models, "--json", street / "out.json"))
    found = json.loads((street / "out.json").read_text())["tasks"]["truck"]
    assert found["regions"] == blocks
    area = 0.2 * (1 - (mask > 0).mean())
    if blocks == 6:
        assert code == 1
        assert found["void"]
        assert (found["shares"], found["detection"], found["score"]) == ([], None, None)
        assert "VOID (connected regions)" in shown.out
    else:
        # the red that is left of each truck, from the mask's share of it alone
        left = {s: [w * h * (1 - (mask > 0).mean()) for w, h in sizes] for s, sizes in FRAMES.items()}
        term = np.mean([np.mean([amount < 300 for amount in amounts]) for amounts in left.values()])
        assert code == 0
        assert not found["void"]
        assert found["score"] == pytest.approx(term + area)
    assert found["area"] == pytest.approx(area)


def test_total_of_both_tasks(street, capsys):
    submit(street)
    text = (street / "truck.csv").read_text().replace("truck", "person")
    (street / "person.csv").write_text(text)
    both = write_model(street, "both.py", 0.3, classes=("person", "car", "truck", "bus"))
    person = write_model(street, "pedestrians.py", 0.3, classes=("person", "truck"), label=0)
    more = ["--person", street / "patch.png", "--person-mask", street / "patch-mask.png"]
    more += ["--person-data", street / "person.csv", "--json", street / "out.json", "--no-clean"]
    code, shown = run(capsys, *words(street, [both, person], *more))
    assert code == 0
    found = json.loads((street / "out.json").read_text())
    # "both" says truck to everything red, "pedestrians" says person: each is clear in all of the other's frames
    shares = {task: [(s["detector"], s["clear"]) for s in t["shares"]] for task, t in found["tasks"].items()}
    assert shares["truck"] == [("both", 2), ("both", 0), ("pedestrians", 4), ("pedestrians", 2)]
    assert shares["person"] == [("both", 4), ("both", 2), ("pedestrians", 2), ("pedestrians", 0)]
    assert found["tasks"]["truck"]["score"] == found["tasks"]["person"]["score"] == pytest.approx(0.625 + 0.1)
    assert found["total"] == pytest.approx(0.725)
    assert "total = 0.8 truck + 0.2 person = 0.725000\n" in shown.out
    assert found["tasks"]["truck"]["shares"][0]["clean"] is None
    known = [r for r in found["tasks"]["truck"]["rules"] if r["name"] == "attacked classes known"]
    assert [(r["ok"], r["got"]) for r in known] == [(False, "both: 3, pedestrians: 1")]


def test_folders_of_frames_with_areas_are_the_scenes(street, capsys):
    """The same frames as folders of two drives, the area slanted: two triangles of it stay red, whatever the mask."""
    submit(street, canvas=(80, 40))
    for scene, sizes in FRAMES.items():
        (street / "drives" / scene).mkdir(parents=True)
        rows = ["frame,x1,y1,x2,y2,x3,y3,x4,y4"]
        for i, (w, h) in enumerate(sizes):
            (street / f"{scene}_{i:03d}.png").rename(street / "drives" / scene / f"{i:03d}.png")
            x, y = 10 + i, 20
            rows.append(f"{i},{x + 4},{y},{x + w},{y},{x + w - 4},{y + h},{x},{y + h}")  # a parallelogram
        (street / "drives" / f"{scene}.areas.csv").write_text("\n".join(rows))
    given = words(street, [write_model(street, "near.py", 0.3)], "--json", street / "out.json")
    given[given.index("--truck-data") + 1] = str(street / "drives")
    (street / "drives" / "a" / "004.png").write_bytes(b"no picture")
    with (street / "drives" / "a.areas.csv").open("a") as table:
        table.write("\n4,1,1,9,1,9,9,1,9")
    code, shown = run(capsys, *given)
    found = json.loads((street / "out.json").read_text())["tasks"]["truck"]
    assert "truck: a/000004 left out: not an image of a known format" in shown.out
    assert [u["name"] for u in found["data"]["unreadable"]] == ["a/000004"]
    assert found["data"]["frames"] == 6
    # of the area (w - 4)·h half is covered
    left = {s: [w * h - (w - 4) * h / 2 for w, h in sizes] for s, sizes in FRAMES.items()}
    assert left == {"a": [240, 440, 440, 80], "b": [440, 440]}
    assert code == 0
    assert [(s["scene"], s["frames"], s["clear"], s["clean"]) for s in found["shares"]] == [
        ("a", 4, sum(amount < 300 for amount in left["a"]), 1),
        ("b", 2, sum(amount < 300 for amount in left["b"]), 0),
    ]


def test_the_competitions_own_canvas(street, capsys):
    submit(street, canvas=(2790, 1260))
    rows = (street / "truck.csv").read_text().splitlines()
    (street / "truck.csv").write_text("\n".join([rows[0], rows[1], rows[-1]]))
    code, _ = run(
        capsys,
        *words(street, [write_model(street, "near.py", 0.3)], "--json", street / "out.json", canvas="2790x1260"),
    )
    found = json.loads((street / "out.json").read_text())["tasks"]["truck"]
    assert code == 0
    assert [(s["frames"], s["clear"]) for s in found["shares"]] == [(1, 1), (1, 0)]
    assert found["area"] == pytest.approx(0.1)
    assert [r["name"] for r in found["rules"] if not r["ok"]] == ["detectors", "scenes", "frames of a scene"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--truck-mask", "gone.png"], "gone.png: expected a PNG file"),
        (["--truck-data", "gone.csv"], "nothing there"),
        (["--canvas", "80"], "--canvas: expected width x height"),
        (["--person", "patch.png"], "no --person-mask and no --person-data"),
        (["--model", "face.py"], "expected a class among car, truck, bus, got face"),
        (["--threads", "0"], "--threads: expected 1 to 1024"),
        (["--json", "."], "--json .: expected a file that can be written"),
    ],
)
def test_bad_input_is_4_and_one_sentence(street, capsys, monkeypatch, change, sentence):
    monkeypatch.chdir(street)
    submit(street)
    write_model(street, "face.py", 0.3, classes=("face",), label=0)
    code, shown = run(capsys, *words(street, [write_model(street, "near.py", 0.3)], *change))
    assert code == 4
    assert sentence in one_sentence(shown.err)


def test_unknown_options_name_the_commands_own(street, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words(street, ["near.py"]), "--truckmask", "x"])
    assert stop.value.code == 4
    assert "write --truck-mask, perhaps" in one_sentence(capsys.readouterr().err)


# placing, against OpenCV's own warp


def cv2_stuck(image, pixels, mask, quads, hidden):
    """The patch in every quad with OpenCV at 8 times the resolution, alpha over; later quads on top."""
    fine = 8
    out = image.astype(np.float64)
    height, width = image.shape[:2]
    h, w = mask.shape
    for quad in quads:
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
        m = cv2.getPerspectiveTransform(corners - 0.5, (quad.astype(np.float32) * fine) - 0.5)
        rgba = np.dstack([pixels.astype(np.float32) / 255 * (mask[..., None] / 255), mask.astype(np.float32) / 255])
        big = cv2.warpPerspective(rgba.astype(np.float32), m, (width * fine, height * fine), flags=cv2.INTER_NEAREST)
        small = big.reshape(height, fine, width, fine, 4).mean((1, 3))
        seen = small * (1 - hidden)[..., None]
        out = out * (1 - seen[..., 3:]) + seen[..., :3]
    return out


def perspective_case():
    g = np.random.default_rng(3)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 5:25] = 255
    mask[10:30, 35:55] = 255
    pixels = np.repeat(np.repeat(g.integers(0, 256, (4, 6, 3), dtype=np.uint8), 10, 0), 10, 1)
    pixels[mask == 0] = 0
    quad = np.array([[20.0, 12.0], [80.0, 22.0], [76.0, 58.0], [24.0, 50.0]])
    return mask, pixels, quad


def as_submission(tmp_path, mask, pixels):
    Image.fromarray(pixels).save(tmp_path / "p.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    return read_submission(tmp_path / "p.png", tmp_path / "m.png", canvas=(mask.shape[1], mask.shape[0]))


def test_stick_agrees_with_opencv(tmp_path):
    mask, pixels, quad = perspective_case()
    image = np.random.default_rng(1).random((72, 96, 3))
    hidden = np.zeros((72, 96))
    hidden[:, 60:] = 1
    texture = score_driving.texture(as_submission(tmp_path, mask, pixels))
    ours = score_driving.stick(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        texture,
        [torch.from_numpy(quad)[None].float()],
        [torch.from_numpy(hidden).float()],
    )[0]
    theirs = cv2_stuck(image, pixels, mask, [quad], hidden)
    difference = np.abs(ours.permute(1, 2, 0).numpy() - theirs)
    assert difference.mean() < 0.01
    untouched = cv2_stuck(np.zeros_like(image), np.full_like(pixels, 255), np.full_like(mask, 255), [quad], hidden)
    assert difference[untouched.sum(2) == 0].max() < 1e-6, "outside the area, and behind what hides it, nothing changes"
    holes = cv2_stuck(np.zeros_like(image), np.full_like(pixels, 255), 255 - mask, [quad], hidden)
    inner = ndimage.minimum_filter(holes.min(2), 3) == 1  # OpenCV's samples miss slivers at the edges
    assert inner.sum() > 100
    assert difference[inner].max() < 1e-6, "where the mask is 0 the frame shows through"
    assert np.abs(ours.permute(1, 2, 0).numpy() - image).max() > 0.5


class Blue:
    """Finds a truck unless there is more than ``limit`` of pure blue in the frame."""

    classes = VEHICLES
    score_threshold = 0.5

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, images):
        from audit.contracts import Detections

        blue = (images[:, 2] - images[:, 0]).clamp(min=0).sum((1, 2))
        return [
            Detections(torch.zeros(int(b <= self.limit), 4), torch.ones(int(b <= self.limit)),
                       torch.full((int(b <= self.limit),), 2))
            for b in blue.tolist()
        ]  # fmt: skip


def area_scenes():
    """Frames with areas: a small one, a large one, a large one half hidden, none, one of an object that is ignored."""
    quads = [
        [[10.0, 10.0], [20.0, 10.0], [20.0, 20.0], [10.0, 20.0]],
        [[10.0, 10.0], [60.0, 10.0], [60.0, 40.0], [10.0, 40.0]],
    ]
    veil = torch.zeros(64, 96, dtype=torch.uint8)
    veil[:, 35:] = 255

    def frame(i, quad, ignored=False, hidden=None):
        return Scene(
            id=f"v#{i}", group="v#0", size=(64, 96), boxes=torch.tensor([[0.0, 0, 90, 60]]), labels=torch.tensor([0]),
            ignore=torch.tensor([ignored]), digest=str(i), load=lambda: torch.full((3, 64, 96), 120, dtype=torch.uint8),
            areas=torch.tensor([quad]), hidden=hidden,
        )  # fmt: skip

    nowhere = torch.full((4, 2), torch.nan).tolist()
    frames = (
        frame(0, quads[0]),
        frame(1, quads[1]),
        frame(2, quads[1], hidden=lambda: veil),
        frame(3, nowhere),
        frame(4, quads[1], ignored=True),
    )
    return Scenes(frames, ("truck",), "areas", "built by the tests")


def test_areas_come_before_boxes_and_hide_behind_what_hides_them(tmp_path):
    """Blue on the frames: 100, 1500, 750, 0 and 1500 px; it takes more than 90, 700 and 800 px to hide the truck."""
    mask = np.full((30, 50), 255, np.uint8)
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[..., 2] = 255
    submission = as_submission(tmp_path, mask, pixels)
    scenes = area_scenes()
    detectors = {"timid": Blue(90), "bold": Blue(700), "bolder": Blue(800)}
    found = score_driving.score("truck", submission, scenes, detectors, Execution(), canvas=(50, 30))
    assert {s.detector: (s.scene, s.frames, s.clear, s.clean) for s in found.shares} == {
        "timid": ("v", 5, 4, 0),
        "bold": ("v", 5, 3, 0),
        "bolder": ("v", 5, 2, 0),
    }
    assert [(r.ok, r.got) for r in found.rules if r.name == "patch in every frame"] == [(False, "4 frames")]
    assert found.score == pytest.approx((4 / 5 + 3 / 5 + 2 / 5) / 3)
    with pytest.raises(DataError, match="1 frames without any"):
        score_driving.score("truck", submission, scenes[3:4], detectors, Execution(), canvas=(50, 30))
    with pytest.raises(ModelError, match="expected a class among person"):
        score_driving.score("person", submission, scenes, detectors, Execution(), canvas=(50, 30))


def test_a_model_in_training_mode_is_scored_as_in_evaluation(street):
    submit(street)
    scenes = open_scenes(str(street / "truck.csv"))
    submission = read_submission(street / "patch.png", street / "patch-mask.png", canvas=(80, 40))

    class Forgetful(torch.nn.Module):
        """Finds a truck in every image, but none while it trains."""

        classes, score_threshold = VEHICLES, 0.5

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            some = int(not self.training and not self.weight.requires_grad)
            box, label = torch.tensor([[0.0, 0, 9, 9]] * some).reshape(-1, 4), torch.full((some,), 2)
            return [Detections(box, torch.ones(some), label) for _ in images]

    net = Forgetful().train()
    found = score_driving.score("truck", submission, scenes, {"m": net}, Execution(), canvas=(80, 40))
    assert [(s.clear, s.clean) for s in found.shares] == [(0, 0), (0, 0)]
    assert net.training
    assert net.weight.requires_grad


def test_frames_of_no_video_are_one_scene(street):
    scenes = open_scenes(street / "truck.csv")
    assert {score_driving.scene_of(s, scenes) for s in scenes} == {"a", "b"}
    alone = open_scenes(f"folder:{street}")
    assert {score_driving.scene_of(s, alone) for s in alone} == {alone.name}
    renamed = replace(scenes[0], group="town 3#left")
    assert score_driving.scene_of(renamed, scenes) == "town 3"
