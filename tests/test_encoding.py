"""Video encoders at a constant quantiser: what they did is read back from their bits, in two ways."""

from __future__ import annotations

import io
import json

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from audit.data.footage import VideoFootage
from audit.data.quantiser import Quantiser, quantisers
from audit.errors import DataError
from probes.forgery.encoding import C23, C40, Encode, Still, available_codecs, decode
from probes.forgery.resend import Resend, Step
from tests.kit import kit
from tests.videos import moving, texture

CODECS = ("h264", "h265", "vp9", "av1")


def psnr(a, b):
    return peak_signal_noise_ratio(np.stack(a), np.stack(b))


@pytest.fixture(scope="module")
def frames():
    """A moving texture of pale colours with grain: something to lose other than chroma."""
    rng = np.random.default_rng(0)
    grain = [rng.normal(0, 6, (96, 128, 3)) for _ in range(16)]
    pale = [f.mean(2, keepdims=True) + 0.1 * f for f in moving(16, (96, 128))]
    return [np.clip(0.9 * f + g, 0, 255).astype(np.uint8) for f, g in zip(pale, grain, strict=True)]


def built(codec):
    if codec not in available_codecs():
        pytest.skip(f"this build of PyAV has no encoder for {codec}")
    return codec


class Bits:
    """The bits of a unit of H.264, without the bytes that keep start codes from appearing in it (7.4.1.1)."""

    def __init__(self, unit):
        self.bits = "".join(f"{b:08b}" for b in unit.replace(b"\x00\x00\x03", b"\x00\x00"))
        self.at = 0

    def u(self, n):
        self.at += n
        return int(self.bits[self.at - n : self.at], 2) if n else 0

    def ue(self):
        zeros = self.bits.index("1", self.at) - self.at
        self.at += zeros
        return self.u(zeros + 1) - 1

    def se(self):
        k = self.ue()
        return (k + 1) // 2 if k % 2 else -(k // 2)


def slice_quantisers(data):
    """SliceQPY of each slice: 26 + pic_init_qp_minus26 + slice_qp_delta, read from SPS, PPS and slice headers (7.3).

    As much of the syntax as x264's progressive streams need: no slice groups, no scaling lists, no field pictures.
    """
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        sets = stream.codec_context.extradata  # avcC: version, profile, level, lengths, SPS, PPS
        samples = [bytes(p) for p in container.demux(stream) if p.size]
    n = int.from_bytes(sets[6:8], "big")
    sps, pps = _sps(Bits(sets[9 : 8 + n])), _pps(Bits(sets[8 + n + 4 :]))
    out = []
    for sample in samples:
        at = 0
        while at < len(sample):
            size = int.from_bytes(sample[at : at + 4], "big")
            unit = sample[at + 4 : at + 4 + size]
            at += 4 + size
            if unit[0] & 31 in (1, 5):
                out.append(_slice(Bits(unit[1:200]), unit[0] & 31, unit[0] >> 5 & 3, sps, pps))
    return out


def _sps(b):
    profile = b.u(8)
    b.u(16)
    b.ue()
    if profile in (100, 110, 122, 244):
        if b.ue() == 3:
            b.u(1)
        b.ue(), b.ue(), b.u(1)
        assert b.u(1) == 0, "scaling lists"
    frame_num = b.ue() + 4
    kind = b.ue()
    assert kind in (0, 2)
    return frame_num, b.ue() + 4 if kind == 0 else 0


def _pps(b):
    b.ue(), b.ue()
    cabac, order = b.u(1), b.u(1)
    assert b.ue() == 0, "slice groups"
    refs = b.ue() + 1, b.ue() + 1
    weighted, weighted_b = b.u(1), b.u(2)
    return cabac, order, refs, weighted, weighted_b, 26 + b.se()


