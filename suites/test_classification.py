"""Classifiers under the paper's attacks: adversarial blur beside additive, spatial and frequency changes.

Tables VII, XII, XIII and XIV of paper 003: success of blur against classifiers, by kernel and by start, and how far it
carries over from one to another.
"""

from __future__ import annotations

from functools import partial

import pytest

from audit.control import control
from audit.stash import Undecided
from probes.forgery.additive import FGSM, PGD
from probes.forgery.adversarial_blur import AdversarialBlur
from probes.forgery.flow import SpatialFlow
from probes.forgery.frequency import FrequencyAttack
from probes.forgery.plain_blur import MatchedBlur
from probes.forgery.plain_noise import UniformNoise

REFS = ["003 §IV-C", "003 Table VII", "NISTAML.022", "AML.T0043.000", "EU-AIA-15(5)"]
OWNER = "Somebody who has the classifier's weights at hand"
HARDEN = "Train on adversarial images as well (model hardening, AML.M0003), blurred ones among them."


@pytest.fixture
def epsilon(profile):
    """Largest change of a pixel, in [0, 1]."""
    return profile.data.epsilon / 255


@pytest.fixture
def attack(epsilon):
    """The attack of a variant."""
    probes = {
        "fgsm": FGSM(epsilon),
        "pgd": PGD(epsilon),
        "flow": SpatialFlow(),
        "frequency": FrequencyAttack(epsilon),
        "blur-one-step": AdversarialBlur(kernel=5, steps=1),
        "blur": AdversarialBlur(kernel=5, step="normalised", epsilon=0.5, mean=1.0),
    }
    return probes.__getitem__


def alike(others, model):
    """Those that take images of the model's size."""
    return {n: o for n, o in others.items() if o.size == model.size}


@control(
    "CLS-CLEAN",
    goal="Name the class of a picture when nobody attacks",
    title="The classifier names clean pictures rightly",
    failure="The classifier names too many clean pictures wrongly",
    refs=["EU-AIA-15(1)", "EU-AIA-15(3)"],
    threat="Nobody; this is the ground that all other controls stand on",
    remediation="Check the order of the classes and pre-processing in the model file.",
    task="classifier",
)
def test_clean_accuracy(class_data, attacks):
    attacks.clean(class_data.model, class_data.images)


@control(
    "CLS-ATTACK",
    goal="Decide as before when a picture was changed so that nobody sees it",
    title="A change that nobody sees changes few decisions",
    failure="A change that nobody sees changes too many decisions",
    refs=REFS,
    threat=OWNER,
    remediation=HARDEN,
    task="classifier",
)
def test_attacks(variant, white_classifier, class_data, craft_images, attack, epsilon, attacks):
    probe, images = attack(variant), class_data.images
    made = craft_images(probe, images)
    if variant.startswith("blur"):
        plain = MatchedBlur.of(made, kernel=probe.kernel)
        beside = {plain.name: (craft_images(plain, images, told=False), plain.rules())}
    else:
        plain = UniformNoise(epsilon, sign=True)
        beside = {"noise of the same size": (craft_images(plain, images), plain.rules())}
    attacks.kept(white_classifier, images, made, probe.rules(), beside)


@control(
    "CLS-BLUR-GRID",
    goal="Decide as before whatever kernel and start an adversary blurs with",
    title="No kernel and start of adversarial blur changes many decisions",
    failure="Some kernel and start of adversarial blur changes too many decisions",
    refs=["003 Table XII", "003 Table XIII", "NISTAML.022", "AML.T0043.000", "EU-AIA-15(5)"],
    threat=OWNER,
    remediation=HARDEN,
    task="classifier",
)
def test_blur_grid(white_classifier, class_data, craft_images, attacks):
    images = class_data.images
    grid = [(k, 1.0) for k in (3, 5, 7, 9)] + [(5, s) for s in (0.1, 10.0, 100.0)]
    probes = [AdversarialBlur(kernel=k, start=s, steps=1) for k, s in grid]
    made = {
        f"k = {p.kernel}, σ from {p.start:g}": (partial(craft_images, p, images, told=False), p.rules()) for p in probes
    }
    craft_images(probes[-1], images)
    attacks.worst(
        {white_classifier.name: white_classifier, **alike(class_data.surrogates, white_classifier)}, images, made,
        title="One step of adversarial blur, by kernel and start", row_label="made with",
    )  # fmt: skip


@control(
    "CLS-TRANSFER",
    goal="Decide as before when a picture was changed against other classifiers",
    title="Changes made against other classifiers change few decisions",
    failure="Changes made against other classifiers change too many decisions",
    refs=["003 Table VII", "003 Table XIV", "NISTAML.025", "AML.T0043.002", "EU-AIA-15(5)"],
    threat="Somebody who holds other classifiers of the same classes",
    remediation=HARDEN,
    task="classifier",
)
def test_transfer(variant, classifier, class_data, image_surrogates, craft_images, attack, attacks):
    images, probe = class_data.images, attack(variant)
    same = alike(image_surrogates, classifier)
    if not same:
        raise Undecided("Not measured: every surrogate takes images of another size.")
    made = {
        f"made on {n}": (partial(craft_images, probe, images, [s], label=n), probe.rules()) for n, s in same.items()
    }
    rows = list(made)
    if classifier.white_box:
        made["made on itself"] = (partial(craft_images, probe, images, told=False), probe.rules())
    attacks.worst(
        {classifier.name: classifier, **same}, images, made,
        title="Changes made on one classifier, tried on another", row_label="made with", judged=rows,
    )  # fmt: skip
