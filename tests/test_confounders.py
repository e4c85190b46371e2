"""Does compression tell fake from real: planted in data, found; not planted, not found. AUC as scikit-learn counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from audit.data.clips import Clip, Clips, Compression, linked
from audit.data.footage import VideoFootage
from audit.errors import DataError
from audit.measures.confounders import ALL, compressions, confounders
from tests.kit import kit


class Said:
    """Footage of which only the compression is asked."""

    def __init__(self, bits=0.1, quantiser=25.0, codec="h264", size=(480, 640)):
        self.said = Compression(codec, bits, quantiser, size)

    def compression(self):
        if self.said.bits_per_pixel == -1:
            raise DataError("video", expected="a video", got="none", mend="mend it")
        return self.said


def clip(name, method, group=None, **said):
    return Clip(name, method, group or name, Said(**said), name)


def data(*clips):
    return Clips(clips, "planted", "the test")


def plain(real, fake, **more):
    """Clips without common sources that differ in their bits per pixel alone."""
    reals = [clip(f"r{i}", "", bits=b, **more) for i, b in enumerate(real)]
    return data(*reals, *(clip(f"f{i}", "DF", bits=b, **more) for i, b in enumerate(fake)))


def of(found, quantity, method=ALL):
    return next(c for c in found.contrasts if (c.quantity, c.method) == (quantity, method))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]), min_size=1, max_size=9),
    st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]), min_size=1, max_size=9),
)
def test_the_rule_on_random_and_tied_numbers(real, fake):
    found = of(confounders(plain(real, fake)), "bits per pixel")
    auc = roc_auc_score([0] * len(real) + [1] * len(fake), real + fake)
    assert found.auc == pytest.approx(max(auc, 1 - auc), abs=1e-12)
    assert (found.genuine, found.fakes) == (len(real), len(fake))
    one, two = np.median(real), np.median(fake)
    assert (found.real, found.fake) == (one, two)
    assert found.ratio == pytest.approx(max(one / two, two / one))
    if abs(found.auc - 0.8) > 1e-9:
        enough = min(len(real), len(fake)) >= 4
        assert found.raised is bool(found.auc > 0.8 and (enough or found.ratio >= 2))


def test_the_size_of_a_lossless_file_is_the_picture_s_own():
    found = confounders(plain([2.0] * 5, [9.0] * 5, codec="png"))
    assert "bits per pixel" not in {c.quantity for c in found.contrasts}
    assert not found.raised
    assert confounders(plain([2.0] * 5, [9.0] * 5, codec="jpeg")).raised


def test_equal_compression_raises_nothing():
    numbers = [0.05, 0.08, 0.11, 0.2, 0.4]
    found = confounders(plain(numbers, numbers))
    assert not found.raised
    assert found.sentences == ("neither bit rate nor size, codec or quantiser tells fake from genuine clips",)
    assert [c.auc for c in found.contrasts] == [0.5] * 6
    assert found.diagnostics
    assert not any(d.raised for d in found.diagnostics)
    assert {d.limit for d in found.diagnostics} == {0.8}


@pytest.mark.parametrize("more", [1.1, 1 / 1.1])
def test_a_small_but_constant_difference_is_found_in_either_direction(more):
    numbers = [0.100, 0.101, 0.102, 0.103]
    found = confounders(plain(numbers, [more * n for n in numbers]))
    assert found.raised
    rows = {d.name.partition(": ")[2]: d for d in found.diagnostics}
    assert (rows["bits per pixel"].value, rows["bits per pixel"].raised) == (1.0, True)
    assert (rows["size in pixels"].value, rows["size in pixels"].raised) == (0.5, False)
    assert "4 and 4 clip(s)" in found.sentences[0]


def test_one_method_is_found_among_others_that_are_fair():
    fair = [0.1, 0.2, 0.3, 0.4]
    reals = [clip(f"r{i}", "", bits=b) for i, b in enumerate(fair)]
    good = [clip(f"g{i}", "FS", bits=b) for i, b in enumerate(fair)]
    bad = [clip(f"b{i}", "NT", bits=b, size=(240, 320)) for i, b in enumerate(fair)]
    found = confounders(data(*reals, *good, *bad))
    assert [(c.quantity, c.method) for c in found.contrasts if c.raised] == [("size in pixels", "NT")]
    assert of(found, "size in pixels").auc == 0.75
    grid = found.grid()
    assert grid.columns == [ALL, "FS", "NT"]
    assert grid.marks == [(grid.rows.index("size in pixels"), 2)]
    assert grid.values[grid.rows.index("size in pixels")] == [0.75, 0.5, 1.0]


def test_codecs_and_their_shares():
    reals = [clip(f"r{i}", "", codec="h264") for i in range(4)]
    mixed = [clip(f"f{i}", "DF", codec="h264" if i else "vp9") for i in range(4)]
    found = confounders(data(*reals, *mixed))
    assert found.codecs == {"h264": (0.75, 1.0), "vp9": (0.25, 0.0)}
    assert of(found, "codec vp9").auc == (1 + 0.25) / 2
    assert not found.raised
    other = confounders(data(*reals, *(clip(f"f{i}", "DF", codec="vp9") for i in range(4))))
    assert other.raised
    assert of(other, "codec vp9").auc == 1
    assert all(not c.quantity.startswith("quantiser") for c in other.contrasts), "scales of two codecs are not compared"
    one = confounders(data(reals[0], clip("f", "DF", codec="vp9")))
    assert {d.name.partition(": ")[2]: (d.value, d.limit) for d in one.diagnostics if d.raised} == {
        "codec h264": (1.0, 1.0),
        "codec vp9": (1.0, 1.0),
    }


@pytest.mark.parametrize(
    ("codec", "quantiser", "raised"), [("h264", 31, True), ("h264", 30, False), ("jpeg", 49, False), ("jpeg", 50, True)]
)
def test_a_quantiser_is_compared_by_its_step(codec, quantiser, raised):
    """Six more of H.264 are twice the step; the mean of a JPEG's table is a step itself."""
    real, fake = (clip(name, name, codec=codec, quantiser=q) for name, q in (("", 25), ("DF", quantiser)))
    found = confounders(data(real, fake))
    assert of(found, f"quantiser of {codec}").raised is raised


