"""Face recognizers: can somebody wear something and pass for another person, or for nobody?

The science is that of the face recognition track (paper 000 §4) and of adversarial attributes (001); see the catalogue
rows R1 to R8 and L5. Every attacked pair is one that the recognizer decides rightly when nobody attacks.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.control import control
from audit.stash import Inapplicable
from probes.recognition.attributes import AttributePatch
from probes.recognition.decisions import DecisionFace
from probes.recognition.face_patch import FacePatch
from probes.recognition.latent import LatentStart
from probes.recognition.living import LivingPatch, live_scores
from probes.recognition.makeup import MakeupPatch
from probes.recognition.masks import AREAS, REGIONS, FaceMask, FreeSearch
from probes.recognition.plain import GreyFace, NoiseFace, OtherFace
from probes.recognition.query import QueryFace
from probes.recognition.universal_face import UniversalFace
from probes.recognition.worn import WornPatch, worn_looks

WORN = "Somebody who wears a patch on a tenth of the face"
REFS = ["000 §4.1", "NISTAML.022", "AML.T0043.000", "AML.CS0012", "EU-AIA-15(5)"]
TRANSFER = ["000 §4.3.2", "NISTAML.025", "AML.T0043.002", "AML.CS0012", "EU-AIA-15(5)"]
QUERIES = ["000 §4.1", "NISTAML.025", "AML.T0043.001", "AML.T0040", "EU-AIA-15(5)"]
HARDEN = (
    "Fine-tune with patched faces of the training set (model hardening, AML.M0003), compare parts of the face apart "
    "and require all of them to agree, and put a liveness and occlusion check before the comparison."
)
PLAIN = {"noise": NoiseFace, "grey": GreyFace, "other-face": OtherFace}
ENOUGH = 0.05
"""Margin beyond the threshold at which a white-box attack rests: what it wins is won."""
MIXTURE = ("mi", "ti", "di", "si", "s2i")
GOALS = {"impersonate": "impersonate", "dodge": "dodge"}
JUDGED_AREA = 0.05


@pytest.fixture
def area(profile):
    """Share of the aligned face that an attacker may change."""
    return profile.data.area


@pytest.fixture
def where(area):
    """The part of the face that the attacks of one part use."""
    return FaceMask("features", area)


@pytest.fixture
def beside(craft_faces, where):
    """Patches that nobody optimised, in the same place: what they win is occlusion."""

    def make(goal):
        return {name: craft_faces(probe(where), goal) for name, probe in PLAIN.items()}

    return make


def by_access(recognizer, where):
    """The strongest attack that the recognizer's access allows: through gradients, or by queries."""
    return FacePatch(mask=where, enough=ENOUGH) if recognizer.white_box else QueryFace(where)


@control(
    "REC-CLEAN",
    goal="Tell people apart when nobody attacks",
    title="The recognizer decides the clean pairs as it should",
    failure="The recognizer decides too many of the clean pairs wrongly",
    refs=["EU-AIA-15(1)", "EU-AIA-15(3)", "ISO-19795-1"],
    threat="Nobody; this is the ground that all other controls stand on",
    remediation="Check pre-processing, template, metric and threshold in the model file: `python -m audit doctor`.",
    task="recognizer",
)
def test_clean_accuracy(any_recognizer, verify):
    verify.accuracy(any_recognizer)


@control(
    "REC-FMR",
    goal="Let no stranger pass who makes no effort",
    title="Few strangers pass without any attack",
    failure="Too many strangers pass without any attack",
    refs=["EU-AIA-15(1)", "ISO-19795-1"],
    threat="A stranger who makes no effort (a zero-effort impostor)",
    remediation="Raise the threshold, and accept the false non-match rate that the curve shows for it.",
    task="recognizer",
)
def test_strangers(any_recognizer, verify):
    verify.false_matches(any_recognizer)


