"""Readers of faces: what each format says, what is lost, landmarks, one size; on drawn photographs and the kit's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import LFWPairs

from audit.alignment import ARCFACE, CHIP
from audit.comparison import Comparison
from audit.data import from_lfw_pairs, open_faces
from audit.data.face_set import FaceEntry
from audit.data.faces import FacePairs
from audit.data.framing import SIDE, Frame, frame_of, framed, moved
from audit.data.identities import _genuine, _impostors, _strangers
from audit.data.people import LANDMARKS
from audit.errors import DataError, ModelError
from audit.landmarks import Finder, LandmarkCache, fault, with_landmarks
from tests.kit import dlib_resnet, kit, lfw_pairs, mobilefacenet

SIZE = (120, 120)


def everywhere(images: torch.Tensor) -> torch.Tensor:
    """A landmarker that sees a face filling every photograph that is not black."""
    h, w = images.shape[2:]
    points = (ARCFACE / CHIP * torch.tensor([w, h])).expand(len(images), 5, 2).clone()
    points[images.mean((1, 2, 3)) < 0.01] = torch.nan
    return points


def draw(path: Path, seed: int = 0, size=SIZE, **save) -> Path:
    """A photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(30, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def row(name: str, points, *more: str) -> str:
    return ",".join([name, *(f"{float(v):.3f}" for v in np.asarray(points).ravel()), *more])


def opened(path, **options) -> FacePairs:
    return open_faces(path, landmarker=everywhere, **options)


def told(data: FacePairs) -> list[tuple[str, str, bool]]:
    ids = [f.id for f in data.faces]
    return [(ids[a], ids[b], same) for (a, b), same in zip(data.pairs.tolist(), data.same.tolist(), strict=True)]


@pytest.fixture
def lfw(tmp_path):
    """Two people of three and two photographs, and pairs.txt as LFW writes it."""
    for i, name in enumerate(["Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002", "Ann_Lee/Ann_Lee_0013", "Bo/Bo_0001"]):
        draw(tmp_path / "lfw" / f"{name}.png", i)
    draw(tmp_path / "lfw" / "Bo" / "Bo_0002.png", 9)
    (tmp_path / "pairs.txt").write_text("1\t2\nAnn_Lee\t1\t13\nBo\t1\t2\nAnn_Lee\t1\tBo\t1\nBo\t2\tAnn_Lee\t2\n")
    return tmp_path


def test_pairs_txt_is_read_as_lfw_means_it(lfw):
    steps = []
    data = opened(lfw, progress=lambda share, text: steps.append(share))
    assert told(data) == [
        ("Ann_Lee/Ann_Lee_0001.png", "Ann_Lee/Ann_Lee_0013.png", True),
        ("Bo/Bo_0001.png", "Bo/Bo_0002.png", True),
        ("Ann_Lee/Ann_Lee_0001.png", "Bo/Bo_0001.png", False),
        ("Bo/Bo_0002.png", "Ann_Lee/Ann_Lee_0002.png", False),
    ]
    assert {f.id: f.identity for f in data.faces}["Bo/Bo_0002.png"] == "Bo"
    assert (data.size, data.landmarks_from, data.unreadable, data.notes) == (SIZE, "the landmarker", (), ())
    assert steps == sorted(steps)
    assert steps[-1] == 1
    portrait = data.portraits([3])
    assert torch.equal(portrait.images[0].permute(1, 2, 0), torch.from_numpy(np.array(Image.open(
        lfw / "lfw" / portrait.ids[0]))))  # fmt: skip
    torch.testing.assert_close(portrait.landmarks[0], ARCFACE * 120 / 112)


@pytest.mark.parametrize("text", ["Ann_Lee 1 13\nAnn_Lee 1 Bo 1\n", "\ufeff1\nAnn_Lee\t1\t13\n\nAnn_Lee\t1\tBo\t1\n"])
def test_headers_blanks_and_marks_do_not_matter(lfw, text):
    (lfw / "pairs.txt").write_text(text, encoding="utf-8")
    assert [same for *_, same in told(opened(f"lfw:{lfw}"))] == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10\t300\nAnn_Lee\t1\t2\n", "1 pairs of one person and 0 of two, not 3000 of each"),
        ("Ann_Lee 1 2\nAnn_Lee 1\n", "'Ann_Lee 1' in line 2"),
        ("Ann_Lee 1 2\nAnn_Lee one Bo 1\n", "line 2"),
        ("Nobody 1 2\n", "none of them in"),
        ("1 1\n", "another kind|0 pairs"),
    ],
)
def test_pairs_that_are_not_what_they_say_are_refused(lfw, text, said):
    (lfw / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        opened(lfw / "pairs.txt")


def test_what_cannot_be_used_is_named_and_its_pairs_dropped(lfw):
    (lfw / "lfw/Bo/Bo_0001.png").write_bytes((lfw / "lfw/Bo/Bo_0001.png").read_bytes()[:300])
    Image.new("RGB", SIZE).save(lfw / "lfw/Ann_Lee/Ann_Lee_0013.png")
    pairs = "Ann_Lee 1 13\nBo 1 2\nAnn_Lee 1 Bo 1\nBo 2 Ann_Lee 2\nAnn_Lee 2 Bo 2\nAnn_Lee 1 2\n../Bo 1 Bo 2\nBo 7 2\n"
    pairs += "Bo 2 Ann_Lee 2\n"
    (lfw / "pairs.txt").write_text(pairs)
    data = opened(lfw)
    reasons = {u.name: u.reason for u in data.unreadable}
    assert "cannot be decoded" in reasons["Bo/Bo_0001.png"]
    assert reasons["Ann_Lee/Ann_Lee_0013.png"] == "no face was found in it"
    assert reasons["Bo/Bo_0007.jpg"] == "no such file"
    assert "leads out" in reasons["../Bo/../Bo_0001.jpg"]
    assert told(data) == [
        ("Bo/Bo_0002.png", "Ann_Lee/Ann_Lee_0002.png", False),
        ("Ann_Lee/Ann_Lee_0001.png", "Ann_Lee/Ann_Lee_0002.png", True),
    ]
    assert any(n.startswith("5 of 9 pairs were dropped for a photograph that cannot be used") for n in data.notes)
    assert any(n.startswith("2 of 9 pairs were dropped because they came more than once") for n in data.notes)


def csv_set(folder: Path, rows: str, names: str) -> Path:
    for i, name in enumerate(names.split()):
        draw(folder / name, i)
    (folder / "mine.csv").write_text(f"a,b,same\n{rows}")
    return folder


def test_identities_come_from_folders_that_agree(tmp_path):
    data = opened(csv_set(tmp_path, "x/1.png,x/2.png,1\nx/1.png,y/1.png,0\n", "x/1.png x/2.png y/1.png"))
    assert [f.identity for f in data.faces] == ["x", "x", "y"]
    assert data.notes == ()


def test_identities_come_from_pairs_where_folders_do_not_agree(tmp_path):
    rows = "i/1.png,i/2.png,1\ni/2.png,j/3.png,1\ni/1.png,i/4.png,0\n./i/4.png,j\\5.png,no\n"
    data = opened(csv_set(tmp_path, rows, "i/1.png i/2.png j/3.png i/4.png j/5.png"))
    assert [f.identity for f in data.faces] == ["person of i/1.png"] * 3 + ["", ""]
    assert "inferred from the pairs" in data.notes[0]
    assert "2 photograph(s) without identity" in data.notes[1]
    (tmp_path / "mine.csv").write_text("a,b,same\n" + rows + "i/1.png,j/3.png,0\n")
    with pytest.raises(DataError, match=r"i/1.png and j/3.png to show two people"):
        opened(tmp_path)


def test_faces_csv_says_who_where_and_what(tmp_path):
    folder = csv_set(tmp_path, "1.png,2.png,1\n2.png,3.png,0\n", "1.png 2.png 3.png")
    points = ARCFACE + 2
    rows = [row("1.png", points, "Ann", "old"), row("2.png", points - 1, "Ann", ""), "3.png" + "," * 10 + ",Bo,young"]
    (folder / "faces.csv").write_text("\n".join([",".join(["image", *LANDMARKS, "identity", "age"]), *rows]))
    data = opened(folder)
    assert [f.identity for f in data.faces] == ["Ann", "Ann", "Bo"]
    assert [dict(f.groups) for f in data.faces] == [{"age": "old"}, {}, {"age": "young"}]
    torch.testing.assert_close(data.faces[0].landmarks, points, atol=1e-3, rtol=0)
    torch.testing.assert_close(data.faces[2].landmarks, ARCFACE * 120 / 112)
    assert data.landmarks_from == "the data (2), the landmarker (1)"
    (folder / "mine.csv").write_text("a,b,same\n1.png,2.png,0\n")
    with pytest.raises(DataError, match=r"1.png and 2.png to show two people"):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,x1,y1\n1.png,1,2\n", "without the column x2"),
        ("photo,identity\n1.png,Ann\n", "the header photo,identity"),
        ("image,identity\n1.png,Ann\n./1.png,Bo\n", "1.png twice"),
        ("image," + ",".join(LANDMARKS) + "\n1.png" + ",1" * 9 + ",\n", "in row 2"),
        ("image," + ",".join(LANDMARKS) + "\n1.png" + ",nan" * 10 + "\n", "in row 2"),
        ("image,identity\n1.png,Ann,more\n", "3 cells in row 2"),
        ("image,age,age\n1.png,1,2\n", "a column twice"),
    ],
)
def test_a_wrong_faces_csv_is_refused(tmp_path, text, said):
    folder = csv_set(tmp_path, "1.png,2.png,1\n", "1.png 2.png")
    (folder / "faces.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        opened(folder)


def test_landmarks_that_cannot_be_are_left_out(tmp_path):
    folder = csv_set(tmp_path, "1.png,2.png,1\n2.png,3.png,0\n2.png,4.png,0\n", "1.png 2.png 3.png 4.png")
    swapped = (ARCFACE * torch.tensor([-1.0, 1.0]) + torch.tensor([112.0, 0.0]))[:]
    rows = [row("1.png", ARCFACE), row("2.png", ARCFACE), row("3.png", swapped), row("4.png", ARCFACE + 300)]
    (folder / "faces.csv").write_text("\n".join([",".join(["image", *LANDMARKS]), *rows]))
    data = opened(folder)
    assert {u.name: u.reason[:26] for u in data.unreadable} == {
        "3.png": "its landmarks are mirrored",
        "4.png": "its landmarks lie outside ",
    }
    assert fault(torch.full((5, 2), 7.0), SIZE) == "its landmarks are all in one place"
    assert fault(ARCFACE, SIZE) == ""


@pytest.mark.parametrize("same", ["2", "", "maybe"])
def test_a_word_on_sameness_has_to_be_known(tmp_path, same):
    with pytest.raises(DataError, match="write 1 or 0"):
        opened(csv_set(tmp_path, f"1.png,2.png,{same}\n", "1.png 2.png"))


def people_set(folder: Path) -> Path:
    for i, name in enumerate(["Ann/a", "Ann/b", "Ann/sub/c", "Bo/a", "Bo/b", "Cy/a"]):
        draw(folder / f"{name}.png", i)
    return folder


def test_folders_of_people_make_pairs_by_hash(tmp_path):
    data = opened(people_set(tmp_path / "x"))
    assert Counter(data.same.tolist()) == {True: 4, False: 4}
    assert sorted({f.identity for f in data.faces}) == ["Ann", "Bo", "Cy"]
    assert told(data) == told(opened(f"people:{people_set(tmp_path / 'y')}"))
    few = opened(tmp_path / "x", limit=2)
    who = {f.id: f.identity for f in few.faces}
    assert [same for *_, same in told(few)] == [True, True, False, False]
    assert {who[a] for a, _, same in told(few) if same} == {"Ann", "Bo"}, (
        "one person's pairs come before another's first"
    )
    assert few.digest != data.digest


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=2, max_size=7), limit=st.integers(1, 30), order=st.randoms())
def test_made_pairs_say_the_truth(counts, limit, order):
    entries = [FaceEntry(f"p{i}/{k}", f"p{i}") for i, n in enumerate(counts) for k in range(n)]
    shuffled = order.sample(entries, len(entries))
    who = {e.name: e.identity for e in entries}
    genuine, impostors = _genuine(entries, limit), _impostors(entries, limit)
    strangers = _strangers(entries[:3], entries[3:], limit)
    assert genuine == _genuine(shuffled, limit)
    assert impostors == _impostors(shuffled, limit)
    for made, same in ((genuine, True), (impostors, False), (strangers, False)):
        assert all((who[a] == who[b]) == same == said for a, b, said in made)
        assert len({frozenset(p[:2]) for p in made}) == len(made)
        assert all(a != b for a, b, _ in made)
    n, own = sum(counts), sum(c * (c - 1) // 2 for c in counts)
    assert len(genuine) == min(limit, own)
    assert len(impostors) == min(limit, n * (n - 1) // 2 - own)
    of = Counter(who[a] for a, _, _ in genuine)
    rich = {f"p{i}" for i, c in enumerate(counts) if c * (c - 1) // 2 > of[f"p{i}"]}
    assert all(of[r] >= max(of.values(), default=0) - 1 for r in rich), "somebody outweighs the others"


def test_nobody_with_two_photographs_makes_pairs_of_two(tmp_path):
    for i, name in enumerate("abc"):
        draw(tmp_path / name / "1.png", i)
    data = opened(tmp_path)
    assert (len(data), data.same.any().item()) == (3, False)
    assert "nobody has two photographs" in data.notes[0]


@pytest.mark.parametrize("flat", [True, False])
def test_a_gallery_and_its_probes(tmp_path, flat):
    probes = ["probe/Ann_2", "probe/Ann_3", "probe/Cy_1"] if flat else ["Ann/2", "Ann/3", "Cy/1"]
    for i, name in enumerate(["gallery/Ann", "gallery/Bo_1", *probes]):
        draw(tmp_path / f"{name}.png", i)
    data = opened(tmp_path)
    assert [data.faces[i].identity for i in data.gallery] == ["Ann", "Bo"]
    assert [f.identity for f in data.faces] == ["Ann", "Bo", "Ann", "Ann", "Cy"]
    assert sorted(p[:2] for p in told(data) if p[2]) == [(f"{p}.png", "gallery/Ann.png") for p in probes[:2]]
    assert Counter(data.same.tolist()) == {True: 2, False: 2}
    assert all(b.startswith("gallery/") for _, b, _ in told(data))
    assert data.notes == ("2 people are enrolled; 1 probes show somebody else",)


def test_a_competitions_pairs_are_aligned_chips(tmp_path):
    for i, name in enumerate(["0001", "0001_compare", "0002", "0002_compare", "0003"]):
        draw(tmp_path / f"{name}.png", i, (CHIP, CHIP))
    data = open_faces(tmp_path)
    assert told(data) == [("0001.png", "0001_compare.png", False), ("0002.png", "0002_compare.png", False)]
    assert all(torch.equal(f.landmarks, ARCFACE) for f in data.faces)
    assert data.landmarks_from.startswith("the usual template")
    assert data.size == (CHIP, CHIP)
    assert "1 photograph(s) without a partner are left out, the first 0003.png" in data.notes


def test_torchvisions_lfw_pairs(lfw, monkeypatch):
    monkeypatch.setattr(LFWPairs, "_check_integrity", lambda self: True)
    for file in (lfw / "lfw").rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"))
    (lfw / "lfw-py").mkdir()
    (lfw / "lfw").rename(lfw / "lfw-py" / "lfw_funneled")
    (lfw / "pairs.txt").rename(lfw / "lfw-py" / "pairs.txt")
    data = from_lfw_pairs(LFWPairs(str(lfw)), finder=Finder(everywhere))
    assert told(data) == told(opened(f"lfw:{lfw / 'lfw-py' / 'pairs.txt'}"))
    assert [f.identity for f in data.faces] == ["Ann_Lee", "Ann_Lee", "Bo", "Bo", "Ann_Lee"]
    with pytest.raises(DataError, match=r"torchvision.datasets.LFWPairs"):
        from_lfw_pairs([1])


def marked(path: Path, size: tuple[int, int], points: torch.Tensor, **save) -> Path:
    """A grey photograph with a coloured blot at each landmark: eyes red and green, nose blue."""
    y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    spread = float((points[1] - points[0]).norm()) / 8
    pixels = np.full((*size, 3), 20.0)
    for channel, (px, py) in enumerate(points[:3].tolist()):
        pixels[..., channel] += 230 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * spread**2))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path, **save)
    return path