def test_fakes_are_held_against_their_own_originals():
    """Contents differ tenfold, so nothing tells fake from real at large; each fake has three times its original."""
    bits = [0.001, 0.01, 0.1, 1.0, 10.0]
    reals = [clip(f"r{i}", "", f"g{i}", bits=b) for i, b in enumerate(bits)]
    fakes = [clip(f"f{i}", "NT", f"g{i}", bits=3 * b) for i, b in enumerate(bits)]
    found = confounders(data(*reals, *fakes))
    wins = sum(f > r for f in [3 * b for b in bits] for r in bits) / 25
    assert of(found, "bits per pixel").auc == wins == 0.6
    assert not any(c.raised for c in found.contrasts)
    own = next(o for o in found.originals if (o.quantity, o.method) == ("bits per pixel", ALL))
    assert (own.pairs, own.twofold, own.raised) == (5, 5, True)
    assert own.ratio == pytest.approx(3)
    assert found.raised
    lone = confounders(data(*reals, *(clip(f"f{i}", "NT", bits=3 * b) for i, b in enumerate(bits))))
    assert lone.originals == ()


def test_one_fake_far_from_its_original_is_named_and_not_raised():
    reals = [clip(f"r{i}", "", f"g{i}", bits=0.1 * (i + 1)) for i in range(5)]
    fakes = [clip(f"f{i}", "NT", f"g{i}", bits=0.1 * (i + 1) * (7 if i == 2 else 1)) for i in range(5)]
    found = confounders(data(*reals, *fakes))
    assert not found.raised
    assert any("1 of 5 fake(s) differ at least twofold" in s and "f2 with 7.00 times" in s for s in found.sentences)


def test_what_cannot_be_read_is_left_out_and_said():
    clips = data(clip("r", ""), clip("f", "DF"), clip("broken", "DF", bits=-1))
    steps = []
    found = confounders(clips, progress=lambda share, text: steps.append(share))
    assert (found.unknown, of(found, "bits per pixel").fakes) == (1, 1)
    assert "of 1 clip(s)" in found.sentences[-1]
    assert steps == [1 / 3, 2 / 3, 1]
    assert confounders(clips, compressions(clips)) == found


@pytest.mark.parametrize("method", ["", "DF"])
def test_a_single_class_is_not_compared(method):
    found = confounders(data(clip("a", method), clip("b", method)))
    assert (found.contrasts, found.diagnostics, found.grid(), found.raised) == ((), [], None, False)
    assert "one class has no clip" in found.sentences[0]


@pytest.mark.kit
def test_the_kit_s_neural_textures_have_another_compression_than_their_original():
    """004.mp4 has 181 kB and its fake 1246 kB of equal size and length; the other two pairs are alike."""
    methods = {"004": "", "519": "", "634": "", "004_982": "NeuralTextures", "519_515": "Deepfakes",
               "634_660": "FaceSwap"}  # fmt: skip
    groups = linked({k: k.split("_") for k in methods})
    bytes_ = {k: kit("ffpp_c23_videos", f"{k}.mp4").stat().st_size for k in methods}

    class Quick(VideoFootage):
        """All of a video takes seconds: bits from the packets, the quantiser from the first frames."""

        def compression(self):
            from audit.data.quantiser import quantisers

            found = quantisers(self.path, limit=8)
            return Compression("h264", self._stream.bits / 1e6, float(np.mean([q.mean for q in found])), (480, 640))

    clips = data(*(Clip(k, m, groups[k], Quick(kit("ffpp_c23_videos", f"{k}.mp4")), k) for k, m in methods.items()))
    found = confounders(clips)
    own = {(o.quantity, o.method): o for o in found.originals}
    ratio = bytes_["004_982"] / bytes_["004"]
    assert own["bits per pixel", "NeuralTextures"].ratio == pytest.approx(ratio, rel=0.05)
    for quantity in ("bits per pixel", "quantiser of h264"):
        assert own[quantity, "NeuralTextures"].raised
        assert not own[quantity, "Deepfakes"].raised
        assert not own[quantity, "FaceSwap"].raised
        assert own[quantity, ALL].twofold == 1
    assert any(d.raised and "bits per pixel beside" in d.name for d in found.diagnostics)