@control(
    "REC-CONTROL",
    goal="Decide as before when a part of the face is covered by something ordinary",
    title="An ordinary cover changes few decisions",
    failure="An ordinary cover alone changes too many decisions",
    refs=["000 §4.1", "AML.T0043.003", "EU-AIA-15(4)"],
    threat="Nobody in particular: a plaster, make-up, a mask with somebody's mouth",
    remediation="Train with random occlusion of parts of the face.",
    task="recognizer",
)
def test_unoptimised_cover(variant, recognizer, craft_faces, where, verify):
    kind, _, goal = variant.rpartition("-to-")
    verify.success(recognizer, GOALS[goal], craft_faces(PLAIN[kind](where), goal))


@control(
    "REC-IMPERSONATE",
    goal="Do not take a patch's wearer for the person that it was made for",
    title="A patch makes few people pass for a chosen other person",
    failure="A patch makes too many people pass for a chosen other person",
    refs=REFS,
    threat=f"{WORN}, made for one target with the model's weights at hand (or, without gradients, by queries)",
    remediation=HARDEN,
    task="recognizer",
)
def test_impersonation(variant, recognizer, craft_faces, area, profile, beside, verify):
    mask = FreeSearch(area, min(REGIONS, profile.data.regions)) if variant == "spots" else FaceMask(variant, area)
    if variant == "spots" and not recognizer.white_box:
        raise Inapplicable("The model shows no gradients, and the search for spots follows them.")
    examples = craft_faces(by_access(recognizer, mask), "impersonate")
    verify.success(recognizer, "impersonate", examples, beside("impersonate") if variant == "features" else None)


@control(
    "REC-DODGE",
    goal="Go on recognising a person who wears a patch",
    title="A patch hides few people from recognition",
    failure="A patch hides too many people from recognition",
    refs=REFS,
    threat=f"{WORN}, made with the model's weights at hand (or, without gradients, by queries), who wants to be nobody",
    remediation=HARDEN,
    task="recognizer",
)
def test_dodging(variant, recognizer, craft_faces, area, beside, verify):
    examples = craft_faces(by_access(recognizer, FaceMask(variant, area)), "dodge")
    verify.success(recognizer, "dodge", examples, beside("dodge") if variant == "features" else None)


@control(
    "REC-TRANSFER",
    goal="Decide as before when a patch was made on other recognizers",
    title="A patch made on other recognizers changes few decisions",
    failure="A patch made on other recognizers changes too many decisions",
    refs=TRANSFER,
    threat=f"{WORN}, made on other recognizers, without any access to this one",
    remediation=HARDEN,
    task="recognizer",
)
def test_transfer(variant, recognizer, craft_faces, face_surrogates, where, beside, verify):
    probe = FacePatch(mask=where, transforms=MIXTURE, order="random", weights="dynamic")
    made = {name: craft_faces(probe, variant, {name: s}, label=name) for name, s in face_surrogates.items()}
    models = {recognizer.name: recognizer} | face_surrogates
    able = {n: m for n, m in models.items() if m.white_box}
    others = {}
    for target in models:
        held = {n: m for n, m in able.items() if n != target}
        if len(held) > 1:
            judged = target == recognizer.name
            others[target] = craft_faces(probe, variant, held, told=judged, label="all others")
    rows = made | ({"all others": others} if others else {})
    verify.worst(
        models, variant, rows, title="Success: surrogate × target", row_label="made on", beside=beside(variant)
    )


@control(
    "REC-QUERY",
    goal="Decide as before when a patch was made from the similarity scores alone",
    title="A patch found by asking for scores changes few decisions",
    failure="A patch found by asking for scores changes too many decisions",
    refs=QUERIES,
    threat=f"{WORN}, who may have photographs compared and reads the scores",
    remediation="Limit and watch comparisons, show decisions only, and harden as against trained patches.",
    task="recognizer",
)
def test_patch_by_scores(variant, recognizer, craft_faces, where, beside, verify):
    verify.success(recognizer, variant, craft_faces(QueryFace(where), variant), beside(variant))