def middles(image: torch.Tensor) -> torch.Tensor:
    """(3, 2) the middle of each channel's blot."""
    weight = (image.double() - 60).clamp(min=0)
    y, x = torch.meshgrid(torch.arange(image.shape[1]), torch.arange(image.shape[2]), indexing="ij")
    return torch.stack([torch.stack([(w * x).sum(), (w * y).sum()]) / w.sum() for w in weight]).float()


def test_photographs_of_many_sizes_become_one(tmp_path):
    """Larger, smaller, turned by EXIF, grey, transparent: squares of 256 px in which the landmarks move along."""
    wide, small, upright = (ARCFACE * s + torch.tensor(shift) for s, shift in
                            ((4.0, (300.0, 100.0)), (0.5, (15.0, 13.0)), (2.0, (30.0, 50.0))))  # fmt: skip
    marked(tmp_path / "Ann/wide.png", (700, 1000), wide)
    marked(tmp_path / "Ann/small.png", (100, 90), small)
    marked(tmp_path / "Bo/turned.png", (400, 300), upright)
    Image.open(tmp_path / "Bo/turned.png").transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "Bo/turned.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    for mode, name in (("L", "Cy/grey.png"), ("RGBA", "Cy/clear.png")):
        draw(tmp_path / name, 3)
        Image.open(tmp_path / name).convert(mode).save(tmp_path / name)
    draw(tmp_path / "Cy/grey.png", 4, (130, 130))
    (tmp_path / "Cy/broken.jpg").write_bytes(b"no photograph")
    rows = [row(n, p) for n, p in (("Ann/wide.png", wide), ("Ann/small.png", small), ("Bo/turned.png", upright))]
    (tmp_path / "faces.csv").write_text("\n".join([",".join(["image", *LANDMARKS]), *rows]))
    data = opened(tmp_path)
    assert data.size == (SIDE, SIDE)
    assert [u.name for u in data.unreadable] == ["Cy/broken.jpg"]
    portraits = data.portraits(range(len(data.faces)))
    assert portraits.images.shape == (5, 3, SIDE, SIDE)
    for name in ("Ann/wide.png", "Ann/small.png", "Bo/turned.png"):
        i = portraits.ids.index(name)
        torch.testing.assert_close(middles(portraits.images[i]), portraits.landmarks[i, :3], atol=0.35, rtol=0)
        eyes = float((portraits.landmarks[i, 1] - portraits.landmarks[i, 0]).norm())
        assert SIDE / eyes == pytest.approx(6, rel=0.02)
    assert any("px between the eyes" in n for n in data.notes)


