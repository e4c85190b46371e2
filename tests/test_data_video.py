"""Frames of videos: by number and exactly, in any order, through damage; many of them in little memory."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.data import open_scenes, read_drives, read_frames, read_video
from audit.data.assemble import printable
from audit.data.frames import Folder
from audit.data.video import _KEPT, _OPEN, Video
from audit.errors import DataError
from audit.execution import Execution
from tests.kit import kit
from tests.videos import in_order, moving, write_frames, write_video

COUNT = 48


def pixels(video, index):
    return video.load(index).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def clip(folder):
    return write_video(folder / "clip.mp4", moving(COUNT))


@pytest.fixture(scope="module")
def opened(clip):
    return Video(clip), in_order(clip)


def test_the_test_video_has_b_frames(clip):
    with av.open(str(clip)) as container:
        stamps = [p.pts for p in container.demux(video=0) if p.size]
    assert stamps != sorted(stamps)  # else seeking would be easy


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=12))
def test_any_order_gives_what_decoding_from_the_start_gives(opened, order):
    video, truth = opened
    for i in order:
        assert np.array_equal(pixels(video, i), truth[i])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {}),
        ("a.ts", "libx264", {}),
        ("a.avi", "libx264", {}),  # whose time stamps are of no use with B-frames
        ("open.mp4", "libx264", {"x264-params": "open-gop=1"}),
        ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1", "bf": "0"}),
        ("a.webm", "libvpx", {}),
        ("b.mp4", "mpeg4", {"bf": "2", "g": "12"}),
        ("odd.mkv", "ffv1", {}),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec, options):
    size = (47, 61) if codec == "ffv1" else (64, 96)
    path = write_video(tmp_path / name, moving(40, size), codec, "bgr0" if codec == "ffv1" else "yuv420p", **options)
    video, truth = Video(path), in_order(path)
    assert video.count == len(truth) == 40
    assert not video.broken
    assert video.size(0) == size
    order = random.Random(3).sample(range(40), 40)
    assert all(np.array_equal(pixels(video, i), truth[i]) for i in (*order, *range(40), 39, 0))
    assert bool(video.notes) == (name == "a.avi")


@pytest.mark.kit
def test_a_real_video_in_any_order():
    path = kit("ffpp_c23_videos", "004.mp4")
    video, order = Video(path), random.Random(0).sample(range(309), 6)
    assert (video.count, video.broken, video.notes) == (309, {}, ())
    with av.open(str(path)) as container:
        truth = {i: f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in order}
    assert all(np.array_equal(pixels(video, i), truth[i]) for i in order)


def test_odd_sizes_and_variable_frame_rates(tmp_path):
    stamps = np.cumsum(np.random.default_rng(1).integers(1, 30, 30)).tolist()
    path = write_video(tmp_path / "v.mkv", moving(30, (49, 63)), pixels="yuv444p", stamps=stamps)
    video, truth = Video(path), in_order(path)
    assert video.size(7) == (49, 63)
    assert all(np.array_equal(pixels(video, i), truth[i]) for i in random.Random(0).sample(range(30), 30))


def turned(source, path, matrix):
    """A copy whose display matrix (in the track header) is another one."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 if data[at] == 0 else 52
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "clockwise"),
    [
        ((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30), 1),
        ((-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), 2),
        ((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), 3),
    ],
)
def test_rotation_in_the_metadata_is_applied(clip, tmp_path, matrix, clockwise):
    # the matrix maps (x, y) to (a x + c y, b x + d y): with b = 1, c = −1 right becomes down, a quarter clockwise
    video, truth = Video(turned(clip, tmp_path / "turned.mp4", matrix)), in_order(clip)
    assert video.size(0) == ((96, 64) if clockwise % 2 else (64, 96))
    assert np.array_equal(pixels(video, 20), np.rot90(truth[20], -clockwise))


def test_damage_is_named_and_numbers_stay(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size]
    step = sorted(p for p, _, _ in packets)[1]
    hit = packets[20]
    data[hit[1] + 5 : hit[1] + hit[2]] = b"\xff" * (hit[2] - 5)
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    video, truth = Video(path), in_order(clip)
    assert video.count == COUNT
    assert hit[0] // step in video.broken
    assert 12 <= min(video.broken) <= max(video.broken) < 24  # nothing outside its own group of pictures
    for i in [*range(12), *range(24, COUNT)]:
        assert np.array_equal(pixels(video, i), truth[i])
    scenes = read_video(path)
    assert len(scenes) == COUNT - len(video.broken)
    assert [u.name for u in scenes.unreadable] == [f"broken/{i:06d}" for i in sorted(video.broken)]
    assert any(f"{len(video.broken)} of {COUNT} frame(s) do not decode" in n for n in scenes.notes)
    with pytest.raises(DataError, match="that decodes"):
        video.load(min(video.broken))


