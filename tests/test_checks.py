"""The check on a tiny batch: broken contracts are told in one sentence; what only weakens a pass is a fact."""

from __future__ import annotations

import pytest
import torch

from audit.checks import check
from audit.errors import ModelError
from audit.subject import load
from audit.tiny import tiny_images
from tests.models import SOUND, candidates, detections, spoiled, write
from tests.planted import model_file

torch.set_num_threads(1)


def facts_of(path):
    return {fact.name.partition(": ")[2]: fact for fact in check(load(path))}


def refused(path, *says):
    subject = load(path)
    with pytest.raises(ModelError) as caught:
        check(subject)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for part in says:
        assert part in message


def test_sound_detector(tmp_path):
    facts = facts_of(write(tmp_path, SOUND))
    assert all(f.ok for f in facts.values())
    # The toy is linear, its cells do not overlap: the gradient of the sum of its logits is its weight, 1/20 at most.
    assert facts["gradients reach the images"].value == pytest.approx(0.05)
    assert facts["same images, same gradient"].value == 0
    assert facts["detections on the tiny batch"].value > 0


def test_tiny_images_are_the_same_every_time_and_differ():
    images = tiny_images((48, 80))
    assert images.shape == (4, 3, 48, 80)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(images, tiny_images((48, 80)))
    assert len({tuple(i.flatten()[:50].tolist()) for i in images}) == 4


BAD_DETECTIONS = {
    "a tensor": ("images.mean()", ["a list of 4 Detections", "a tensor of shape ()"]),
    "too few": ("[Detections(boxes_of(), one, zero)]", ["a list of 4 Detections", "a list of 1"]),
    "dicts": ("[{'boxes': boxes_of()}] * n", ["tensors boxes, scores and labels", "a dict without boxes"]),
    "lists": ("[Detections([[1, 2, 3, 4]], one, zero)] * n", ["without boxes"]),
    "five numbers": ("[Detections(torch.ones(1, 5), one, zero)] * n", ["(K, 4)", "(1, 5)"]),
    "whole boxes": ("[Detections(boxes_of().long(), one, zero)] * n", ["floating-point", "torch.int64"]),
    "scores do not match": ("[Detections(boxes_of(2), one, zero)] * n", ["scores", "(2,)", "(1,)"]),
    "labels as numbers": ("[Detections(boxes_of(), one, one)] * n", ["labels as whole numbers", "torch.float32"]),
    "not finite": ("[Detections(boxes_of() / 0, one, zero)] * n", ["finite boxes", "4 of 4"]),
    "score not a number": ("[Detections(boxes_of(), one * float('nan'), zero)] * n", ["finite scores", "1 of 1"]),
    "out of order": (
        "[Detections(boxes_of(1, (40., 10, 10, 50)), one, zero)] * n",
        ["x1 <= x2", "[40.0, 10.0, 10.0, 50.0]"],
    ),
    "score above 1": ("[Detections(boxes_of(), one * 1.5, zero)] * n", ["scores in [0, 1]", "1.5", "sigmoid"]),
    "score below 0": ("[Detections(boxes_of(), one * -0.5, zero)] * n", ["scores in [0, 1]", "-0.5"]),
    "label from 1": ("[Detections(boxes_of(), one, zero + 1)] * n", ["labels from 0 to 0", "subtract 1"]),
    "shares of the image": (
        "[Detections(boxes_of(1, (.1, .2, .5, .9)), one, zero)] * n",
        ["in pixels", "0.90", "multiply"],
    ),
    "pixels of another size": (
        "[Detections(boxes_of(9, (500., 500, 600, 600)), one.expand(9), zero.expand(9))] * n",
        ["in pixels", "100% of their centres outside", "scale them back"],
    ),
    "random": (
        "[Detections(boxes_of() + torch.randn(1), torch.rand(1), zero) for _ in images]",
        ["the same detections for the same images", "different in a second call", "randomness"],
    ),
    "constant": ("[Detections(boxes_of(), one, zero)] * n", ["depend on the image", "the same 1 for a photograph"]),
    "in place": ("(images.mul_(2), [Detections(boxes_of(), one, zero)] * n)[1]", ["changed in place", "clone()"]),
    "raising": ("images.no_such_thing", ["AttributeError", "no_such_thing", "at line"]),
}


@pytest.mark.parametrize(("expression", "says"), BAD_DETECTIONS.values(), ids=BAD_DETECTIONS)
def test_bad_detections(tmp_path, expression, says):
    refused(detections(tmp_path, expression), *says)