def test_a_photograph_shrinks_by_area(tmp_path):
    path = draw(tmp_path / "x.png", 1, (850, 900))
    whole = np.asarray(Image.open(path)).astype(float)
    expected = whole[40:808, 100:868].reshape(256, 3, 256, 3, 3).mean((1, 3))
    found = framed(path, (850, 900), Frame(100, 40, 768))
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 0.51
    outside = framed(path, (850, 900), Frame(600, -240, 768))
    assert int(outside[:, :80].max()) == 0
    assert int(outside[:, :, 100:].max()) == 0
    assert int(outside[:, 80:, :100].min()) > 0


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.3, 6), turn=st.floats(-0.7, 0.7), x=st.floats(0, 500), y=st.floats(0, 500))
def test_the_frame_holds_the_face_in_its_middle(scale, turn, x, y):
    c, s = np.cos(turn) * scale, np.sin(turn) * scale
    points = ARCFACE @ torch.tensor([[c, s], [-s, c]], dtype=torch.float32) + torch.tensor([x, y])
    frame = frame_of(points)
    assert frame.side == pytest.approx(6 * 35.2377 * scale, abs=0.6)
    own = moved(points, frame)
    assert (own.mean(0) - (SIDE - 1) / 2).abs().max() < 0.1 * SIDE
    torch.testing.assert_close(own[1] - own[0], (points[1] - points[0]) * SIDE / frame.side, rtol=1e-3, atol=1e-3)


