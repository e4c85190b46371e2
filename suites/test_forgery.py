"""Forgery detectors: does the detector hold where it was not trained, and when somebody works against it?

The science is that of paper 003 (a game between detector and adversary): other methods, other qualities, and pixel-wise
adversarial blur beside additive, spatial and frequency attacks; see the catalogue rows F1 to F10.
"""

from __future__ import annotations

from functools import partial

import pytest

from audit.control import control
from audit.errors import DataError
from audit.stash import Undecided
from probes.forgery.additive import FGSM, PGD
from probes.forgery.adversarial_blur import AdversarialBlur
from probes.forgery.combined import CombinedAttack
from probes.forgery.corruptions import corruption
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
from probes.forgery.traditional import TraditionalBlur, TraditionalCombined, TraditionalJPEG, TraditionalNoise

REFS = ["003 §IV-A", "NISTAML.027", "EU-AIA-15(4)"]
ATTACK = ["003 §III-A", "NISTAML.022", "AML.T0043.000", "AML.T0015", "EU-AIA-15(5)"]
BLUR = ["003 §III-B", "NISTAML.022", "AML.T0043.000", "AML.T0015", "EU-AIA-15(5)"]
TRANSFER = ["003 §IV-C", "NISTAML.025", "AML.T0043.002", "AML.T0015", "EU-AIA-15(5)"]
QUERIES = ["003 §III-A", "NISTAML.025", "AML.T0043.001", "AML.T0015", "EU-AIA-15(5)"]
OWNER = "Somebody who made a fake and has the detector's weights at hand"
DIVERSE = (
    "Train on several manipulation methods and qualities, and add adversarial blur of the training images (two "
    "generators, 003 §III-C): it raises what carries over to unseen methods and qualities."
)
HARDEN = "Train on adversarial images as well (model hardening, AML.M0003), and decide on several models that differ."
SIDES = {"fake": "fake", "real": "real"}
CODECS = {"h265": ("h265", 32), "vp9": ("vp9", 45), "av1": ("av1", 45)}
"""Codec and constant quantiser, on each codec's own scale: about as good to look at as H.264 at 30."""
SEVERITY = (1, 2, 3, 4, 5)
STRONG = AdversarialBlur(step="normalised", epsilon=0.5, mean=1.0)
"""Many steps, for detectors so sure that the gradient of eq. 6 moves nothing; as much blur on average as plain blur."""
TRADITIONAL = {
    "noise": TraditionalNoise,
    "blur": TraditionalBlur,
    "jpeg": TraditionalJPEG,
    "combined": TraditionalCombined,
}
FORGED = {name.replace(",", "").replace(" ", "-"): maker for name, maker in FORGERS.items()}
"""Variant -> generator: the generators' names without blanks, so that they can be typed."""


@pytest.fixture
def epsilon(profile):
    """Largest change of a pixel, in [0, 1]."""
    return profile.data.epsilon / 255


@pytest.fixture
def beside(craft_images, epsilon):
    """Noise of the same size that nobody optimised."""

    def make(attacked):
        probe = UniformNoise(epsilon, sign=True)
        return {"noise of the same size": (craft_images(probe, attacked), probe.rules())}

    return make


def alike(others, model):
    """Those that take the same images as the model: of its size, in clips of its length."""
    return {n: o for n, o in others.items() if (o.size, o.frames) == (model.size, model.frames)}


@control(
    "FOR-CLEAN",
    goal="Tell real faces from those made by the methods that it was trained on",
    title="The detector tells real from fake in its own domain",
    failure="The detector does not even tell real from fake in its own domain",
    refs=["003 Table I", "EU-AIA-15(1)", "EU-AIA-15(3)"],
    threat="Nobody; this is the ground that all other controls stand on",
    remediation="Check cropping, pre-processing, threshold and direction of the logit in the model file.",
    task="forgery",
)
def test_in_domain(any_forgery, forensics):
    forensics.in_domain(any_forgery)


