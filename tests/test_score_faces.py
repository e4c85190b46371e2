"""Reading, judging and scoring attacked faces: by hand, against an independent scoring, and with hostile files."""

from __future__ import annotations

import os
import stat
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.comparison import Comparison
from audit.data import bundles
from audit.data.bundles import Unusable, open_bundle, plain
from audit.data.face_submissions import RULES, FaceSubmission, broken_by_rule, outcome
from audit.errors import DataError, ModelError
from audit.execution import Execution
from audit.measures.face_rules import FaceRules
from audit.measures.face_score import comparable, score_faces
from audit.measures.intervals import Resampling, wilson
from tests.handed_in import attacked, corner_cosine, face, handed_in, originals, plain_score, png_bytes, zipped


class Corner:
    """Embeds a face as the mean colour of its upper left corner; writes down how many faces it was shown."""

    face_size = (112, 112)
    metric = "cosine"

    def __init__(self, threshold=0.9):
        self.threshold, self.shown = threshold, []

    def __call__(self, faces):
        self.shown.append(len(faces))
        return faces[:, :, :30, :30].mean((2, 3))


def scored(submission, clean, models, **how):
    comparisons = {name: Comparison(name, m, white_box=False) for name, m in models.items()}
    rules = how.pop("rules", FaceRules())
    opened = FaceSubmission.open(submission, clean, how.pop("pairs", None))
    return score_faces(opened, comparisons, rules=rules, execution=Execution(), **how)


@pytest.fixture
def clean(tmp_path):
    return originals(tmp_path / "originals", 4)


def whole(n=4):
    return {f"{i:04d}.png": png_bytes(attacked(i)) for i in range(1, n + 1)}


def test_a_score_by_hand(tmp_path, clean):
    """The corner's colour after painting r of 30 rows red on green has a cosine to red of r / |(r, 30 - r)|:
    30 rows 1, 20 rows 0.894, 15 rows 0.707, none 0."""
    files = {f"{i:04d}.png": png_bytes(attacked(i, rows=r)) for i, r in enumerate((30, 20, 15, 0), 1)}
    found = scored(
        handed_in(tmp_path / "s", files), clean, {"near": Corner(0.9), "mid": Corner(0.8), "far": Corner(0.7)}
    )
    assert found.scores["near"] == pytest.approx([1, 2 / 5**0.5, 0.5**0.5, 0], abs=1e-6)
    assert {n: s.tolist() for n, s in found.success.items()} == {
        "near": [True, False, False, False],
        "mid": [True, True, False, False],
        "far": [True, True, True, False],
    }
    assert found.score == pytest.approx((1 + 2 + 3) / 3 / 4)
    assert found.void == 0
    assert found.rate("mid") == wilson(2, 4)
    overall = found.overall(Resampling(seed=0))
    assert overall.value == pytest.approx(found.score)
    assert overall.low < found.score < overall.high
    assert [e.count.area for e in found.entries] == [900, 600, 450, 0]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_mixed_submission_against_an_independent_scoring(tmp_path, batch):
    """Every kind of wrong file among good ones, whatever the batches."""
    clean = originals(tmp_path / "o", 14, space=True)
    files = {f"{i:04d}.png": png_bytes(attacked(i, rows=30 - i)) for i in range(1, 15)}
    six = attacked(1)
    six[50:77:9, 60:70, 2] ^= 1  # three regions in blue alone, three in green alone, and the corner
    six[77:100:9, 60:70, 1] ^= 1
    wide = face((0, 200, 0), 2)
    wide[:42, :30] = 201, 1, 2  # 1260 px
    files["0001.png"], files["0002.png"] = png_bytes(six), png_bytes(wide)
    files["0003.png"] = png_bytes(attacked(3), "L")
    files["0004.png"] = png_bytes(attacked(4), "RGBA")
    files["0005.png"] = png_bytes(attacked(5), "P")
    files["0006.png"] = png_bytes(np.zeros((150, 150, 3), np.uint8))
    files["0007.png"] = files["0007.png"][:-200]
    files["0008.png"] = b"GIF89a and so on"
    files["0009.png"] = b""
    del files["0010.png"]
    models = {"a": Corner(0.9), "b": Corner(0.6)}
    found = scored(handed_in(tmp_path / "s", files), clean, models, batch=batch)
    value, wins = plain_score(tmp_path / "s", clean, [corner_cosine(0.9), corner_cosine(0.6)])
    assert 0 < value < 1
    assert found.score == pytest.approx(value)
    assert np.stack([found.success["a"], found.success["b"]], 1).tolist() == wins.tolist()
    assert [e.number for e in found.entries if e.void] == [f"{i:04d}" for i in range(1, 11)]
    assert broken_by_rule(found.entries) == {
        "name": 1, "PNG": 3, "8-bit RGB": 3, "112x112 px": 1, "regions": 1, "area": 1
    }  # fmt: skip
    assert [dict(e.broken) for e in found.entries[2:6]] == [
        {"8-bit RGB": "8-bit grey"},
        {"8-bit RGB": "8-bit RGB with alpha"},
        {"8-bit RGB": "8-bit palette"},
        {"112x112 px": "150x150 px"},
    ]
    assert sum(models["a"].shown) == 2 * 4, "void pairs are shown to nobody"
    assert all(np.isnan(s[:10]).all() for s in found.scores.values())
    assert all(e.face is None for e in found.entries), "pictures are not kept"