def test_no_landmarks_and_nobody_to_find_them(lfw):
    with pytest.raises(DataError, match=r"5 photographs without; give them in a faces.csv .* or a function landmarks"):
        open_faces(lfw)


def test_a_landmarker_has_to_return_points(lfw):
    for wrong in (lambda x: x.mean((2, 3)), lambda x: [None] * len(x), lambda x: torch.zeros(1, 5, 2)):
        with pytest.raises(ModelError, match="5, 2"):
            open_faces(lfw, landmarker=wrong)
    with pytest.raises(DataError, match="no face was found"):
        open_faces(lfw, landmarker=lambda x: torch.full((len(x), 5, 2), torch.nan))


def test_landmarks_are_found_once(lfw, tmp_path):
    asked = []

    def landmarker(images):
        asked.append(len(images))
        return everywhere(images)

    cache = LandmarkCache(tmp_path / "cache" / "deep", "net 1")
    first = open_faces(lfw, landmarker=landmarker, cache=cache)
    assert asked == [5]
    again = open_faces(lfw, landmarker=landmarker, cache=cache)
    assert asked == [5]
    assert again.digest == first.digest
    draw(lfw / "lfw/Bo/Bo_0002.png", 77)
    assert open_faces(lfw, landmarker=landmarker, cache=cache).digest != first.digest
    open_faces(lfw, landmarker=landmarker, cache=LandmarkCache(cache.folder, "net 2"))
    assert asked == [5, 1, 5]
    for file in cache.folder.glob("*.npz"):
        file.write_bytes(b"broken")
    open_faces(lfw, landmarker=landmarker, cache=cache)
    assert asked == [5, 1, 5, 5]