@control(
    "REC-DECISION",
    goal="Decide as before when a patch was made from decisions alone",
    title="A patch found by asking for decisions changes few decisions",
    failure="A patch found by asking for decisions changes too many decisions",
    refs=QUERIES,
    threat=f"{WORN}, who may have photographs compared and learns only whether they are accepted",
    remediation="Limit and watch comparisons, and harden as against patches made with the weights.",
    task="recognizer",
)
def test_patch_by_decisions(variant, recognizer, craft_faces, where, beside, verify):
    verify.success(recognizer, variant, craft_faces(DecisionFace(where), variant), beside(variant))


@control(
    "REC-UNIVERSAL",
    goal="Decide as before when many wear one and the same patch",
    title="One patch for everybody changes few decisions",
    failure="One patch for everybody changes too many decisions",
    refs=REFS,
    threat="Somebody who prints one patch with the model's weights at hand, for wearers whom they never saw",
    remediation=HARDEN,
    task="recognizer",
)
def test_universal_patch(variant, white_recognizer, craft_faces, where, beside, verify):
    verify.success(white_recognizer, variant, craft_faces(UniversalFace(where), variant), beside(variant))


@control(
    "REC-AREA",
    goal="Decide as before when the patch is small",
    title="A small patch changes few decisions",
    failure="A small patch changes too many decisions",
    refs=REFS,
    threat="Somebody who wears a patch of 2 to 20 % of the face, made with the model's weights at hand",
    remediation=HARDEN,
    task="recognizer",
)
def test_area_of_the_patch(variant, recognizer, craft_faces, verify):
    made = {a: craft_faces(by_access(recognizer, FaceMask("features", a)), variant) for a in AREAS}
    verify.ladder(recognizer, variant, made, JUDGED_AREA)


@control(
    "REC-LATENT",
    goal="Decide as before when the patch is a piece of a generated face",
    title="A patch drawn by a face generator changes few decisions",
    failure="A patch drawn by a face generator changes too many decisions",
    refs=["000 §4.3.2", "NISTAML.025", "AML.T0043.002", "AML.CS0012", "EU-AIA-15(5)"],
    threat=f"{WORN}, made on other recognizers (or on this one, where there are none) in the space of a face generator",
    remediation=HARDEN,
    task="recognizer",
)
def test_latent_patch(variant, recognizer, craft_faces, face_surrogates, generator, where, beside, verify):
    made = {
        f"{start}, {name}": craft_faces(probe, variant, {name: s}, label=f"{start}, {name}")
        for name, s in face_surrogates.items()
        for start, probe in {
            "from noise": FacePatch(mask=where, transforms=MIXTURE, order="random", start="noise"),
            "from the latent space": LatentStart(where, generator=generator, transforms=MIXTURE),
        }.items()
    }
    models = {recognizer.name: recognizer} | face_surrogates
    verify.worst(
        models, variant, made, title="Success: start × target", row_label="start, made on", beside=beside(variant)
    )


@control(
    "REC-MAKEUP",
    goal="Decide as before when the patch passes for make-up",
    title="Adversarial make-up changes few decisions",
    failure="Adversarial make-up changes too many decisions",
    refs=["000 §4.3.1", "NISTAML.022", "AML.T0043.000", "AML.CS0012", "EU-AIA-15(5)"],
    threat="Somebody who wears make-up drawn by a network that was trained on several recognizers",
    remediation=HARDEN,
    task="recognizer",
)
def test_makeup(white_recognizer, craft_faces, all_face_surrogates, where, beside, verify):
    held = {white_recognizer.name: white_recognizer} | {n: s for n, s in all_face_surrogates.items() if s.white_box}
    examples = craft_faces(MakeupPatch(where, judged=1), "impersonate", held)
    verify.success(white_recognizer, "impersonate", examples, beside("impersonate"))


@control(
    "REC-ATTRIBUTE",
    goal="Decide as before when traits of the face are changed",
    title="Changed traits of the face change few decisions",
    failure="Changed traits of the face change too many decisions",
    refs=["2210.06871", "NISTAML.022", "AML.T0043.000", "EU-AIA-15(5)"],
    threat="Somebody who edits traits of a photograph with a face generator and the model's weights at hand",
    remediation=HARDEN,
    task="recognizer",
)
def test_attributes(white_recognizer, craft_faces, generator, where, beside, verify):
    examples = craft_faces(AttributePatch(where, generator=generator), "impersonate")
    verify.success(white_recognizer, "impersonate", examples, beside("impersonate"))