def test_a_folder_and_its_zip_score_alike(tmp_path, clean):
    files = whole()
    results = []
    folder, packed, stored = handed_in(tmp_path / "s", files), tmp_path / "s.zip", tmp_path / "stored.zip"
    for path in (folder, zipped(packed, files), zipped(stored, files, zipfile.ZIP_STORED)):
        found = scored(path, clean, {"m": Corner()})
        results.append((found.score, [e.sha256 for e in found.entries], found.scores["m"].tolist()))
    assert results[0] == results[1] == results[2]
    assert results[0][0] == 1
    packed = zipped(tmp_path / "o.zip", {p.name: p.read_bytes() for p in clean.iterdir()})
    assert scored(tmp_path / "s.zip", packed, {"m": Corner()}).score == 1


def test_sixteen_bits_and_interlacing(tmp_path, clean):
    """Pillow brings 16-bit colours down to 8 without a word: the header tells. An interlaced picture is no offence."""
    rows = attacked(1).astype(">u2").repeat(1)
    raw = b"".join(b"\0" + row.tobytes() for row in (rows.reshape(112, 112, 3) * 257).astype(">u2"))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deep = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 112, 112, 16, 2, 0, 0, 0))
    deep += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    files = whole() | {"0001.png": deep}
    found = scored(handed_in(tmp_path / "s", files), clean, {"m": Corner()})
    assert found.entries[0].broken == (("8-bit RGB", "16-bit RGB"),)
    assert outcome(found.entries[0]) == dict(zip(RULES, (True, True, False, True, None, None), strict=True))
    assert outcome(found.entries[1]) == dict.fromkeys(RULES, True)


def test_a_wrong_checksum_is_void(tmp_path, clean):
    data = bytearray(whole()["0002.png"])
    assert data.count(b"IDAT") == 1
    data[-14] ^= 1  # of the checksum alone: the pixels decode
    found = scored(handed_in(tmp_path / "s", whole() | {"0002.png": bytes(data)}), clean, {"m": Corner()})
    assert [rule for rule, _ in found.entries[1].broken] == ["PNG"]
    assert found.score == 3 / 4