def test_large_photographs_are_shown_smaller_to_a_landmarker(tmp_path):
    seen = []

    def landmarker(images):
        seen.append(tuple(images.shape))
        return everywhere(images)

    for i, name in enumerate(["a/1.jpg", "b/1.jpg"]):
        draw(tmp_path / name, i, (750, 1500))
    data = open_faces(tmp_path, landmarker=landmarker)
    assert seen == [(2, 3, 512, 1024)]
    point = (ARCFACE / CHIP * torch.tensor([1024.0, 512.0]) + 0.5) * (1500 / 1024) - 0.5
    torch.testing.assert_close(data.faces[0].landmarks, moved(point, frame_of(point)), atol=1e-2, rtol=0)


def test_other_landmarks_for_the_same_data(lfw):
    data = opened(lfw)
    red = data.faces[2].read().float().mean() / 255

    def other(images):
        points = everywhere(images) + 3
        points[(images.mean((1, 2, 3)) - red).abs() < 1e-6] = torch.nan
        return points

    new = with_landmarks(data, Finder(other), name="another")
    assert [u.name for u in new.unreadable] == [data.faces[2].id]
    assert [told(data)[i] for i in (0, 3)] == told(new)
    torch.testing.assert_close(new.faces[0].landmarks, data.faces[0].landmarks + 3)
    assert (new.landmarks_from, len(new.faces)) == ("another", 4)


