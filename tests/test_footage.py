"""Frames of files: as many as decode, in order, upright and in the right colours; what is damaged is said."""

from __future__ import annotations

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit.data.footage import StillFootage, VideoFootage
from audit.data.quantiser import quantisers
from audit.errors import DataError
from tests.kit import kit
from tests.videos import moving, texture, write_video

COUNT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("footage")


@pytest.fixture(scope="module")
def clip(folder):
    return write_video(folder / "clip.mp4", moving(COUNT), pixels="yuv444p")


@pytest.fixture(scope="module")
def truth(clip):
    return decoded(clip)


def decoded(path):
    """All frames by plain decoding: of 4:4:4 there is no chroma to interpolate."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def far(a, b):
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean()


def faststart(clip, path):
    """The same packets with the index in front, so that what is left of a cut file opens."""
    with av.open(str(clip)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


def cut(path, share, name):
    data = path.read_bytes()
    short = path.with_name(name + path.suffix)
    short.write_bytes(data[: int(len(data) * share)])
    return short


@settings(max_examples=15, deadline=None)
@given(chosen=st.sets(st.integers(0, COUNT - 1), max_size=6))
def test_chosen_frames_are_those_of_plain_decoding(clip, truth, chosen):
    footage = VideoFootage(clip)
    order = sorted(chosen)
    found = footage.read(order)
    assert len(found) == len(order)
    for i, frame in zip(order, found, strict=True):
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        distance = [far(frame, t) for t in truth]
        assert int(np.argmin(distance)) == i
        assert distance[i] < 1.5


def test_count_rate_and_compression(clip):
    footage = VideoFootage.open(clip)
    assert (footage.count, footage.fps, footage.broken) == (COUNT, 25.0, 0)
    with av.open(str(clip)) as container:
        bits = 8 * sum(p.size for p in container.demux(video=0))
    said = footage.compression()
    assert (said.codec, said.size) == ("h264", (64, 96))
    assert said.bits_per_pixel == pytest.approx(bits / (COUNT * 64 * 96))
    assert said.quantiser == pytest.approx(np.mean([q.mean for q in quantisers(clip)]))


@pytest.mark.parametrize(
    ("name", "codec", "said", "exports"),
    [("a.mkv", "libx264", "h264", True), ("a.webm", "libvpx-vp9", "vp9", True), ("b.mp4", "libx265", "h265", False),
     ("c.mp4", "libsvtav1", "av1", False), ("d.avi", "mpeg4", "mpeg4", True), ("e.avi", "mjpeg", "mjpeg", False)],
)  # fmt: skip
def test_containers_and_codecs(tmp_path, name, codec, said, exports):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")
    more = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, moving(12), codec, pixels, **more)
    footage = VideoFootage.open(path)
    assert footage.count == 12
    assert footage.compression().codec == said
    assert (footage.compression().quantiser is not None) is exports
    assert (quantisers(path, limit=3) is not None) is exports


@pytest.mark.parametrize(("space", "full"), [(1, False), (6, False), (1, True), (6, True)])
def test_matrix_and_range_of_the_stream_are_respected(tmp_path, space, full):
    """BT.709 and BT.601 by their own numbers: a colour that one of them turns into something else."""
    red, green, blue = 200, 40, 90
    kr, kb = (0.2126, 0.0722) if space == 1 else (0.299, 0.114)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    planes = y, (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    low = [planes[0], planes[1] + 128, planes[2] + 128]
    if not full:
        low = [16 + planes[0] * 219 / 255, 128 + planes[1] * 224 / 255, 128 + planes[2] * 224 / 255]
    path = tmp_path / "colour.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        data = np.stack([np.full((32, 32), round(v), np.uint8) for v in low])
        frame = av.VideoFrame.from_ndarray(data, format="yuv444p")
        frame.colorspace, frame.color_range = space, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert far(VideoFootage(path).read([0])[0], np.full((32, 32, 3), (red, green, blue))) < 2.5


def test_chroma_is_interpolated(tmp_path):
    """Of a colour ramp that was sampled at half the size, neighbours do not come in equal pairs."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 2] = np.arange(64) * 4, 255 - np.arange(64) * 4
    path = write_video(tmp_path / "ramp.mp4", [ramp], qp="1")
    steps, nearest = (np.diff(f[8, 4:-4, 0].astype(int)) for f in (VideoFootage(path).read([0])[0], decoded(path)[0]))
    assert nearest.min() <= 1, "FFmpeg's own way"
    assert nearest.max() >= 6
    assert steps.min() >= 2
    assert steps.max() <= 6


