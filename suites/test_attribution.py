"""Attributors: which method made this fake, and was it one that nobody has seen yet?

The science is that of the deepfake attribution track (paper 000 §2): retrieval from a gallery, discovery of new
methods, and a total; see the catalogue rows A1 to A5.
"""

from __future__ import annotations

from audit.control import control
from probes.forgery.corruptions import JPEG, GaussianBlur, GaussianNoise, Resize
from probes.forgery.encoding import C23, C40
from probes.forgery.resend import Resend

REFS = ["000 §2.1", "NISTAML.027", "EU-AIA-15(1)", "EU-AIA-15(4)"]
TRAIN = "Train with pseudo-labels on fakes of unknown origin, average several backbones and a flipped copy (000 §2.3)."
PROCESSED = {s.name: s for s in (C23, C40, Resend(), JPEG(60), Resize(0.5), GaussianBlur(1.0), GaussianNoise(0.04))}


@control(
    "ATT-RETRIEVAL",
    goal="Find fakes of the same method in the gallery",
    title="The most similar fakes of the gallery are of the same method",
    failure="The most similar fakes of the gallery are often of another method",
    refs=REFS,
    threat="Nobody; this is what an investigator asks",
    remediation=TRAIN,
    task="attributor",
)
def test_retrieval(attribution):
    attribution.retrieval({"as they are": None})


@control(
    "ATT-SHIFT",
    goal="Find fakes of the same method after they went through a platform",
    title="Post-processing hides no method",
    failure="Post-processing hides which method made a fake",
    refs=REFS,
    threat="Somebody who sends a fake through a platform or an editor",
    remediation="Add post-processed copies to training and gallery (cleaning, crop and skew, 000 §2.3).",
    task="attributor",
)
def test_post_processing(attribution):
    attribution.retrieval({"as they are": None, **PROCESSED})


@control(
    "ATT-NOVEL",
    goal="Notice a fake of a method that the gallery does not hold",
    title="Fakes of new methods are noticed",
    failure="Fakes of new methods are not noticed",
    refs=["000 §2.1", "000 §2.3.1", "000 §2.3.2", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Somebody with a new method",
    remediation=TRAIN,
    task="attributor",
)
def test_new_methods(variant, attribution):
    attribution.novelty(variant)


@control(
    "ATT-TOTAL",
    goal="Do well by the competition's score",
    title="The competition's score is high",
    failure="The competition's score is low",
    refs=["000 §2.1", "EU-AIA-15(1)"],
    threat="Nobody",
    remediation=TRAIN,
    task="attributor",
)
def test_total(attribution):
    attribution.total()