def _slice(b, unit, important, sps, pps):
    cabac, order, refs, weighted, weighted_b, initial = pps
    b.ue()
    kind = b.ue() % 5  # 0 P, 1 B, 2 I
    b.ue()
    b.u(sps[0])
    if unit == 5:
        b.ue()
    if sps[1]:
        b.u(sps[1])
        if order:
            b.se()
    refs = list(refs)
    if kind == 1:
        b.u(1)
    if kind < 2 and b.u(1):
        refs = [b.ue() + 1, b.ue() + 1 if kind == 1 else 0]
    for _ in range((1, 2, 0)[kind]):  # changed order of references
        if b.u(1):
            while b.ue() != 3:
                b.ue()
    if (weighted and kind == 0) or (weighted_b == 1 and kind == 1):
        b.ue(), b.ue()
        for count in refs[: 1 + (kind == 1)]:
            for _ in range(count):
                if b.u(1):
                    b.se(), b.se()
                if b.u(1):
                    b.se(), b.se(), b.se(), b.se()
    if important:
        if unit == 5:
            b.u(2)
        elif b.u(1):
            while (operation := b.ue()) != 0:
                b.ue()
                if operation == 3:
                    b.ue()
    if cabac and kind < 2:
        b.ue()
    return initial + b.se()


@pytest.mark.parametrize("quantiser", [1, 23, 40, 51])
@pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
def test_the_quantiser_of_every_block_is_the_one_that_was_asked_for(frames, quantiser, chroma):
    data = Encode("h264", quantiser, chroma).encode(frames, 25)
    assert quantisers(data) == [Quantiser(quantiser, quantiser, quantiser)] * len(frames)
    assert slice_quantisers(data) == [quantiser] * len(frames), "a second reading, from the headers alone"


def test_both_readings_see_a_quantiser_that_varies(frames):
    """Else a reader that says what was asked for would pass."""
    data = Encode("h264", 23, adaptive=True).encode(frames, 25)
    each = quantisers(data)
    assert any(q.low < q.high for q in each)
    assert len({round(q.mean) for q in each}) > 1
    headers = slice_quantisers(data)
    assert len(headers) == len(each)
    assert len(set(headers)) > 1
    assert [len(quantisers(data, limit=n)) for n in (1, 5)] == [1, 5]


def test_frames_of_all_types_are_among_them(frames):
    with av.open(io.BytesIO(C23.encode(frames, 25))) as container:
        kinds = {f.pict_type for f in container.decode(video=0)}
    assert {int(k) for k in kinds} == {1, 2, 3}  # I, P, B: at x264's own factors they would differ by 3 and 2


