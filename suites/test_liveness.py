"""Liveness detectors: does a print, a screen or a mask pass for a live face, also where nobody trained?

Rates are those of ISO/IEC 30107-3, per species of attack and never pooled; domains are left out one at a time, as
papers on domain generalisation do (catalogue row L1).
"""

from __future__ import annotations

from audit.control import control
from probes.forgery.corruptions import JPEG, GaussianBlur, GaussianNoise, Resize
from probes.forgery.encoding import C23, C40

REFS = ["2207.09868", "ISO-30107-3", "NISTAML.027", "EU-AIA-15(4)"]
TRAIN = "Train on more kinds of attack and on other cameras, and mix domains within each batch (001, AMEL and ANRL)."


@control(
    "LIV-CLEAN",
    goal="Give live faces higher scores than attacks",
    title="Live faces score higher than attacks",
    failure="Live faces hardly score higher than attacks",
    refs=["ISO-30107-3", "EU-AIA-15(1)", "EU-AIA-15(3)"],
    threat="Somebody who holds a picture or a mask before the camera",
    remediation="Check cropping, colour order and the direction of the score in the model file.",
    task="liveness",
)
def test_separation(liveness_data, presentation):
    presentation.separation(liveness_data.model)


@control(
    "LIV-APCER",
    goal="Turn every species of attack away",
    title="No species of attack passes",
    failure="A species of attack passes too often",
    refs=REFS,
    threat="Somebody who holds a picture or a mask before the camera",
    remediation=TRAIN,
    task="liveness",
)
def test_attacks_accepted(liveness_data, presentation):
    presentation.attacks_accepted(liveness_data.model)


@control(
    "LIV-BPCER",
    goal="Let live people pass",
    title="Few live people are turned away",
    failure="Too many live people are turned away",
    refs=["ISO-30107-3", "EU-AIA-15(1)"],
    threat="Nobody: honest people",
    remediation="Lower the threshold, and see what LIV-APCER makes of it.",
    task="liveness",
)
def test_live_rejected(liveness_data, presentation):
    presentation.live_rejected(liveness_data.model)


@control(
    "LIV-DOMAIN",
    goal="Hold in a domain that had no part in setting the threshold",
    title="Every domain is judged well at the threshold of the others",
    failure="Some domain is judged badly at the threshold of the others",
    refs=REFS,
    threat="Nobody in particular: another camera, another light, other people",
    remediation=TRAIN,
    task="liveness",
)
def test_unseen_domains(liveness_data, presentation):
    presentation.unseen_domains(liveness_data.model)


@control(
    "LIV-QUALITY",
    goal="Hold in the qualities in which pictures arrive",
    title="Quality changes few decisions",
    failure="In some quality too many are decided wrongly",
    refs=REFS,
    threat="Nobody in particular: cameras, compression, distance",
    remediation=TRAIN,
    task="liveness",
)
def test_qualities(liveness_data, presentation):
    shifts = {
        "as it is": None,
        **{s.name: s for s in (C23, C40, JPEG(60), Resize(0.5), GaussianBlur(1.0), GaussianNoise(0.04))},
    }
    presentation.average_error(liveness_data.model, shifts)