BAD_CANDIDATES = {
    "a tuple": ("(c.boxes, c.logits)", ["audit.contracts.Candidates", "a tuple of 2"]),
    "logits without classes": ("Candidates(c.boxes, c.logits[..., 0])", ["candidate logits", "one per box and class"]),
    "two classes": ("Candidates(c.boxes, c.logits.expand(-1, -1, 2))", ["candidate logits", "2)"]),
    "one batch less": ("Candidates(c.boxes[:1], c.logits[:1])", ["candidate boxes", "(4, A, 4)"]),
    "none": ("Candidates(c.boxes[:, :0], c.logits[:, :0])", ["none at all"]),
    "infinite": ("Candidates(c.boxes, c.logits / 0)", ["finite candidate logits"]),
    "detached": ("Candidates(c.boxes, c.logits.detach())", ["differentiable", "without gradient", "queries"]),
    "probabilities": ("Candidates(c.boxes, c.logits.sigmoid())", ["log-odds", "before the sigmoid"]),
    "random": (
        "Candidates(c.boxes, c.logits + torch.randn_like(c.logits))",
        ["the same candidates", "sampled proposals"],
    ),
    "constant": ("Candidates(c.boxes, c.logits * 0 - 3)", ["candidates that depend on the image"]),
    "shares": ("Candidates(c.boxes / 256, c.logits)", ["candidate boxes in pixels", "as shares"]),
}


@pytest.mark.parametrize(("expression", "says"), BAD_CANDIDATES.values(), ids=BAD_CANDIDATES)
def test_bad_candidates(tmp_path, expression, says):
    refused(candidates(tmp_path, expression), *says)


MASKED = {
    "rounded": "Candidates(c.boxes, c.logits + (c.logits.round() - c.logits))",
    "saturated": "Candidates(c.boxes, c.logits.sign() * 3 + 0 * c.logits)",
}


@pytest.mark.parametrize("expression", MASKED.values(), ids=MASKED)
def test_a_zero_gradient_is_a_fact_and_no_refusal(tmp_path, expression):
    fact = facts_of(candidates(tmp_path, expression))["gradients reach the images"]
    assert not fact.ok
    assert fact.value == pytest.approx(0, abs=1e-7)


def test_quantised_input_masks_the_gradient(tmp_path):
    source = """
    class Coarse(Toy):
        def candidates(self, images):
            return super().candidates((images * 8).round() / 8)

    def model(device):
        return Coarse()
    """
    fact = facts_of(spoiled(tmp_path, source))["gradients reach the images"]
    assert (fact.ok, fact.value) == (False, 0.0)


def test_a_gradient_that_is_not_a_number_is_a_fact(tmp_path):
    source = """
    class Root(Toy):
        def candidates(self, images):
            c = super().candidates(images)
            return Candidates(c.boxes, c.logits + (images * 0).sum((1, 2, 3)).sqrt()[:, None, None])

    def model(device):
        return Root()
    """
    facts = facts_of(spoiled(tmp_path, source))
    assert not facts["gradients reach the images"].ok
    assert facts["gradients reach the images"].value is None
    assert not facts["same images, same gradient"].ok


def test_gradients_that_differ_are_a_fact(tmp_path):
    source = """
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g + torch.randn_like(g)

    class Random(Toy):
        def candidates(self, images):
            return super().candidates(Noisy.apply(images))

    def model(device):
        return Random()
    """
    facts = facts_of(spoiled(tmp_path, source))
    assert facts["gradients reach the images"].ok
    assert not facts["same images, same gradient"].ok


def test_dependence_on_the_company_in_the_batch_is_a_fact(tmp_path):
    source = """
    class Social(Dark):
        def __call__(self, images):
            return super().__call__((images - images.mean(0)).clamp(-0.5, 0.5) + 0.5)

    def model(device):
        return Social()
    """
    assert not facts_of(spoiled(tmp_path, source))["an image alone gives what it gives in a batch"].ok


def test_a_black_box_that_finds_nothing_is_said_so(tmp_path):
    nothing = "[Detections(boxes_of(0), one[:0], zero[:0]) for _ in images]"
    facts = facts_of(detections(tmp_path, nothing))
    assert all(f.ok for f in facts.values())
    assert facts["detections on the tiny batch"].value == 0
    assert "could not be seen" in facts["detections on the tiny batch"].meaning