@pytest.mark.parametrize("path", ["", "no/such", "lfw:", "people:no/such", "a\0b"])
def test_nothing_there(path):
    with pytest.raises(DataError, match=r"nothing there|null byte"):
        opened(path)


def test_what_is_no_data_of_faces_is_refused(tmp_path, lfw):
    for name, said in (("empty", "0 photographs"), ("loose", "1 photographs and no word")):
        (tmp_path / name).mkdir()
        if name == "loose":
            draw(tmp_path / name / "1.png")
        with pytest.raises(DataError, match=said):
            opened(tmp_path / name)
    (lfw / "other.csv").write_text("a,b,same\n")
    with pytest.raises(DataError, match=r"several lists of pairs, pairs.txt, other.csv"):
        opened(lfw)
    with pytest.raises(DataError, match=r"a folder without a list that pairs: wants"):
        opened(f"pairs:{lfw / 'lfw'}")
    (lfw / "note.txt").write_text("dear reader,\n")
    with pytest.raises(DataError, match="a file of another kind"):
        opened(lfw / "note.txt")
    with pytest.raises(DataError, match="at least two people"):
        opened(f"people:{lfw / 'lfw' / 'Bo'}")
    with pytest.raises(DataError, match="0001_compare"):
        opened(f"competition:{lfw / 'lfw'}")
    with pytest.raises(DataError, match="0 enrolled"):
        opened(f"gallery:{lfw / 'lfw'}")