def test_a_video_that_ends_early(tmp_path):
    path = write_video(tmp_path / "whole.ts", moving(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < len(read_video(path)) < 40


def test_what_is_no_video_is_said(tmp_path, clip):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "none.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:2000])
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    for name, got in (("text", "cannot be opened"), ("none", ""), ("cut", ""), ("sound", "no video stream")):
        path = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(DataError, match=rf"video {path.name}: expected .*{got}") as e:
            read_video(path)
        assert str(e.value).count("\n") == 0
    with pytest.raises(DataError, match="nothing there"):
        open_scenes(f"video:{tmp_path / 'gone.mp4'}")
    with pytest.raises(DataError, match="a folder of those"):
        read_drives(tmp_path / "gone")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "bad.mp4").write_text("hello")
    (tmp_path / "many" / "good.mp4").write_bytes(clip.read_bytes())
    scenes = read_drives(tmp_path / "many")
    assert (len(scenes), [u.name for u in scenes.unreadable]) == (COUNT, ["bad.mp4"])


def test_a_changed_file_is_noticed(clip, tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(clip.read_bytes())
    video = Video(path)
    write_video(path, moving(COUNT, seed=4))
    with pytest.raises(DataError, match="leave the data alone"):
        video.load(5)


def test_without_pyav_the_extra_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"assay-audit\[video\]"):
        read_video(clip)


def test_decoders_kept_open_are_few_and_threads_take_turns(clip):
    videos = [Video(clip) for _ in range(_KEPT + 2)]
    truth = in_order(clip)
    wrong = []

    def work(seed):
        choose = random.Random(seed)
        for _ in range(30):
            video, i = choose.choice(videos), choose.randrange(COUNT)
            if not np.array_equal(pixels(video, i), truth[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(_OPEN) <= _KEPT
    assert all(len(v._cache) <= _KEPT for v in videos)
    videos[0].load(3).zero_()  # a caller's copy, not ours
    assert np.array_equal(pixels(videos[0], 3), truth[3])


def test_in_order_nothing_is_sought(clip, monkeypatch):
    video = Video(clip)
    jumps = []
    seek, restart = Video._seek, Video._restart
    monkeypatch.setattr(Video, "_seek", lambda self, stamp: (jumps.append(stamp), seek(self, stamp)))
    monkeypatch.setattr(Video, "_restart", lambda self: (jumps.append(None), restart(self)))
    for batch in Execution().batches(read_video_of(video), 7):
        assert batch.images.shape[1:] == (3, 64, 96)
    assert len(jumps) <= 2  # the first frame's: open, and go to its key frame


def read_video_of(video):
    scenes = read_video(video.path)
    loads = {s.id: (lambda i=i: video.load(i)) for i, s in enumerate(scenes)}
    return [type(s)(s.id, s.group, s.size, s.boxes, s.labels, s.ignore, s.digest, loads[s.id]) for s in scenes]


# scenes


def test_scenes_of_a_video(clip):
    heard = []
    scenes = read_video(clip, progress=lambda share, text: heard.append((share, text)))
    truth = in_order(clip)
    ids = [s.id for s in scenes]
    assert ids == sorted(ids) == [f"clip/{i:06d}" for i in range(COUNT)]
    assert scenes.labelled_by == "self"
    assert all(np.array_equal(s.load().permute(1, 2, 0).numpy(), t) for s, t in zip(scenes, truth, strict=True))
    assert len({s.digest for s in scenes}) == COUNT
    assert [s.group for s in scenes] == ["clip#1"] * (COUNT // 2) + ["clip#2"] * (COUNT // 2)
    assert any("frames on both sides of a border may look alike" in n for n in scenes.notes)
    craft, held_out = scenes.split(0.5)
    assert len(craft) == len(held_out) == COUNT // 2
    assert [h for h, _ in heard] == sorted(h for h, _ in heard)
    assert heard[-1][0] == 1
    assert len(heard) >= COUNT
    assert len({s.group for s in read_video(clip, blocks=6)}) == 6
    assert {s.group for s in read_video(clip, blocks=1)} == {"clip"}
    with pytest.raises(DataError, match="blocks: expected 1 or more"):
        read_video(clip, blocks=0)


def test_several_videos_are_groups_and_copies_are_one(tmp_path, clip):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(clip.read_bytes())
    write_video(tmp_path / "c.mkv", moving(10, seed=2))
    write_video(tmp_path / "c.mp4", moving(10, seed=3))
    scenes = open_scenes(tmp_path)
    assert {s.id.split("/")[0]: s.group for s in scenes} == {"a": "a", "b": "a", "c.mkv": "c.mkv", "c.mp4": "c.mp4"}
    assert not any("border" in n for n in scenes.notes)


def test_a_folder_of_frames_is_a_video_in_the_order_of_its_numbers(tmp_path):
    frames = list(moving(12))
    folder = write_frames(tmp_path / "drive", frames)
    (folder / "5.png").write_bytes(b"broken")
    scenes = read_frames(folder)
    assert [s.id for s in scenes] == [f"drive/{i:06d}" for i in range(12) if i != 5]
    assert [u.name for u in scenes.unreadable] == ["drive/000005"]
    for s in scenes:
        assert np.array_equal(s.load().permute(1, 2, 0).numpy(), frames[int(s.id[-6:])])
    assert [f.name for f in Folder(folder).files][9:] == ["9.png", "10.png", "11.png"]
    for file in folder.iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="12 image"):
        read_frames(folder)


def test_copies_of_frames_in_other_folders_stay_on_one_side(tmp_path):
    frames, other = list(moving(6)), list(moving(6, seed=5))
    write_frames(tmp_path / "a", frames[:3])
    write_frames(tmp_path / "b", [frames[2], other[0], other[1]])  # a frame of a, under another number
    write_frames(tmp_path / "c", other[3:])
    for name in "abc":
        rows = "".join(f"{i},10,10,50,10,50,40,10,40\n" for i in range(3))
        (tmp_path / f"{name}.areas.csv").write_text(f"frame,x1,y1,x2,y2,x3,y3,x4,y4\n{rows}")
    scenes = read_drives(tmp_path)
    assert {s.id[0]: s.group for s in scenes} == {"a": "a", "b": "a", "c": "c"}
    for s in scenes:
        file = tmp_path / s.id[0] / f"{int(s.id[-6:])}.png"
        assert s.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert any("1 frame(s) are exact copies" in n for n in scenes.notes)
    for share in (0.2, 0.5, 0.8):
        craft, held_out = scenes.split(share)
        assert {s.load().numpy().tobytes() for s in craft}.isdisjoint(s.load().numpy().tobytes() for s in held_out)


def test_names_reach_no_terminal_with_controls(tmp_path):
    name = "x\x1b[31m\x9b1m\u202egnp\n\x7f"
    try:
        write_frames(tmp_path / name, moving(2))
    except OSError:
        pytest.skip("this disk has no such names")
    scenes = read_drives(tmp_path)
    shown = [scenes.name, scenes.source, *scenes.notes, *(w for s in scenes for w in (s.id, s.group))]
    assert all(t.isprintable() for t in shown)
    assert scenes[0].id == r"x\x1b[31m\x9b1m\u202egnp\n\x7f/000000"
    assert printable("Straße 車 é") == "Straße 車 é"


def test_a_stray_video_among_images_changes_nothing(tmp_path, clip):
    write_frames(tmp_path, moving(3))
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    assert open_scenes(tmp_path).source.startswith("folder of images")
    assert len(open_scenes(f"video:{tmp_path}")) == COUNT
    assert len(open_scenes(tmp_path / "clip.mp4")) == COUNT


MEMORY = r"""
import re, sys
from pathlib import Path
import torch
from audit.data import read_video
from audit.execution import Execution
torch.set_num_threads(1)

def peak():  # KiB of this program alone: getrusage's peak is inherited from the process that started it
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

base = peak()
scenes = read_video(Path(sys.argv[1]))
execution, sums = Execution(), []
detector = lambda images: images.mean((1, 2, 3))
for batch in execution.batches(scenes, 8):
    sums += detector(batch.images).tolist()
assert len(sums) == 240 and len(set(sums)) > 100
print((peak() - base) / 2**20)
"""


@pytest.mark.slow
def test_240_frames_of_1080p_stay_far_under_2_gib(tmp_path):
    path = write_video(tmp_path / "long.mp4", moving(240, (1080, 1920)), preset="ultrafast", g="48")
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2, done.stdout
    assert float(done.stdout) > 0.05  # a peak that does not move would measure nothing
