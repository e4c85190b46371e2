"""What the audits of clips share: which clips make a cell, what is left out, what a kept result stands on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from audit.contracts import Detections
from audit.data.clips import Clip, Clips
from audit.errors import DataError
from audit.labelled import Adversarial, Labelled
from audit.measures.forensics import ForensicMeasure
from audit.measures.image_attacks import ImageAttackMeasure
from audit.options import Options
from audit.session import AuditSession
from audit.trial import Trial
from tests import planted_forgery
from tests.planted_forgery import fake, surface, write


def trial():
    return Trial("X", None, None, None, "point", 1, "", {})


@pytest.fixture
def session(tmp_path):
    """A maker of sessions on a folder of data, with a model file of its own."""

    def make(data, kind="Fine", head="", profile="forensics", cache="cache", **more):
        (tmp_path / "subject.py").write_text(planted_forgery.model_file(kind) + head)
        return AuditSession(
            Options(model=str(tmp_path / "subject.py"), data=str(data), profile=profile,
                    report=str(tmp_path / "out"), cache=str(tmp_path / cache), **more)
        )  # fmt: skip

    return make


class Frames:
    """Stills that are held in memory."""

    fps = 0.0

    def __init__(self, pictures, broken=False):
        self.pictures, self.broken, self.count = pictures, broken, len(pictures)

    def read(self, indices):
        if self.broken:
            raise DataError("clip", expected="frames", got="none", mend="mend it")
        return [self.pictures[i].round().clip(0, 255).astype(np.uint8) for i in indices]

    def compression(self):
        raise DataError("clip", expected="a file", got="none", mend="give one")


def clip(name, method, pictures, domain="", group=None, broken=False, split=""):
    return Clip(name, method, group or name, Frames(pictures, broken), f"digest of {name}", domain, split, cropped=True)


def given(session, *clips):
    """The session's material on these clips."""
    session.material.__dict__["whole"] = Clips(clips, "given", "the test")
    for name in ("clips", "seen", "parts", "_compression"):
        session.material.__dict__.pop(name, None)
    return session.material


@pytest.fixture
def data(tmp_path):
    return planted_forgery.folder(tmp_path / "data", pictures=4)


def test_a_fake_is_never_beside_real_clips_of_another_domain(session, data):
    x = [surface(i) for i in range(8)]
    material = given(
        session(data),
        *(clip(f"a{i}", "", [fake(x[i], "grid")], "a", f"g{i}") for i in range(2)),  # real ones that look fake
        *(clip(f"b{i}", "", [x[i]], "b", f"h{i}") for i in range(2)),
        *(clip(f"fa{i}", "DF", [fake(x[i], "grid")], "a", f"g{i}") for i in range(2)),
    )
    assert {c.domain for c in material.of("DF").clips} == {"a"}
    found = material.scored(material.model, material.of("DF"))
    assert sorted(set(found.clips)) == ["a0", "a1", "fa0", "fa1"]
    measure = ForensicMeasure(trial(), material.session, material)
    measure.methods({"m": material.model})
    # fakes and real ones of that domain look alike: chance, whatever other domains hold
    assert measure.trial.measure.value == 0.5


def test_the_domain_that_a_detector_was_trained_on_makes_the_home_cell(session, data):
    x = surface(1)
    head = "\n\nKINDS['Fine'].trained_on = ('grid', 'c23')\n"
    clips = [clip(f"{m}{d}", m, [x], d, f"{m}{d}") for m in ("", "grid") for d in ("c23", "c40")]
    material = given(session(data, head=head), *clips)
    assert {c.domain for c in material.of("grid").clips} == {"c23"}
    assert {c.domain for c in material.of("grid", domain="c40").clips} == {"c40"}


