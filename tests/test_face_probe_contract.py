"""Every attack on recognizers is held to the same contract: one table, one row each."""

from __future__ import annotations

import json

import pytest
import torch

from audit.budget import Budget
from audit.comparison import Comparison
from audit.examples import Attacked, Examples
from audit.execution import Execution
from audit.measures.face_rules import FaceRules
from probes.recognition.attributes import AttributePatch
from probes.recognition.decisions import DecisionFace
from probes.recognition.face_patch import FacePatch
from probes.recognition.latent import LatentPatch, LatentStart
from probes.recognition.living import LivingPatch
from probes.recognition.makeup import MakeupPatch
from probes.recognition.masks import FaceMask, FreeSearch
from probes.recognition.plain import GreyFace, NoiseFace, OtherFace
from probes.recognition.query import QueryFace
from probes.recognition.universal_face import UniversalFace
from probes.recognition.worn import WornPatch
from reports.references import known
from tests import planted_faces

WHERE = FaceMask("features", 0.1)
PROBES = [
    FacePatch(mask=WHERE),
    FacePatch(mask=FreeSearch(0.05)),
    FacePatch(mask=WHERE, transforms=("mi", "ti", "di", "si", "s2i"), order="random", weights="dynamic", start="noise"),
    LatentPatch(WHERE),
    LatentStart(WHERE),
    MakeupPatch(WHERE),
    AttributePatch(WHERE),
    WornPatch(WHERE),
    LivingPatch(WHERE, liveness=planted_faces.Alive()),
    UniversalFace(WHERE),
    QueryFace(WHERE),
    DecisionFace(WHERE),
    NoiseFace(WHERE),
    GreyFace(WHERE),
    OtherFace(WHERE),
]
PAIRS = 3
BUDGET = Budget("test", steps=4, batch=2, queries=12, images=12, bootstrap=100)
MODELS = (Comparison("weak", planted_faces.Weak(), white_box=True),)


@pytest.fixture(scope="module")
def attacked():
    data = planted_faces.pairs(20)
    rows = data.pairs[~data.same][:PAIRS]
    rest = range(20, 40)
    return Attacked("impersonate", data.portraits(rows[:, 0]), data.portraits(rows[:, 1]), data.portraits(list(rest)))


def craft(probe, attacked, seed=2**62 + 7, **more):
    settings = {"execution": Execution(), "budget": BUDGET, **more}
    return probe.craft(MODELS, attacked, seed=seed, **settings)


@pytest.fixture(scope="module", params=PROBES, ids=repr)
def probe(request):
    return request.param


@pytest.fixture(scope="module")
def crafted(probe, attacked):
    before, shares = torch.get_rng_state(), []
    made = craft(probe, attacked, progress=lambda share, text: shares.append((share, text)))
    assert torch.equal(before, torch.get_rng_state()), "no global stream is touched"
    return made, shares


def test_metadata_is_complete_and_references_are_known(probe):
    assert all((probe.goal, probe.threat, probe.name, probe.refs))
    assert probe.access in ("white-box", "query", "none")
    assert not [r for r in probe.refs if r not in known()]
    assert len(type(probe).__doc__ or "") > 20


def test_repr_is_usable_as_an_id(probe):
    text = repr(probe)
    assert "\n" not in text
    assert " object at 0x" not in text
    assert len(text) < 120


def test_spec_is_json_and_tells_probes_apart(probe):
    json.dumps(probe.spec(), allow_nan=False)
    assert [p for p in PROBES if p.spec() == probe.spec()] == [probe]


def test_it_is_deterministic_by_seed(probe, crafted, attacked):
    torch.manual_seed(99)  # no global stream has a say
    assert torch.equal(craft(probe, attacked).images, crafted[0].images)


def test_it_keeps_the_rules_and_its_mask(probe, crafted, attacked):
    made = crafted[0]
    assert made.images.dtype == torch.uint8
    assert made.images.shape == attacked.sources.images.shape
    assert FaceRules(area=0.1).violations(attacked.sources.images, made.images) == []
    changed = (made.images != attacked.sources.images).any(1)
    assert not (changed & ~made.masks).any()
    assert changed.any(), "something is worn"


def test_it_survives_saving(crafted, tmp_path):
    made = crafted[0]
    made.save(tmp_path)
    again = Examples.load(tmp_path)
    assert torch.equal(again.images, made.images)
    assert torch.equal(again.masks, made.masks)
    assert [d.name for d in again.diagnostics] == [d.name for d in made.diagnostics]
    assert (again.history, again.queries) == (made.history, made.queries)
    json.dumps(made.details, allow_nan=False)


def test_progress_ends_at_one(probe, crafted):
    if probe.access == "none":
        return
    shares = crafted[1]
    assert shares[-1][0] == pytest.approx(1.0)
    assert all(0 <= s <= 1 and text for s, text in shares)


def test_the_attacks_health_is_told(probe, crafted):
    if probe.access == "white-box":
        assert len(crafted[0].diagnostics) >= 3
    assert all(d.meaning and d.name for d in crafted[0].diagnostics)
    assert (crafted[0].queries > 0) == (probe.access == "query")