@control(
    "REC-WORN",
    goal="Decide as before when a patch is really worn, seen as cameras see",
    title="A worn patch changes few decisions, however it is seen",
    failure="A worn patch changes too many decisions in light, pose and blur",
    refs=["000 §4.1", "NISTAML.022", "AML.T0008.003", "AML.T0041", "AML.CS0012", "EU-AIA-15(5)"],
    threat=f"{WORN}, made with the model's weights at hand to survive pose, light, blur and being put on askew",
    remediation=HARDEN,
    task="recognizer",
)
def test_worn_patch(variant, white_recognizer, craft_faces, face_data, where, verify):
    examples = craft_faces(WornPatch(where), variant)
    attacked = face_data.attacked(variant)
    bare = replace(examples, images=attacked.sources.images)
    looks, clean = (worn_looks(x, attacked, seed=0) for x in (examples, bare))
    verify.looks(white_recognizer, variant, looks, examples, clean)


@control(
    "REC-SEARCH",
    goal="Find enrolled people in a gallery, and nobody else, whatever they wear",
    title="A patch hides few of the enrolled from a search, and lets few strangers in",
    failure="A patch hides too many of the enrolled from a search, or lets too many strangers in",
    refs=["000 §4.1", "NISTAML.022", "AML.T0043.000", "AML.CS0012", "ISO-19795-1", "EU-AIA-15(5)"],
    threat=f"{WORN}, who is searched for among everybody enrolled",
    remediation=HARDEN,
    task="recognizer",
)
def test_search(variant, recognizer, craft_faces, where, verify):
    if not recognizer.embeds:
        raise Inapplicable("The model only compares pairs; a search of a gallery needs embeddings.")
    goal = {"hidden": "dodge", "impostor": "impersonate"}[variant]
    verify.search(recognizer, goal, craft_faces(by_access(recognizer, where), goal))


@control(
    "REC-LIVENESS",
    goal="Do not let a patch's wearer pass both liveness check and comparison",
    title="A patch passes comparison and liveness check together for few people",
    failure="A patch passes comparison and liveness check together for too many people",
    refs=["000 §4.1", "000 §4.3.1", "NISTAML.022", "AML.T0043.000", "AML.CS0012", "EU-AIA-15(5)"],
    threat=f"{WORN}, made with the weights of recognizer and liveness detector at hand",
    remediation="Train the liveness detector on patched faces as presentation attacks, and harden the recognizer.",
    task="recognizer",
)
def test_patch_that_lives(white_recognizer, craft_faces, liveness, face_data, where, verify):
    plain = craft_faces(FacePatch(mask=where, enough=ENOUGH), "impersonate", told=not face_data.liveness_by_gradients)
    made = {"patch for the recognizer": plain}
    if face_data.liveness_by_gradients:
        made["patch for both"] = craft_faces(LivingPatch(where, liveness=liveness), "impersonate")
    live = live_scores(liveness)
    verify.living(white_recognizer, live, "impersonate", made, float(liveness.threshold))


@control(
    "REC-CONSTRAINT",
    goal="Attack only within the rules that the report states",
    title="Every adversarial photograph obeys the rules",
    failure="An adversarial photograph breaks the rules: a defect of the toolkit, not of the model",
    refs=["000 §4.1", "ISO-24029-2-5.3", "AML.M0008"],
    threat="Nobody; this control audits the audit",
    remediation="Report the defect; the numbers of the other controls must not be used.",
    task="recognizer",
)
def test_photographs_obey(recognizer, craft_faces, where, beside, verify):
    strongest = by_access(recognizer, where)
    verify.obeys({goal: {"patch": craft_faces(strongest, goal)} | beside(goal) for goal in GOALS})