def test_models_of_other_face_sizes_metrics_and_without_embeddings(tmp_path, clean):
    class Large(Corner):
        face_size = (150, 150)

        def __call__(self, faces):
            assert faces.shape[2:] == (150, 150)
            return faces[:, :, :40, :40].mean((2, 3))

    class Far(Corner):
        metric = "euclidean"

    class Compares:
        face_size, threshold = (112, 112), 0.8

        def similarity(self, a, b):
            return 1 - (a[:, 0, :30, :30].mean((1, 2)) - b[:, 0, :30, :30].mean((1, 2))).abs()

    files = {f"{i:04d}.png": png_bytes(attacked(i, rows=r)) for i, r in enumerate((30, 22, 15, 0), 1)}
    models = {"large": Large(0.9), "far": Far(0.3), "compares": Compares()}
    found = scored(handed_in(tmp_path / "s", files), clean, models)
    x = 200 / 255
    assert -found.scores["far"] == pytest.approx([2**0.5 * x * (30 - r) / 30 for r in (30, 22, 15, 0)], abs=1e-5)
    assert found.scores["compares"] == pytest.approx([1 - x * (30 - r) / 30 for r in (30, 22, 15, 0)], abs=1e-6)
    assert found.success["far"].tolist() == [True, True, False, False]
    assert found.success["compares"].tolist() == [True, False, False, False]
    assert found.scores["large"] == pytest.approx([1, 0.939, 0.707, 0], abs=0.01), "the same faces, only larger"


@pytest.mark.parametrize(("threshold", "value", "taken"), [(0.7, 0.7, True), (0.1, 0.1, True), (0.7, 0.69999, False)])
def test_the_threshold_itself_is_enough(tmp_path, clean, threshold, value, taken):
    """A float32 of 0.7 is a little less than 0.7; the model's answer is its threshold all the same."""

    class Says:
        face_size = (112, 112)

        def similarity(self, a, b):
            return torch.full((len(a),), value)

    says = Says()
    says.threshold = threshold
    found = scored(handed_in(tmp_path / "s", whole()), clean, {"m": says})
    assert found.success["m"].tolist() == [taken] * 4


def test_a_score_that_is_not_a_number_is_an_error(tmp_path, clean):
    class Nan(Corner):
        def __call__(self, faces):
            return super().__call__(faces) * float("nan")

    with pytest.raises(ModelError, match="4 of them not finite"):
        scored(handed_in(tmp_path / "s", whole()), clean, {"m": Nan()})


def test_fewer_pairs_and_files_nobody_asked_for(tmp_path, clean):
    given = handed_in(tmp_path / "s", whole() | {"notes.txt": b"hello", "5.png": b"", "0001.PNG": b""})
    (given / "more").mkdir()
    opened = FaceSubmission.open(given, clean, 2)
    assert opened.numbers == ("0001", "0002")
    assert opened.strange == (
        "more: a folder",
        "0001.PNG: no name that is asked for",
        "0003.png: no name that is asked for",
        "0004.png: no name that is asked for",
        "5.png: no name that is asked for",
        "notes.txt: no name that is asked for",
    )
    assert len(scored(given, clean, {"m": Corner()}, pairs=2).entries) == 2
    with pytest.raises(DataError, match=r"no 0005.png and 1 more missing"):
        FaceSubmission.open(given, clean, 6)
    (clean / "0003_compare.png").unlink()
    with pytest.raises(DataError, match=r"no 0003_compare.png"):
        FaceSubmission.open(given, clean)
    with pytest.raises(DataError, match="none of them"):
        FaceSubmission.open(given, handed_in(tmp_path / "empty", {}))


@pytest.mark.parametrize("name", ["0002.png", "0002_compare.png"])
def test_a_broken_original_is_nobodys_fault_but_the_owners(tmp_path, clean, name):
    (clean / name).write_bytes(png_bytes(np.zeros((100, 100, 3), np.uint8)))
    with pytest.raises(DataError, match=rf"{name}: expected a PNG of 8-bit RGB, 112x112 px, got 100x100 px"):
        scored(handed_in(tmp_path / "s", whole()), clean, {"m": Corner()})


def test_comparable_with_the_competition():
    assert [r.ok for r in comparable(3000, 3)] == [True, True]
    assert [(r.ok, r.got, r.voids) for r in comparable(600, 2)] == [(False, "600", False), (False, "2", False)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=40))