def test_model_in_training_mode_is_checked_in_evaluation_and_left_as_it_was(tmp_path):
    """With batch statistics the photograph alone would give something else, and running statistics would move."""
    source = """
    class Trained(Toy):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.BatchNorm2d(3), self.net)
            self.net.train()

    def model(device):
        return Trained()
    """
    subject = load(spoiled(tmp_path, source))
    before = subject.state_digest()
    assert all(f.ok for f in check(subject))
    assert subject.state_digest() == before
    assert subject.tasks["detector"].net.training


def test_module_imported_at_the_first_call_is_found(tmp_path):
    (tmp_path / "late.py").write_text("SHIFT = 0.25\n")
    source = """
    class Late(Toy):
        def candidates(self, images):
            import late
            return super().candidates(images - late.SHIFT)

    def model(device):
        return Late()
    """
    path = spoiled(tmp_path, source)
    assert all(f.ok for f in facts_of(path).values())


FACES = """
class M:
    task = {task!r}
    face_size, threshold = (112, 112), 0.3

    def __call__(self, faces):
        import torch
        n = len(faces)
        return {output}


def model(device):
    return M()
"""

BAD_FACES = {
    "one number per face": ("recognizer", "faces.mean((1, 2, 3))", "embeddings as a tensor (4, D)"),
    "zero vector": ("recognizer", "torch.zeros(n, 8) * faces.mean()", "embeddings with a direction"),
    "not finite": ("recognizer", "faces.flatten(1)[:, :8] / 0", "finite embeddings"),
    "random embedding": ("recognizer", "torch.randn(n, 8)", "the same outputs for the same images"),
    "constant embedding": ("recognizer", "torch.ones(n, 8)", "outputs that depend on the image"),
    "two scores": ("forgery", "faces.flatten(1)[:, :2]", "fake logits as a tensor (4,), one per face"),
    "constant logit": ("forgery", "torch.ones(n)", "outputs that depend on the image"),
    "whole numbers": ("liveness", "torch.arange(n)", "live scores as floating-point"),
    "random score": ("liveness", "torch.rand(n)", "the same outputs"),
    "no classes": ("classifier", "faces.mean((1, 2, 3))", "logits as a tensor (4, K)"),
}


@pytest.mark.parametrize(("task", "output", "says"), BAD_FACES.values(), ids=BAD_FACES)
def test_bad_models_of_the_other_tasks(tmp_path, task, output, says):
    refused(write(tmp_path, FACES.format(task=task, output=output)), says)


SIMILARITIES = {
    "cosine": ("torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))", None),
    "distance": ("(a - b).flatten(1).norm(dim=1)", "similarities in [-1, 1]"),
    "matrix": ("a.flatten(1) @ b.flatten(1).T", "(4,), one per pair"),
    "constant": ("torch.ones(len(a)) * 0.5", "similarities that depend on the images"),
    "random": ("torch.rand(len(a))", "the same outputs"),
}


@pytest.mark.parametrize(("output", "says"), SIMILARITIES.values(), ids=SIMILARITIES)
def test_black_box_recognizer(tmp_path, output, says):
    source = f"""
    import torch

    class M:
        face_size, threshold = (112, 112), 0.3

        def similarity(self, a, b):
            return {output}

    def model(device):
        return M()
    """
    path = write(tmp_path, source)
    if says is None:
        assert all(f.ok for f in facts_of(path).values())
    else:
        refused(path, says)


PLANTED = {
    "Red": [],
    "Robust": [],
    "Blind": [],
    "QueryOnly": [],
    "Quantised": ["gradients reach the images"],
    "NoisyGradient": ["same images, same gradient"],
}


@pytest.mark.parametrize(("kind", "raised"), PLANTED.items(), ids=PLANTED)
def test_planted_subjects_raise_just_the_flags_that_they_deserve(tmp_path, kind, raised):
    facts = facts_of(write(tmp_path, model_file(kind)))
    assert [name for name, fact in facts.items() if not fact.ok] == raised


def test_planted_random_subject_is_refused(tmp_path):
    refused(write(tmp_path, model_file("Random")), "the same candidates for the same images", "randomness")


@pytest.mark.parametrize(("noise", "outcome"), [(0, "ok"), (4e-3, "flagged"), (0.1, "refused")])
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_randomness_is_judged_by_the_outputs_own_size(tmp_path, noise, outcome, size):
    output = f"{size} * (faces.flatten(1)[:, :64] - 0.5 + {noise} * (torch.rand(n, 64) - 0.5))"
    path = write(tmp_path, FACES.format(task="recognizer", output=output))
    if outcome == "refused":
        refused(path, "the same outputs")
    else:
        assert facts_of(path)["same images, same outputs"].ok == (outcome == "ok")
