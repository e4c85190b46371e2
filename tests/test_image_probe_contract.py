"""Every attack on images, shift of quality and generator of fakes is held to the same contract: a table, a row each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from audit.budget import Budget
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, Labelled
from probes.forgery.additive import FGSM, PGD
from probes.forgery.adversarial_blur import AdversarialBlur
from probes.forgery.combined import CombinedAttack
from probes.forgery.corruptions import COMMON, OWN
from probes.forgery.encoding import C23, C40, Encode
from probes.forgery.flow import SpatialFlow
from probes.forgery.forgers import FORGERS
from probes.forgery.frequency import FrequencyAttack
from probes.forgery.hybrid import HybridAttack
from probes.forgery.plain_blur import FixedBlur, MatchedBlur
from probes.forgery.plain_noise import RandomFlow, UniformNoise
from probes.forgery.query import SquareSearch
from probes.forgery.resend import Resend
from probes.forgery.sigma_generator import SigmaGenerator
from probes.forgery.traditional import traditional
from reports.references import known
from tests.planted_forgery import Fine, fake, surface

EPSILON = 8 / 255
PROBES = [
    FGSM(EPSILON),
    PGD(EPSILON),
    PGD(2.0, norm="l2"),
    SpatialFlow(),
    AdversarialBlur(steps=1),
    AdversarialBlur(step="normalised", epsilon=0.5, mean=1.0),
    AdversarialBlur(kernel=5, of="inverse", literal=True),
    SigmaGenerator(width=4, blocks=1),
    CombinedAttack(SigmaGenerator(width=4, blocks=1, two=True), FGSM(EPSILON)),
    FrequencyAttack(EPSILON),
    HybridAttack(EPSILON),
    SquareSearch(EPSILON),
    UniformNoise(EPSILON, sign=True),
    RandomFlow(),
    FixedBlur(1.0),
    MatchedBlur((1.0,) * 4),
]
BUDGET = Budget("test", steps=3, batch=2, queries=10, images=4, bootstrap=100)
MODELS = (ImageModel("fine", Fine(), "forgery", white_box=True),)


@pytest.fixture(scope="module")
def attacked():
    pictures = [fake(surface(i), "grid") if i < 3 else surface(i) for i in range(4)]
    images = torch.stack([torch.from_numpy(p.round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1) for p in pictures])
    names = tuple(f"{i}" for i in range(4))
    return Labelled(images.contiguous(), torch.tensor([1, 1, 1, 0]), names, names, names)


def craft(probe, attacked, seed=2**62 + 7, **more):
    return probe.craft(MODELS, attacked, execution=Execution(), budget=BUDGET, seed=seed, **more)


@pytest.fixture(scope="module", params=PROBES, ids=lambda p: p.name)
def probe(request):
    return request.param


@pytest.fixture(scope="module")
def crafted(probe, attacked):
    before, shares, kept = torch.get_rng_state(), [], attacked.digest
    made = craft(probe, attacked, progress=lambda share, text: shares.append((share, text)))
    assert torch.equal(before, torch.get_rng_state()), "no global stream is touched"
    assert attacked.digest == kept, "what is attacked stays as it is"
    return made, shares


def test_metadata_is_complete_and_references_are_known(probe):
    assert all((probe.goal, probe.threat, probe.name, probe.refs))
    assert probe.access in ("white-box", "query", "none")
    assert not [r for r in probe.refs if r not in known()]
    assert len(type(probe).__doc__ or "") > 20


def test_spec_is_json_and_tells_probes_apart(probe):
    json.dumps(probe.spec(), allow_nan=False)
    assert [p for p in PROBES if p.spec() == probe.spec()] == [probe]


def test_it_is_deterministic_by_seed(probe, crafted, attacked):
    torch.manual_seed(99)  # no global stream has a say
    assert torch.equal(craft(probe, attacked).images, crafted[0].images)


def test_its_own_rules_hold_and_a_broken_image_breaks_them(probe, crafted, attacked):
    made = crafted[0]
    assert made.images.dtype == torch.uint8
    assert made.images.shape == attacked.images.shape
    rules = probe.rules()
    assert rules.violations(attacked.images, made) == []
    assert rules.describe()
    broken = made.images.clone()
    broken[0, :, :9, :9] = 255 - attacked.images[0, :, :9, :9]
    told = rules.violations(attacked.images, Adversarial(broken, made.maps))
    assert told, "an image that its rules do not explain"


def test_it_survives_saving(crafted, tmp_path):
    made = crafted[0]
    made.save(tmp_path)
    again = Adversarial.load(tmp_path)
    assert torch.equal(again.images, made.images)
    assert {k: v.shape for k, v in again.maps.items()} == {k: v.shape for k, v in made.maps.items()}
    assert [d.name for d in again.diagnostics] == [d.name for d in made.diagnostics]
    json.dumps(made.details, allow_nan=False)


def test_progress_and_health_are_told(probe, crafted):
    made, shares = crafted
    assert all(0 <= s <= 1 and text for s, text in shares)
    if probe.access == "white-box":
        assert shares[-1][0] == pytest.approx(1.0)
        assert len(made.diagnostics) >= 3
    if isinstance(probe, SquareSearch):
        assert {d.name for d in made.diagnostics} >= {"loss fell", "best step is the last"}
        assert len(made.history["margin"]) == BUDGET.queries + 1
    assert len({d.name for d in made.diagnostics}) == len(made.diagnostics)
    assert all(d.meaning and d.name for d in made.diagnostics)


SHIFTS = [C23, C40, Encode("vp9", 45), Resend(), *traditional(), *(s for row in (COMMON | OWN).values() for s in row)]


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda s: s.name)
def test_shifts(shift):
    json.dumps(shift.spec(), allow_nan=False)
    assert [s for s in SHIFTS if s.spec() == shift.spec()] == [shift]
    assert shift.level in ("video", "image")
    frames = [surface(i).round().clip(0, 255).astype(np.uint8) for i in range(2)]
    kept = [f.copy() for f in frames]
    first, again = (shift.apply(frames, fps=25.0, seed=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(frames, kept, strict=True)), "what is shifted stays as it is"
    assert [f.dtype for f in first] == [np.uint8] * 2
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(frames, first, strict=True)) or (
        "traditional" in shift.name
    )


@pytest.mark.parametrize("name", FORGERS)
def test_forgers(name):
    forger = FORGERS[name]()
    json.dumps(forger.spec(), allow_nan=False)
    assert forger.name == name
    assert min(len(forger.imitates), len(forger.lacks)) > 20
    assert forger.refs