def test_eq_16_is_the_mean_over_models_and_pairs(wins):
    from audit.data.face_submissions import Entry
    from audit.measures.face_score import FaceScore

    table = np.array(wins)
    entries = tuple(Entry(f"{i:04d}", ()) for i in range(len(wins)))
    found = FaceScore(entries, {}, {str(m): table[:, m] for m in range(3)})
    assert found.score == pytest.approx(sum(sum(row) for row in wins) / 3 / len(wins))
    assert FaceScore((), {}, {}).score is None


# hostile files


def refused(path):
    with pytest.raises(DataError) as error:
        open_bundle(path, "submission")
    assert str(path) in str(error.value)
    return str(error.value)


def entry(name, mode=None, size=None):
    info = zipfile.ZipInfo("x")
    info.filename = name
    info.compress_type = zipfile.ZIP_DEFLATED
    if mode is not None:
        info.create_system = 3
        info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../0001.png", "../0001.png: a path that leads out"),
        ("a/../../0001.png", "a/../../0001.png: a path that leads out"),
        ("..", "..: a path that leads out"),
        ("/etc/0001.png", "/etc/0001.png: no relative path"),
        ("C:0001.png", "C:0001.png: no relative path"),
        ("..\\0001.png", "..\\0001.png: no relative path"),
        ("0001.png\0.txt", r"0001.png\x00.txt: no relative path"),
    ],
)
def test_a_zip_that_leads_out_is_refused_and_nothing_is_written(tmp_path, name, said):
    inner = tmp_path / "in" / "side"
    inner.mkdir(parents=True)
    path = inner / "s.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0001.png", b"x")
        archive.writestr("PLACEHOLDERNAME"[: len(name.encode())].ljust(len(name.encode()), "X"), b"y")
    data = path.read_bytes()
    swap = "PLACEHOLDERNAME"[: len(name.encode())].ljust(len(name.encode()), "X").encode()
    path.write_bytes(data.replace(swap, name.encode()))
    assert said in refused(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "s.zip", "side"]