def test_copies_are_told(tmp_path):
    for name in ("Ann/1.png", "Ann/2.png", "Bo/1.png"):
        draw(tmp_path / name, 0)
    draw(tmp_path / "Bo/2.png", 1)
    data = opened(tmp_path)
    assert all({"Bo/2.png"} & set(p[:2]) for p in told(data)), "a pair of copies says nothing"
    assert any("one and the same photograph" in n for n in data.notes)
    assert any(n.startswith("Bo/1.png shows Bo, and as the same file Ann") for n in data.notes)


@pytest.mark.kit
def test_the_kits_fold_is_read():
    data = opened(kit("lfw_fold1"))
    assert (len(data), len(data.faces), int(data.same.sum()), data.size) == (600, 807, 300, (250, 250))
    assert len({f.identity for f in data.faces}) == 435
    craft, held = data.split(0.4)
    assert not {f.identity for f in craft.faces} & {f.identity for f in held.faces}


@pytest.mark.kit
@pytest.mark.slow
@pytest.mark.parametrize(("name", "stated"), [("mobilefacenet", 0.9933), ("dlib_resnet", 0.9900)])
def test_the_kits_recognizers_are_as_good_as_stated(name, stated):
    """200 of the fold's 600 pairs, chosen by hash."""
    data = lfw_pairs(100)
    model = Comparison(name, {"mobilefacenet": mobilefacenet, "dlib_resnet": dlib_resnet}[name](), white_box=True)
    embeddings = []
    for i in range(0, len(data.faces), 32):
        part = data.portraits(range(i, min(i + 32, len(data.faces))))
        with torch.inference_mode():
            embeddings.append(model.embed(model.align(part.landmarks, part.size).faces(part.images.float() / 255)))
    e = torch.cat(embeddings)
    scores = model.between(e[data.pairs[:, 0]], e[data.pairs[:, 1]])
    accuracy = ((scores >= model.cut) == data.same).float().mean()
    assert abs(float(accuracy) - stated) <= 0.01