def test_what_was_left_out_is_told_of_the_clips_of_a_control_alone(session, data):
    x = surface(1)
    material = given(
        session(data),
        *(clip(f"r{i}", "", [x]) for i in range(4)),
        *(clip(f"f{i}", "grid", [x], broken=i == 0) for i in range(4)),
    )
    real = material.clips.where(lambda c: not c.fake)
    material.labelled(material.clips)
    assert set(material.left_out) == {"f0"}
    one, other = trial(), trial()
    material.tell_left_out(one, real)
    material.tell_left_out(other, material.clips)
    assert (one.diagnostics[0].value, one.diagnostics[0].raised, one.details) == (0.0, False, {})
    assert (other.diagnostics[0].value, other.diagnostics[0].raised) == (0.25, True)
    assert "expected frames" in other.details["clips left out"]["f0"]
    # a kept result tells the same in another process
    material.scored(material.model, material.clips)
    material.left_out.clear()
    material.scored(material.model, real)
    assert not material.left_out
    material.scored(material.model, material.clips)
    assert set(material.left_out) == {"f0"}


def test_clips_with_too_few_faces_are_named(session, data):
    x = surface(1)
    material = given(session(data, kind="Clips"), clip("r", "", [x, x]), clip("f", "grid", [x]))
    made = material.labelled(material.clips)
    assert made.clips == ("r", "r")
    assert material.left_out == {"f": "1 faces, and the model judges clips of 2"}


@pytest.mark.parametrize("official", [True, False])
def test_no_source_trains_a_generator_and_is_judged_as_well(session, data, official):
    x = surface(1)
    splits = ("test", "train") if official else ("", "")
    clips = [clip(f"f{i}", "grid", [x], group=f"g{i}", split=splits[0]) for i in range(6)]
    clips += [clip(f"r{i}", "", [x], group=f"g{i}", split=splits[i % 2]) for i in range(6)]
    clips += [clip("t", "grid", [x], group="apart", split=splits[1])]
    craft, held_out = given(session(data), *clips).parts
    assert not {c.group for c in craft.clips} & {c.group for c in held_out.clips}
    assert len(craft)
    assert len(held_out)


def test_images_of_one_source_decide_nothing_even_if_others_are_wrong_when_clean(session, data):
    material = session(data).material
    pictures = [fake(surface(0), "grid"), *(surface(i) for i in range(1, 6))]
    images = torch.stack([torch.from_numpy(p.round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1) for p in pictures])
    names = tuple("abcdef")
    attacked = Labelled(images.contiguous(), torch.ones(6, dtype=torch.int64), names, names, names)
    measure = ImageAttackMeasure(trial(), material.session)
    measure.kept(material.model, attacked, Adversarial(attacked.images), None)
    assert (measure.trial.measure.k, measure.trial.measure.n) == (1, 1)
    assert "1 source(s)" in measure.trial.undecided


FINDER = """

class Finder:
    classes, score_threshold = ("face",), 0.5
    files = (HERE / "finder.txt",)

    def __call__(self, images):
        import torch
        from audit.contracts import Detections
        edge = float(self.files[0].read_text())
        box = torch.tensor([[edge, 0.0, edge + 20.0, 20.0]])
        return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64)) for _ in images]


def faces(device):
    return Finder()
"""


def test_another_face_detector_is_another_audit(session, tmp_path):
    place = tmp_path / "data"
    for i in range(4):
        write(place / "real" / f"{i}.png", surface(i))
        write(place / "fake" / "grid" / f"{i}.png", fake(surface(i), "grid"))
    head = f"\n\nfrom pathlib import Path\nHERE = Path({str(tmp_path)!r})\n" + FINDER
    keys, shown = [], []
    for edge in ("0", "30"):
        (tmp_path / "finder.txt").write_text(edge)
        found = session(f"whole:{place}", head=head)
        keys.append(found.key)
        material = found.material
        shown.append(material.shown(material.clips.clips[0], None, 0, (64, 64))[0])
    assert keys[0] != keys[1]
    assert not torch.equal(*shown)
    assert isinstance(found.material.finder(torch.zeros(1, 3, 8, 8))[0], Detections)


def test_two_sizes_and_lengths_share_one_choice_of_frames(session, tmp_path):
    place = planted_forgery.folder(tmp_path / "data", pictures=2, frames=12)
    head = "\n\ndef surrogates(device):\n    return {'Clips': KINDS['Clips']()}\n"
    material = session(place, head=head).material
    assert material.unit == 2
    other = material.surrogates["Clips"]
    assert len(material.labelled(material.clips, model=other)) % 2 == 0
    measure = ImageAttackMeasure(trial(), material.session)
    with pytest.raises(ValueError, match="expected images of"):
        measure._judged(other, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    shutil.rmtree(place)