def test_links_devices_locks_and_twins_in_a_zip_are_refused(tmp_path):
    link = zipped(tmp_path / "link.zip", {entry("0001.png", stat.S_IFLNK | 0o777): b"/etc/passwd"})
    assert "0001.png: a link" in refused(link)
    pipe = zipped(tmp_path / "pipe.zip", {entry("0001.png", stat.S_IFIFO | 0o644): b""})
    assert "0001.png: a pipe" in refused(pipe)
    twice = zipped(tmp_path / "twice.zip", {"0001.png": b"a", "0002.png": b"b"})
    twice.write_bytes(twice.read_bytes().replace(b"0002.png", b"0001.png"))
    assert "0001.png: a name twice" in refused(tmp_path / "twice.zip")
    data = bytearray(zipped(tmp_path / "locked.zip", {"0001.png": b"a"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    assert "0001.png: encrypted" in refused(tmp_path / "locked.zip")
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        other = zipped(tmp_path / "other.zip", {"0001.png": b"a" * 99}, kind)
        assert "neither stored nor deflated" in refused(other)


def test_bombs_are_refused_by_what_they_declare(tmp_path):
    large = zipped(tmp_path / "large.zip", {"0001.png": b"x", "0002.png": bytes(bundles.MOST_BYTES + 1)})
    assert "0002.png: 1048577 bytes unpacked" in refused(large)
    dense = zipped(tmp_path / "dense.zip", {"0001.png": bytes(500_000)})
    assert "0001.png: 500000 bytes out of" in refused(dense)


def test_a_bomb_that_lies_about_its_size_is_void(tmp_path, clean):
    """The directory says 100 bytes, the stream holds 50 MB: no more than a block of it is unpacked."""
    path = zipped(tmp_path / "s.zip", whole() | {"0003.png": bytes(50_000_000)})
    said, lie = struct.pack("<I", 50_000_000), struct.pack("<I", 100)
    assert path.read_bytes().count(said) == 2
    path.write_bytes(path.read_bytes().replace(said, lie))
    opened = FaceSubmission.open(path, clean)
    tracemalloc.start()
    assert [rule for rule, _ in opened.entry("0003", FaceRules()).broken] == ["PNG"]
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    found = scored(path, clean, {"m": Corner()})
    assert [rule for rule, _ in found.entries[2].broken] == ["PNG"]
    assert found.score == 3 / 4


def test_a_picture_that_declares_any_size_is_not_decoded(tmp_path, clean, monkeypatch):
    data = bytearray(whole()["0001.png"])
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    monkeypatch.setattr("audit.data.png.Image.open", lambda *_, **__: pytest.fail("it was decoded"))
    opened = FaceSubmission.open(handed_in(tmp_path / "s", {"0001.png": bytes(data)}), clean, 1)
    monkeypatch.setattr(FaceSubmission, "_original", lambda *_: np.zeros((112, 112, 3), np.uint8))
    assert opened.entry("0001", FaceRules()).broken == (("112x112 px", "60000x60000 px"),)


def twice_headed(pixels, mode="RGB", depth=8):
    """The picture behind a first header that says 8-bit RGB of 112 x 112 px; Pillow goes by the later one."""
    data = png_bytes(pixels, mode)
    first, second = bytearray(data[8:33]), bytearray(data[8:33])
    first[8:18], second[16] = struct.pack(">IIBB", 112, 112, 8, 2), depth
    for header in (first, second):
        header[21:] = struct.pack(">I", zlib.crc32(header[4:21]))
    return data[:8] + bytes(first + second) + data[33:]


def test_a_second_header_is_void_and_the_others_are_scored(tmp_path, clean):
    files = whole() | {
        "0001.png": twice_headed(attacked(1), "L"),
        "0002.png": twice_headed(np.zeros((3000, 3000, 3), np.uint8)),
        "0003.png": twice_headed(np.zeros((112, 224, 3), np.uint8)[:, :112], depth=16),
    }
    found = scored(handed_in(tmp_path / "s", files), clean, {"m": Corner()})
    assert [e.broken for e in found.entries] == [(("PNG", "more than one header"),)] * 3 + [()]
    assert found.score == 1 / 4


@pytest.mark.parametrize(("shape", "mode"), [((112, 112, 3), "L"), ((3000, 3000, 3), "RGB")])
def test_another_picture_than_the_header_says_is_not_decoded(tmp_path, clean, monkeypatch, shape, mode):
    """Whatever else may make Pillow go by something other than the first header."""
    files = {"0001.png": twice_headed(np.zeros(shape, np.uint8), mode)}
    opened = FaceSubmission.open(handed_in(tmp_path / "s", files), clean, 1)
    monkeypatch.setattr(FaceSubmission, "_original", lambda *_: np.zeros((112, 112, 3), np.uint8))
    monkeypatch.setattr("audit.data.png._headers", lambda _: 1)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    said = "the header says 8-bit RGB, 112x112 px, and the file is another picture"
    assert opened.entry("0001", FaceRules()).broken == (("PNG", said),)


def test_other_pixels_than_the_header_says_are_void(tmp_path, clean, monkeypatch):
    opened = FaceSubmission.open(handed_in(tmp_path / "s", whole()), clean)
    monkeypatch.setattr(FaceSubmission, "_original", lambda *_: np.zeros((112, 112, 3), np.uint8))
    grey = property(lambda _: np.zeros((112, 112), np.uint8).__array_interface__)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.__array_interface__", grey, raising=False)
    said = "the header says 8-bit RGB, 112x112 px, and other pixels came out"
    assert opened.entry("0001", FaceRules()).broken == (("PNG", said),)


def listing(path, count, said, wide=False, extra=b""):
    """A zip of nothing but its list of entries, and what its end (``wide``: of a zip64) says of their number."""
    names = [b"%04d.png" % i for i in range(1, count + 1)]
    head = struct.pack("<4s6H3L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0)
    data = b"".join(head + struct.pack("<5H2L", len(n), len(extra), 0, 0, 0, 0, 0) + n + extra for n in names)
    size, end = len(data), b""
    if wide:
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, said, said, size, 0)
        end += struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
        size = 0xFFFFFFFF
    path.write_bytes(data + end + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, said, said, size, 0, 0))
    return path


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("said", [1, 6])
def test_a_long_list_of_entries_is_refused_before_it_is_taken_apart(tmp_path, monkeypatch, said, wide):
    """Whatever the end of the zip says of their number: ``zipfile`` goes by the bytes."""
    monkeypatch.setattr(bundles, "MOST_FILES", 5)
    assert len(open_bundle(listing(tmp_path / "five.zip", 5, said, wide), "submission").names) == 5
    six = listing(tmp_path / "six.zip", 6, said, wide)
    padded = listing(tmp_path / "padded.zip", 5, said, wide, extra=bytes(400))
    monkeypatch.setattr("zipfile.ZipInfo", lambda *_: pytest.fail("it was taken apart"))
    assert "more than 5 files" in refused(six)
    monkeypatch.setattr(bundles, "MOST_DIRECTORY", 2000)
    assert "a list of entries of more than 2000 bytes" in refused(padded)


def test_the_limits_on_a_list_of_entries_bound_the_memory(tmp_path):
    path = listing(tmp_path / "s.zip", bundles.MOST_FILES + 1, 1)
    tracemalloc.start()
    assert "more than 100000 files" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 2 * bundles.MOST_DIRECTORY
    tracemalloc.stop()


def test_broken_zips_are_one_sentence(tmp_path, clean):
    for name, data in (
        ("text.zip", b"hello"),
        ("empty.zip", b""),
        ("cut.zip", zipped(tmp_path / "x.zip", whole()).read_bytes()[:-30]),
    ):
        (tmp_path / name).write_bytes(data)
        assert "no zip that can be read" in refused(tmp_path / name)
    assert "nothing there" in refused(tmp_path / "gone")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.index(b"0002.png") + 2000
    data[at : at + 50] = bytes(50)
    (tmp_path / "spoiled.zip").write_bytes(data)
    found = scored(tmp_path / "spoiled.zip", clean, {"m": Corner()})
    assert [e.number for e in found.entries if e.void] == ["0002"]


def test_files_in_folders_of_a_zip_are_left_aside(tmp_path, clean):
    path = zipped(tmp_path / "s.zip", {f"mine/{n}": d for n, d in whole().items()} | {"__MACOSX/": b""})
    opened = FaceSubmission.open(path, clean)
    assert "mine/0001.png: in a folder" in opened.strange
    found = scored(path, clean, {"m": Corner()})
    assert (found.score, found.void) == (0, 4)
    assert found.entries[0].broken == (("name", "no such file"),)


def test_links_and_large_files_in_a_folder_are_void(tmp_path, clean):
    given = handed_in(tmp_path / "s", whole() | {"0003.png": bytes(bundles.MOST_BYTES + 1)})
    (given / "0001.png").unlink()
    (given / "0001.png").symlink_to(clean / "0001_compare.png")
    (given / "0002.png").unlink()
    os.mkfifo(given / "0002.png")
    found = scored(given, clean, {"m": Corner()})
    assert [e.broken for e in found.entries] == [
        (("name", "a link"),),
        (("name", "a pipe"),),
        (("PNG", "more than 1048576 bytes"),),
        (),
    ]
    bundle = open_bundle(given, "submission")
    (given / "0004.png").unlink()
    (given / "0004.png").symlink_to(clean / "0001.png")
    with pytest.raises(Unusable):
        bundle.read("0004.png")  # a link that was put there since


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_names_are_printable(name):
    shown = plain(name)
    assert shown.isprintable()
    assert len(shown) <= 201
    if name.isprintable() and len(name) <= 200:
        assert shown == name


def test_hostile_names_are_shown_harmless(tmp_path, clean):
    nasty = "\x1b[2J\u202egnp.1000"
    opened = FaceSubmission.open(zipped(tmp_path / "s.zip", whole() | {nasty: b"x"}), clean)
    assert opened.strange == (r"\x1b[2J\u202egnp.1000: no name that is asked for",)


torch.set_num_threads(1)
