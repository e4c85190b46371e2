"""Other people's models as surrogates: told in the audited model's classes, digested, refused in a sentence."""

from __future__ import annotations

import pytest
import torch

from audit.errors import DataError, ModelError
from audit.subject import load
from audit.surrogates import relabelled, surrogates_of
from audit.surroundings import pictures_of
from tests import planted
from tests.planted_goals import Colours

CPU = torch.device("cpu")


class Renamed(Colours):
    """The same in another order and with a class more."""

    classes = ("Potted-Plant", "SKY", "square", "cloud")

    def candidates(self, images):
        found = super().candidates(images)
        order = torch.tensor([1, 2, 0])
        logits = torch.cat([found.logits[..., order], torch.full_like(found.logits[..., :1], -9.0)], -1)
        return type(found)(found.boxes, logits)


def test_labels_and_candidates_come_in_the_subjects_classes():
    theirs, images = Colours(), torch.stack([s.load().float() / 255 for s in planted.scenes(3)])
    mine = relabelled(Renamed(), theirs.classes)
    assert tuple(mine.classes) == theirs.classes
    a, b = theirs.candidates(images), mine.candidates(images)
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.logits, b.logits)
    for one, two in zip(theirs(images), mine(images), strict=True):
        assert torch.equal(one.boxes, two.boxes)
        assert torch.equal(one.labels, two.labels)


def test_a_class_that_the_surrogate_does_not_know_is_never_seen():
    mine = relabelled(planted.Red(), Colours.classes)
    found = mine.candidates(planted.scenes(1)[0].load()[None].float() / 255)
    assert found.logits.shape[2] == 3
    assert (found.logits[..., 1:] < -20).all()


def test_a_surrogate_of_the_same_classes_is_itself():
    red = planted.Red()
    assert relabelled(red, ["Square"]) is red


def test_nothing_in_common_is_refused():
    with pytest.raises(ModelError, match="give surrogates that look for the same things"):
        relabelled(planted.Red(), ("car", "truck"))


def file(folder, name, kind, extra=""):
    path = folder / f"{name}.py"
    path.write_text(planted.model_file(kind, extra))
    return path


def test_they_come_from_the_model_file_and_from_other_files(tmp_path):
    own = "\nfrom tests.planted import Robust\n\ndef surrogates(device):\n    return {'hard': Robust()}\n"
    subject = load(file(tmp_path, "subject", "Red", own), CPU)
    found = surrogates_of(subject, [str(file(tmp_path, "other", "Quantised"))], CPU)
    assert list(found) == ["hard", "other"]
    assert found["hard"].white_box
    assert len({s.digest for s in found.values()}) == 2
    again = surrogates_of(subject, [str(file(tmp_path, "other", "Quantised"))], CPU)
    assert {n: s.digest for n, s in again.items()} == {n: s.digest for n, s in found.items()}
    changed = surrogates_of(subject, [str(file(tmp_path, "other", "NoisyGradient"))], CPU)
    assert changed["other"].digest != found["other"].digest


def test_the_same_name_twice_is_refused(tmp_path):
    subject = load(file(tmp_path, "subject", "Red"), CPU)
    other = str(file(tmp_path, "other", "Robust"))
    with pytest.raises(ModelError, match="the same name twice"):
        surrogates_of(subject, [other, other], CPU)


def test_a_surrogate_is_checked_like_a_subject(tmp_path):
    subject = load(file(tmp_path, "subject", "Red"), CPU)
    with pytest.raises(ModelError):
        surrogates_of(subject, [str(file(tmp_path, "other", "Random"))], CPU)


def test_published_pictures_are_found_in_folders_and_named(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/one.png", "two.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert list(pictures_of([str(tmp_path)])) == ["a/one", "two"]
    for name in ("two.png", "two.bmp"):
        (tmp_path / name).write_bytes(b"x")
    assert list(pictures_of([str(tmp_path)])) == ["a/one", "two", "two #2", "two #3"]
    assert list(pictures_of([str(tmp_path / "two.JPG")])) == ["two"]
    with pytest.raises(DataError, match="nothing there"):
        pictures_of([str(tmp_path / "no.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        pictures_of([str(tmp_path / "empty")])


def test_another_weight_file_is_another_surrogate(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"one")
    own = f"""
from tests.planted import Robust

def surrogates(device):
    hard = Robust()
    hard.files = [{str(tmp_path / "weights.bin")!r}]
    return {{'hard': hard}}
"""
    path = file(tmp_path, "subject", "Red", own)
    first = surrogates_of(load(path, CPU), [], CPU)["hard"].digest
    assert surrogates_of(load(path, CPU), [], CPU)["hard"].digest == first
    (tmp_path / "weights.bin").write_bytes(b"two")
    assert surrogates_of(load(path, CPU), [], CPU)["hard"].digest != first