@pytest.mark.parametrize(
    ("matrix", "clockwise"),
    [
        ((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30), 1),
        ((-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), 2),
        ((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), 3),
    ],
)
def test_rotation_in_the_metadata_is_applied(clip, truth, tmp_path, matrix, clockwise):
    """The display matrix, in the track header, maps (x, y) to (a x + c y, b x + d y)."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    footage = VideoFootage.open(path)
    assert footage.compression().size == ((96, 64) if clockwise % 2 else (64, 96))
    frame = footage.read([20])[0]
    assert frame.shape[:2] == footage.compression().size
    assert far(np.rot90(frame, clockwise), truth[20]) < 1.5


@pytest.mark.parametrize("content", [b"", b"not a video at all, but long enough to look at" * 50])
def test_what_is_no_video_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "no.mp4"
    path.write_bytes(content)
    for ask in (VideoFootage.open, lambda p: VideoFootage(p).count, lambda p: VideoFootage(p).read([0]), quantisers):
        with pytest.raises(DataError, match=r"no\.mp4: expected"):
            ask(path)
    with pytest.raises(DataError):
        VideoFootage.open(tmp_path / "missing.mp4")


def test_a_file_that_was_cut_short_is_refused_when_it_is_opened(clip, folder):
    whole = faststart(clip, folder / "fast.mp4")
    VideoFootage.open(whole)
    half = cut(whole, 0.6, "half")
    with pytest.raises(DataError, match="cut short or damaged"):
        VideoFootage.open(half)
    footage = VideoFootage(half)  # who wants what is left can have it
    assert 0 < footage.count < COUNT, "the container still claims all of them"
    assert footage.broken > 0
    assert len(footage.read(range(footage.count))) == footage.count
    with pytest.raises(DataError, match="cannot be opened"):
        VideoFootage.open(cut(clip, 0.6, "headless"))


@pytest.mark.parametrize("hit", [5, COUNT // 2])
def test_damaged_frames_have_no_number(clip, folder, hit):
    """One packet is overwritten: counted is what decodes, not what comes out although its own packet broke."""
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        at, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][hit]
    data[at + 5 : at + size] = b"\xff" * (size - 5)
    broken = folder / f"broken{hit}.mp4"
    broken.write_bytes(bytes(data))
    shown, lost = [], set()
    with av.open(str(broken)) as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        container.streams.video[0].codec_context.thread_count = 1
        for packet in container.demux(video=0):
            try:
                shown += [f for f in packet.decode() if not f.is_corrupt]
            except av.FFmpegError:
                lost.add(packet.pts)
    assert lost
    if hit == 5:
        assert {f.pts for f in shown} & lost, "pictures came out although their packets broke"
    footage = VideoFootage(broken)
    assert footage.broken >= len(lost)
    assert footage.count == sum(f.pts not in lost for f in shown) < COUNT
    assert len(footage.read(range(footage.count))) == footage.count
    with pytest.raises(DataError, match=f"frame {footage.count} was asked for"):
        footage.read([footage.count])


@pytest.mark.parametrize("wrong", [[2, 1], [1, 1], [-1]])
def test_frame_numbers_rise(clip, wrong):
    with pytest.raises(ValueError, match="expected rising frame numbers"):
        VideoFootage(clip).read(wrong)


def test_pickled_and_from_several_threads(clip, truth):
    footage = pickle.loads(pickle.dumps(VideoFootage.open(clip)))
    assert footage == VideoFootage(clip)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: footage.read([i])[0], range(0, COUNT, 4)))
    assert all(far(f, truth[4 * i]) < 1.5 for i, f in enumerate(found))


def test_stills(tmp_path):
    paths = []
    for i, (suffix, size) in enumerate([("jpg", (40, 56)), ("jpg", (56, 40))]):
        paths.append(tmp_path / f"{i}.{suffix}")
        Image.fromarray(texture(*size, seed=i)).save(paths[-1], quality=50)
    footage = StillFootage.open(paths)
    assert (footage.count, footage.fps) == (2, 0.0)
    assert [f.shape for f in footage.read([0, 1])] == [(40, 56, 3), (56, 40, 3)]
    for path, frame in zip(paths, footage.read([0, 1]), strict=True):
        assert np.array_equal(frame, np.asarray(Image.open(path).convert("RGB")))
    said = footage.compression()
    assert (said.codec, said.size) == ("jpeg", (40, 56))
    assert said.bits_per_pixel == sum(8 * p.stat().st_size for p in paths) / (2 * 40 * 56)
    assert said.quantiser == np.mean([np.mean(Image.open(p).quantization[0]) for p in paths])
    assert pickle.loads(pickle.dumps(footage)) == footage


def test_stills_without_a_table_and_mixed_ones(tmp_path):
    one, two = tmp_path / "a.png", tmp_path / "b.jpg"
    for path in (one, two):
        Image.fromarray(texture(32, 32)).save(path)
    assert (StillFootage(one).compression().codec, StillFootage(one).compression().quantiser) == ("png", None)
    mixed = StillFootage([one, two]).compression()
    assert (mixed.codec, mixed.quantiser) == ("jpeg+png", None)


def test_stills_that_cannot_be_decoded_are_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(texture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        StillFootage.open(path)
    with pytest.raises(DataError, match="no file"):
        StillFootage([])


@pytest.mark.kit
def test_the_kit_s_videos_say_how_they_were_compressed():
    """One of FaceForensics++'s files is filed under c23 and says of itself that it is crf=40."""
    coarse, fine = (kit("ffpp_c23_videos", f"{n}.mp4") for n in ("004", "004_982"))
    assert b"crf=40.0" in coarse.read_bytes()
    assert b"crf=23.0" in fine.read_bytes()
    mean = [np.mean([q.mean for q in quantisers(p, limit=8)]) for p in (coarse, fine)]
    assert mean[0] - mean[1] > 15
    frames = VideoFootage.open(coarse).read([0, 7])
    assert [f.shape for f in frames] == [(720, 1280, 3)] * 2