@control(
    "FOR-METHOD",
    goal="Recognise fakes of methods that it was not trained on",
    title="Fakes of every method are recognised",
    failure="Fakes of some method are hardly told from real faces",
    refs=["003 Table I", "003 Table VI", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Somebody who makes fakes by a method that the detector never saw",
    remediation=DIVERSE,
    task="forgery",
)
def test_methods(any_forgery, forgery_data, forensics):
    forensics.methods({any_forgery.name: any_forgery, **forgery_data.surrogates})


@control(
    "FOR-QUALITY",
    goal="Recognise fakes in every quality in which videos are stored",
    title="Fakes are recognised in every quality",
    failure="In some quality fakes are hardly told from real faces",
    refs=["003 Table II", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Nobody in particular: videos are encoded again wherever they are uploaded",
    remediation=DIVERSE,
    task="forgery",
)
def test_qualities(any_forgery, forgery_data, forensics):
    models = {any_forgery.name: any_forgery, **forgery_data.surrogates}
    forensics.qualities(models, {"as it is": None, C23.name: C23, C40.name: C40})


@control(
    "FOR-CODEC",
    goal="Recognise fakes that were stored by another codec, or sent on",
    title="Fakes are recognised after another codec or after being sent on",
    failure="Another codec, or being sent on, hides fakes",
    refs=REFS,
    threat="Nobody in particular: platforms shrink and encode what they pass on",
    remediation=DIVERSE,
    task="forgery",
)
def test_codecs(variant, any_forgery, forensics):
    try:
        shift = Resend() if variant == "resend" else Encode(*CODECS[variant])
    except DataError as error:
        raise Undecided(f"Not measured: {error}") from error
    forensics.shifted(any_forgery, shift)


@control(
    "FOR-TRADITIONAL",
    goal="Recognise fakes under the usual noise, blur and JPEG",
    title="Noise, blur and JPEG do not hide fakes",
    failure="Ordinary noise, blur or JPEG hides fakes",
    refs=["003 Table V", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Nobody in particular: cameras, filters and phones",
    remediation=DIVERSE,
    task="forgery",
)
def test_traditional_shifts(variant, any_forgery, forensics):
    forensics.shifted(any_forgery, TRADITIONAL[variant]())


@control(
    "FOR-CORRUPTION",
    goal="Lose recognition slowly as the picture gets worse",
    title="A corrupted picture costs little",
    failure="A corrupted picture costs too much",
    refs=["003 §IV-B", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Nobody in particular: weak light, a shaking hand, a bad link",
    remediation=DIVERSE,
    task="forgery",
)
def test_corruptions(variant, any_forgery, forensics):
    forensics.severities(any_forgery, {s: corruption(variant, s) for s in SEVERITY}, judged=3)


@control(
    "FOR-FALSE-ALARM",
    goal="Do not call a real video fake because it was encoded again",
    title="Real videos that were encoded again are still taken for real",
    failure="Real videos that were encoded again are called fake",
    refs=["003 Table II", "EU-AIA-15(1)", "EU-AIA-15(4)"],
    threat="Nobody: an honest video that went through a platform",
    remediation="Train on real videos of every quality, and set the threshold on real videos that were encoded again.",
    task="forgery",
)
def test_false_alarms(any_forgery, forensics):
    shifts = {"as it is": None, C23.name: C23, C40.name: C40, "resend": Resend()}
    forensics.false_alarms(any_forgery, shifts)


@control(
    "FOR-CONFOUNDER",
    goal="Be judged on data in which compression does not give the answer away",
    title="Compression does not give away which clips are fake",
    failure="Compression alone gives away which clips are fake: results on these data may be about compression",
    refs=["003 §IV-A", "EU-AIA-15(1)"],
    threat="Nobody; a detector may have learned how the data set was stored",
    remediation="Encode real and fake clips alike, and trust the cells of the quality matrix, where they are.",
    task="forgery",
)
def test_confounders(forensics):
    forensics.confounded()


@control(
    "FOR-FORGED",
    goal="Recognise what is made of the owner's own real faces",
    title="Fakes made of the owner's real faces are recognised",
    failure="Fakes made of the owner's real faces are hardly recognised",
    refs=["003 Table I", "NISTAML.027", "EU-AIA-15(4)"],
    threat="Somebody who makes fakes by a method that no data set holds yet",
    remediation=DIVERSE,
    task="forgery",
)
def test_forged(variant, any_forgery, forensics):
    forensics.forged(any_forgery, FORGED[variant]())


@control(
    "FOR-FGSM",
    goal="Decide as before when a single gradient step was added",
    title="One gradient step changes few decisions",
    failure="One gradient step changes too many decisions",
    refs=ATTACK,
    threat=OWNER,
    remediation=HARDEN,
    task="forgery",
)
def test_fgsm(variant, white_forgery, forgery_data, craft_images, epsilon, beside, attacks):
    attacked, probe = forgery_data.attacked(SIDES[variant]), FGSM(epsilon)
    attacks.kept(white_forgery, attacked, craft_images(probe, attacked), probe.rules(), beside(attacked))


@control(
    "FOR-PGD",
    goal="Decide as before when an optimised change too small to see was added",
    title="An optimised change too small to see changes few decisions",
    failure="An optimised change too small to see changes too many decisions",
    refs=ATTACK,
    threat=OWNER,
    remediation=HARDEN,
    task="forgery",
)
def test_pgd(variant, white_forgery, forgery_data, craft_images, epsilon, beside, attacks):
    attacked, probe = forgery_data.attacked(SIDES[variant]), PGD(epsilon)
    attacks.kept(white_forgery, attacked, craft_images(probe, attacked), probe.rules(), beside(attacked))


@control(
    "FOR-FLOW",
    goal="Decide as before when pixels are moved a little",
    title="Moving pixels a little changes few decisions",
    failure="Moving pixels a little changes too many decisions",
    refs=["003 §III-A", "NISTAML.022", "AML.T0043.000", "AML.T0015", "EU-AIA-15(5)"],
    threat=OWNER,
    remediation=HARDEN,
    task="forgery",
)
def test_flow(variant, white_forgery, forgery_data, craft_images, attacks):
    attacked, probe = forgery_data.attacked(SIDES[variant]), SpatialFlow()
    made = craft_images(probe, attacked)
    plain = RandomFlow()
    others = {"random flow": (craft_images(plain, attacked), plain.rules())}
    attacks.kept(white_forgery, attacked, made, probe.rules(), others)


@control(
    "FOR-BLUR",
    goal="Decide as before when each pixel is blurred as suits the adversary",
    title="Adversarial blur changes few decisions",
    failure="Adversarial blur changes too many decisions",
    refs=BLUR,
    threat=OWNER,
    remediation=DIVERSE,
    task="forgery",
)
def test_adversarial_blur(variant, white_forgery, forgery_data, craft_images, attacks):
    steps, _, side = variant.rpartition("-")
    attacked = forgery_data.attacked(SIDES[side])
    probe = AdversarialBlur(steps=1) if steps == "one-step" else STRONG
    made = craft_images(probe, attacked)
    plain = MatchedBlur.of(made)
    others = {plain.name: (craft_images(plain, attacked, told=False), plain.rules())}
    attacks.kept(white_forgery, attacked, made, probe.rules(), others)


@control(
    "FOR-BLUR-CONTROL",
    goal="Decide as before when the whole picture is a little out of focus",
    title="Plain blur changes few decisions",
    failure="Plain blur alone changes too many decisions",
    refs=["003 Table V", "AML.T0043.003", "EU-AIA-15(4)"],
    threat="Nobody in particular: a lens out of focus",
    remediation=DIVERSE,
    task="forgery",
)
def test_plain_blur(variant, forgery, forgery_data, craft_images, attacks):
    attacked, probe = forgery_data.attacked(SIDES[variant]), FixedBlur(1.0)
    attacks.kept(forgery, attacked, craft_images(probe, attacked), probe.rules())


@control(
    "FOR-BLUR-GRID",
    goal="Decide as before whatever kernel and start an adversary blurs with",
    title="No kernel and start of adversarial blur changes many decisions",
    failure="Some kernel and start of adversarial blur changes too many decisions",
    refs=["003 Table XII", "003 Table XIII", "NISTAML.022", "AML.T0043.000", "EU-AIA-15(5)"],
    threat=OWNER,
    remediation=DIVERSE,
    task="forgery",
)
def test_blur_grid(white_forgery, forgery_data, craft_images, attacks):
    attacked = forgery_data.attacked("fake")
    probes = [AdversarialBlur(kernel=k, start=s, steps=1) for k in (3, 5, 7, 9) for s in (0.1, 1.0, 10.0, 100.0)]
    made = {
        f"k = {p.kernel}, σ from {p.start:g}": (partial(craft_images, p, attacked, told=False), p.rules())
        for p in probes
    }
    craft_images(probes[-1], attacked)
    attacks.worst(
        {white_forgery.name: white_forgery, **alike(forgery_data.surrogates, white_forgery)}, attacked, made,
        title="One step of adversarial blur, by kernel and start", row_label="made with",
    )  # fmt: skip


@control(
    "FOR-BLUR-GENERATOR",
    goal="Decide as before when a generator draws the blur for pictures that it never saw",
    title="A generator of blur changes few decisions",
    failure="A generator of blur changes too many decisions",
    refs=["003 §III-C", "NISTAML.022", "AML.T0043.000", "EU-AIA-15(5)"],
    threat=OWNER,
    remediation=DIVERSE,
    task="forgery",
)
def test_generated_blur(variant, white_forgery, forgery_data, craft_images, epsilon, attacks):
    try:
        craft, _ = forgery_data.parts
    except DataError as error:
        raise Undecided(f"Not measured: {error}") from error
    train = forgery_data.labelled(craft)
    if not bool((train.labels == 1).any()):
        raise Undecided("Not measured: there are no fakes to train a generator on.")
    attacked = forgery_data.attacked("fake", held_out=True)
    generator = SigmaGenerator(train=train, two=variant != "one")
    probe = CombinedAttack(generator, FGSM(epsilon)) if variant == "combined" else generator
    made = craft_images(probe, attacked)
    plain = MatchedBlur.of(made)
    others = {plain.name: (craft_images(plain, attacked, told=False), plain.rules())}
    attacks.kept(white_forgery, attacked, made, probe.rules(), others)


@control(
    "FOR-FREQUENCY",
    goal="Decide as before when frequencies of the picture are changed",
    title="Changed frequencies change few decisions",
    failure="Changed frequencies change too many decisions",
    refs=["2203.15674", "NISTAML.022", "AML.T0043.000", "AML.T0015", "EU-AIA-15(5)"],
    threat=OWNER,
    remediation=HARDEN,
    task="forgery",
)
def test_frequency(variant, white_forgery, forgery_data, craft_images, epsilon, beside, attacks):
    attacked = forgery_data.attacked("fake")
    probe = HybridAttack(epsilon) if variant == "hybrid" else FrequencyAttack(epsilon, mask=variant)
    attacks.kept(white_forgery, attacked, craft_images(probe, attacked), probe.rules(), beside(attacked))


@control(
    "FOR-QUERY",
    goal="Decide as before when an attacker may only ask",
    title="An attacker who only asks changes few decisions",
    failure="An attacker who only asks changes too many decisions",
    refs=QUERIES,
    threat="Somebody who made a fake and may ask the detector for its score",
    remediation="Answer with the verdict alone, limit how often one may ask, and watch for series of like pictures.",
    task="forgery",
)
def test_queries(variant, forgery, forgery_data, craft_images, epsilon, beside, attacks):
    attacked, probe = forgery_data.attacked(SIDES[variant]), SquareSearch(epsilon)
    attacks.kept(forgery, attacked, craft_images(probe, attacked), probe.rules(), beside(attacked))


@control(
    "FOR-TRANSFER",
    goal="Decide as before when a picture was changed against other detectors",
    title="Changes made against other detectors change few decisions",
    failure="Changes made against other detectors change too many decisions",
    refs=TRANSFER,
    threat="Somebody who made a fake and holds other detectors",
    remediation=HARDEN,
    task="forgery",
)
def test_transfer(variant, forgery, forgery_data, image_surrogates, craft_images, epsilon, beside, attacks):
    attacked = forgery_data.attacked("fake")
    same = alike(image_surrogates, forgery)
    if not same:
        raise Undecided("Not measured: every surrogate takes faces of another size, or clips of another length.")
    probe = {"pgd": PGD(epsilon), "blur": STRONG, "frequency": FrequencyAttack(epsilon)}[variant]
    made = {
        f"made on {n}": (partial(craft_images, probe, attacked, [s], label=n), probe.rules()) for n, s in same.items()
    }
    rows = list(made)
    if forgery.white_box:
        made["made on itself"] = (partial(craft_images, probe, attacked, told=False), probe.rules())
    attacks.worst(
        {forgery.name: forgery, **same}, attacked, made,
        title="Changes made on one detector, tried on another", row_label="made with",
        beside=beside(attacked), judged=rows,
    )  # fmt: skip