@pytest.mark.parametrize("codec", CODECS)
def test_coarser_is_smaller_and_worse(frames, codec):
    largest = 51 if codec in ("h264", "h265") else 63
    steps = [Encode(built(codec), q) for q in (5, largest // 2, largest - 5)]
    sizes = [len(e.encode(frames, 25)) for e in steps]
    assert 96 * 128 * 3 * 16 > sizes[0] > sizes[1] > sizes[2]
    found = [e.apply(frames, fps=25, seed=0) for e in steps]
    assert all([f.shape for f in x] == [(96, 128, 3)] * 16 for x in found)
    close = [psnr(frames, x) for x in found]
    assert close[0] - 1 > close[1] > close[2] + 1 > 15
    assert close[0] > 33
    own = np.array([[((a.astype(float) - b) ** 2).mean() for b in frames] for a in found[0]])
    assert (own.argmin(1) == np.arange(16)).all(), "frames come back in their order"


def test_vp9_has_one_index(frames):
    """libvpx's quantiser 20 is the index 80 of the stream."""
    assert quantisers(Encode(built("vp9"), 20).encode(frames, 25)) == [Quantiser(80, 80, 80)] * len(frames)


def test_h265_of_one_or_two_frames_has_no_b_frames(frames):
    """With room for none, x265 leaves time stamps undefined that wait for them, and now and then writing fails."""
    for count in (1, 2):
        with av.open(io.BytesIO(Encode(built("h265"), 30).encode(frames[:count], 25))) as container:
            assert len(list(container.decode(video=0))) == count
            assert not container.streams.video[0].codec_context.has_b_frames


@pytest.mark.parametrize("codec", CODECS)
def test_equal_frames_give_equal_bytes(frames, codec):
    encoder = Encode(built(codec), 33)
    first = encoder.encode(frames, 25)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        again = encoder.encode([f.copy() for f in frames], 25)
    finally:
        torch.set_num_threads(before)
    assert first == again
    assert encoder.encode([*frames[:-1], 255 - frames[-1]], 25) != first
    one, two = (encoder.apply(frames, fps=25, seed=s) for s in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(CODECS),
    st.integers(1, 5),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([0, 12.5, 29.97]),
)
def test_any_number_of_frames_of_any_size_comes_back(codec, count, height, width, fps):
    if codec not in available_codecs():
        return
    given_frames = [texture(height, width, seed=i) for i in range(count)]
    found = Encode(codec, 10).apply(given_frames, fps=fps, seed=0)
    assert [f.shape for f in found] == [(height, width, 3)] * count
    assert all(f.dtype == np.uint8 and f.flags.c_contiguous for f in found)
    assert psnr(given_frames, found) > 15


def test_the_edge_of_an_odd_size_is_not_darkened():
    """Continued by zeros, the last row and column would ring and be mixed with black chroma."""
    frame = np.full((33, 47, 3), (200, 120, 60), np.uint8)
    found = C23.apply([frame], fps=25, seed=0)[0].astype(int)
    assert np.abs(found - frame).max() <= 3


def test_grey_and_saturated_colours_survive_the_conversion():
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (210, 150, 120)]
    for colour in colours:
        frame = np.full((32, 32, 3), colour, np.uint8)
        found = Encode("h264", 1).apply([frame], fps=25, seed=0)[0].astype(int)
        assert np.abs(found - frame).max() <= 4, colour


def moved_by(a, b):
    """Px by which the red difference of b lies to the right of a's, to an eighth."""
    first, second = (cv2.cvtColor(f, cv2.COLOR_RGB2YCrCb)[..., 1].astype(np.float32) for f in (a, b))
    size = (a.shape[1], a.shape[0])

    def away(by):
        there = cv2.warpAffine(first, np.float32([[1, 0, by], [0, 1, 0]]), size, borderMode=cv2.BORDER_REPLICATE)
        return float(np.abs(there - second)[:, 4:-4].mean())

    return min(np.arange(-2, 2.01, 0.125), key=away)


@pytest.mark.parametrize("codec", [c for c in ("h264", "h265") if c in CODECS])
def test_colour_stays_where_it_was(codec):
    """What samples of chroma stand for is said in the stream: else each encoding moves them half a pixel."""
    drawn = np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).astype(np.float32)
    picture = cv2.resize(drawn, (64, 48)).astype(np.uint8)

    def error(codec):
        (found,) = Encode(codec, 0).apply([picture], fps=0, seed=0)
        return float(np.abs(found.astype(int) - picture).mean())

    assert error(codec) <= 1.1 * error("vp9")
    twice = [picture] * 3
    for _ in range(2):
        twice = Encode(codec, 0).apply(twice, fps=25, seed=0)
    assert abs(moved_by(picture, twice[0])) < 0.1


def test_the_build_is_in_the_record():
    assert C40.spec()["build"]["PyAV"] == av.__version__
    assert C40.spec()["build"]["libavcodec"] == list(av.library_versions["libavcodec"])
    assert json.loads(json.dumps(Still(40).spec())) == Still(40).spec()


def test_stills_are_encoded_each_for_itself(frames):
    mixed = [frames[0], frames[5][:51, :33], frames[9]]
    found = C40.apply(mixed, fps=0, seed=0)
    assert [f.shape for f in found] == [f.shape for f in mixed]
    for given_frame, frame in zip(mixed, found, strict=True):
        alone = decode(C40.encode([given_frame], 25), given_frame.shape[:2])
        assert len(alone) == 1
        assert np.array_equal(frame, alone[0])
    one = C40.encode(frames[:1], 25)
    with av.open(io.BytesIO(one)) as container:
        assert [int(f.pict_type) for f in container.decode(video=0)] == [1], "one intra frame"
    assert quantisers(one) == [Quantiser(40, 40, 40)]
    assert slice_quantisers(one) == [40]
    still = Still(40).apply(frames, fps=25, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(still, C40.apply(frames, fps=0, seed=0), strict=True))
    moved = C40.apply(frames, fps=25, seed=0)
    assert not np.array_equal(still[5], moved[5]), "in a video neighbours are made use of"
    assert C40.apply([], fps=25, seed=0) == C40.apply([], fps=0, seed=0) == []


def test_frames_of_one_video_have_one_size(frames):
    with pytest.raises(DataError, match="2 frames of 2 sizes"):
        C23.apply([frames[0], frames[1][:50]], fps=25, seed=0)
    with pytest.raises(DataError, match="0 frames"):
        C23.encode([], 25)


def test_a_codec_that_the_build_lacks_is_named(frames, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"libx264"})
    assert available_codecs() == ("h264",)
    with pytest.raises(DataError, match=r"encoding to AV1: expected .* libsvtav1, .* use one of h264"):
        Encode("av1", 30).encode(frames, 25)


@pytest.mark.parametrize(
    "wrong",
    [{"codec": "mpeg2"}, {"quantiser": -1}, {"quantiser": 52}, {"codec": "vp9", "quantiser": 64}, {"chroma": "4:2:2"},
     {"codec": "av1", "chroma": "4:4:4"}, {"codec": "vp9", "adaptive": True}],
)  # fmt: skip
def test_what_no_encoder_does_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Encode(**wrong)
    if "adaptive" not in wrong:
        with pytest.raises(ValueError, match="expected"):
            Still(**wrong)


def test_names_and_specs_tell_shifts_apart():
    shifts = [C23, C40, Encode("h264", 23, "4:4:4"), Encode("h264", 23, adaptive=True), Encode("h265", 23),
              Encode("vp9", 23), Encode("av1", 23), Still(23), Still(40), Resend(),
              Resend((Step("once", scale=0.5),))]  # fmt: skip
    assert len({s.name for s in shifts}) == len({json.dumps(s.spec()) for s in shifts}) == len(shifts)
    assert {s.level for s in shifts} == {"video"}
    assert [C23.name, C40.name] == ["H.264 QP 23", "H.264 QP 40"]
    assert "qp=40:ipratio=1:pbratio=1" in C40.spec()["options"]["x264-params"]


def test_a_chain_is_its_steps_one_after_the_other(frames):
    import cv2

    chain = Resend((Step("a", longest=100, quantiser=28), Step("b", scale=0.5, quantiser=35, codec="h265")))
    found = chain.apply(frames, fps=25, seed=0)
    now = frames
    for (height, width), encoder in (((76, 100), Encode("h264", 28)), ((38, 50), Encode("h265", 35))):
        now = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in now]
        now = decode(encoder.encode(now, 25), (height, width))
    assert len(found) == len(now) == len(frames)
    assert all(np.array_equal(a, b) for a, b in zip(found, now, strict=True))
    assert chain.size(96, 128) == (38, 50)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.integers(2, 3000))
def test_sizes_of_the_default_chain(height, width):
    small = Resend().size(height, width)
    assert small[0] <= height
    assert small[1] <= width
    if max(height, width) <= 640:
        assert small == (height, width)
    else:
        assert max(small) == 640
        assert small[0] % 2 == small[1] % 2 == 0
        if min(small) >= 100:
            assert small[0] / small[1] == pytest.approx(height / width, rel=0.03)


def test_small_footage_is_not_enlarged(frames):
    found = Resend().apply(frames[:3], fps=25, seed=0)
    assert [f.shape for f in found] == [(96, 128, 3)] * 3
    once = Encode("h264", 30).apply(frames[:3], fps=25, seed=0)
    assert psnr(frames[:3], found) < psnr(frames[:3], once)


@pytest.mark.parametrize("wrong", [{}, {"longest": 100, "scale": 0.5}, {"longest": 1}, {"scale": 0}, {"scale": 1.5},
                                   {"scale": 0.5, "quantiser": 60}])  # fmt: skip
def test_steps_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Step("wrong", **wrong)
    with pytest.raises(ValueError, match="at least one step"):
        Resend(())


@pytest.mark.kit
def test_c23_and_c40_of_a_real_video():
    """Every block of every frame at 23 and at 40; c40 smaller than c23 smaller than the same frames without loss."""
    clip = VideoFootage(kit("ffpp_c23_videos", "519.mp4")).read(range(12))
    raw = len(Encode("h264", 0).encode(clip, 25))
    data = {e.quantiser: e.encode(clip, 25) for e in (C23, C40)}
    for quantiser, bits in data.items():
        assert quantisers(bits) == [Quantiser(quantiser, quantiser, quantiser)] * 12
        assert slice_quantisers(bits) == [quantiser] * 12
    assert len(data[40]) < 0.4 * len(data[23])
    assert len(data[23]) < 0.4 * raw
    fine, coarse = (psnr(clip, decode(data[q])) for q in (23, 40))
    assert fine > 38 > coarse > 26
    stills = Still(40).apply(clip[:2], fps=25, seed=0)
    assert 26 < psnr(clip[:2], stills) < 38
