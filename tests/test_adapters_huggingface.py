"""Hugging Face's detection transformers: a YOLOS that was taught red squares, and the families with random weights."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F

from audit.adapters import huggingface_detector
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from tests.adapted import (
    RED,
    best,
    clean_recall,
    doctored,
    gradient_agrees,
    needs,
    one_control,
    overlap,
    painted,
    usable_after_inference_mode,
)
from tests.test_adapters_examples import load

NAMES = {0: "cat", 1: "dog", 2: "kite"}
SEEN = (64, 80)
SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 10,
    "id2label": NAMES,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
LEVELS = {"out_features": ["stage2", "stage3", "stage4"]}
FAMILIES = {"detr": "softmax", "yolos": "softmax", "deformable": "sigmoid", "rt": "sigmoid"}


def made(family: str):
    import transformers as hf

    torch.manual_seed(0)
    if family == "detr":
        backbone = hf.ResNetConfig(**RESNET, out_features=["stage4"])
        net = hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=backbone, **SMALL))
        loud = [net.class_labels_classifier]
    elif family == "deformable":
        backbone = hf.ResNetConfig(**RESNET, **LEVELS)
        net = hf.DeformableDetrForObjectDetection(hf.DeformableDetrConfig(backbone_config=backbone, **SMALL))
        loud = list(net.class_embed)
    elif family == "rt":
        backbone = hf.RTDetrResNetConfig(**RESNET, **LEVELS)
        more = {"encoder_hidden_dim": 32, "encoder_in_channels": [16, 24, 32], "decoder_in_channels": [32, 32, 32]}
        net = hf.RTDetrForObjectDetection(hf.RTDetrConfig(backbone_config=backbone, num_denoising=0, **more, **SMALL))
        loud = list(net.model.decoder.class_embed)
    else:
        net = yolos(num_detection_tokens=5, id2label=NAMES)
        loud = [net.class_labels_classifier.layers[-1]]
    for layer in loud:
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(layer.bias, std=0.5)
    return net.eval()


def yolos(**settings):
    import transformers as hf

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
    return hf.YolosForObjectDetection(
        hf.YolosConfig(image_size=list(SEEN), patch_size=16, **small, **quiet, **settings)
    )


@pytest.fixture(scope="module", autouse=True)
def alone():
    """One thread, and no hub."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        needs("transformers")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder of a YOLOS with two queries that were taught to see whether a square stands left, and right."""
    import transformers as hf

    torch.manual_seed(0)
    net = yolos(num_detection_tokens=2, id2label={0: "square"})
    torch.nn.init.normal_(net.vit.embeddings.position_embeddings, std=0.5)
    torch.nn.init.normal_(net.vit.embeddings.detection_tokens, std=0.5)
    g = torch.Generator().manual_seed(0)
    learn = torch.optim.Adam(net.parameters(), lr=5e-3)
    _, boxes = painted([(4, 40), (108, 40)])
    centres = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
    for _ in range(120):
        x = 0.4 + 0.2 * torch.rand((16, 1, 128, 160), generator=g).repeat(1, 3, 1, 1)
        there = torch.rand((16, 2), generator=g) < 0.6
        for image, (left, right) in zip(x, there, strict=True):
            shift = int(torch.randint(0, 9, (1,), generator=g))
            for shown, corner in ((left, shift), (right, 104 + shift)):
                if shown:
                    image[:, 40:88, corner : corner + 48] = RED
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        out = net((F.interpolate(x, size=SEEN, mode="bilinear", antialias=True) - mean) / std)
        apart = out.pred_boxes - centres / torch.tensor([160, 128, 160, 128])
        loss = F.cross_entropy(out.logits.flatten(0, 1), 1 - there.long().flatten()) + 5 * apart.abs().mean()
        learn.zero_grad()
        loss.backward()
        learn.step()
    folder = tmp_path_factory.mktemp("yolos")
    net.save_pretrained(folder)
    hf.YolosImageProcessor(size={"height": SEEN[0], "width": SEEN[1]}, do_pad=False).save_pretrained(folder)
    return folder


def detector_of(folder, **options):
    import transformers as hf

    net = hf.AutoModelForObjectDetection.from_pretrained(folder)
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    return huggingface_detector(net, **{"processor": processor, "score_threshold": 0.5} | options)


@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (1, 2), (3, 1)])
def test_boxes_are_where_the_squares_are(taught, scale):
    detector = detector_of(taught)
    images, boxes = painted([(4, 40), (108, 40)])
    images = F.interpolate(images, scale_factor=scale, mode="nearest")
    boxes = boxes * torch.tensor([scale[1], scale[0]] * 2)
    for found, box in zip(detector(images), boxes, strict=True):
        assert (found.scores > 0.5).sum() == 1
        assert overlap(best(found), box) > 0.8
    found = detector.candidates(images)
    assert (found.logits[..., 0] > 0).tolist() == [[True, False], [False, True]]


def own_words(net, processor, x, threshold):
    """What the package itself makes of uint8 images."""
    inputs = processor(images=list((x * 255).round().to(torch.uint8)), return_tensors="pt")
    with torch.no_grad():
        out = net(**inputs)
    sizes = [tuple(x.shape[-2:])] * len(x)
    return processor.post_process_object_detection(out, threshold=threshold, target_sizes=sizes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(96, 128), (70, 111)])
def test_detections_are_those_of_the_packages_own_processor(family, size):
    import transformers as hf

    net = made(family)
    kinds = {
        "detr": hf.DetrImageProcessor,
        "yolos": hf.YolosImageProcessor,
        "deformable": hf.DeformableDetrImageProcessor,
        "rt": hf.RTDetrImageProcessor,
    }
    processor = kinds[family](size={"height": 96, "width": 128})
    smooth = torch.rand((2, 3, 6, 8), generator=torch.Generator().manual_seed(1))
    x = (F.interpolate(smooth, size=size, mode="bilinear") * 255).round() / 255
    detector = huggingface_detector(net, processor=processor, score_threshold=0.5, score_floor=0.05)
    assert detector.classes == ("cat", "dog", "kite")
    resized = size != (96, 128)  # on whole numbers: torchvision rounds what it resizes
    for found, own in zip(detector(x), own_words(net, processor, x, 0.05), strict=True):
        assert len(found.scores) >= 4
        assert len(found.scores) == len(own["scores"])
        order = own["scores"].argsort(descending=True, stable=True)
        torch.testing.assert_close(found.scores, own["scores"][order], atol=0.01 if resized else 1e-5, rtol=0)
        own_boxes = own["boxes"].clamp(min=0).minimum(torch.tensor([size[1], size[0]] * 2))
        apart = (found.boxes[:, None] - own_boxes).abs().amax(-1) + 1e3 * (found.labels[:, None] != own["labels"])
        assert apart.amin(1).max() < (1.0 if resized else 1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own_and_gradients_flow(family):
    net = made(family)
    detector = huggingface_detector(net, score_threshold=0.5, size=(64, 96))
    x = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(2))
    usable_after_inference_mode(detector, x)
    with torch.no_grad():
        found = detector.candidates(x)
        raw = net(pixel_values=detector._before(x)).logits.double()
    if FAMILIES[family] == "sigmoid":
        assert torch.equal(found.logits, raw.float())
    else:
        p = raw.softmax(-1)[..., :-1]
        torch.testing.assert_close(found.logits, (p / (1 - p)).log().float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["detr", "deformable"])
def test_an_image_does_not_depend_on_its_batch(family):
    detector = huggingface_detector(made(family), score_threshold=0.5, size=(64, 96))
    x = torch.rand((3, 3, 50, 70), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole, alone = detector.candidates(x), detector.candidates(x[1:2])
    torch.testing.assert_close(whole.logits[1], alone.logits[0], atol=1e-4, rtol=1e-4)


def test_the_familys_own_size_is_taken_where_no_processor_is_given():
    detector = huggingface_detector(made("yolos"), score_threshold=0.5)
    # 800 px for the shorter side, 1333 for the longer: torchvision's rule as DETR's paper has it
    for height, width in ((480, 640), (100, 400)):
        short = min(800, 1333 * min(height, width) / max(height, width))
        ratio = short / min(height, width)
        rows, columns = detector._before.made(height, width).input_size
        assert (rows, columns) == pytest.approx((height * ratio, width * ratio), abs=16)
    limited = huggingface_detector(made("yolos"), score_threshold=0.5, size={"shortest_edge": 64, "longest_edge": 96})
    assert limited._before.made(100, 200).input_size == pytest.approx((48, 96), abs=16)


def test_a_saturated_score_keeps_its_gradient(taught):
    detector = detector_of(taught)
    with torch.no_grad():
        detector.module.class_labels_classifier.layers[-1].bias.add_(torch.tensor([60.0, 0.0]))
    x = painted([(4, 40)])[0].requires_grad_()
    found = detector.candidates(x)
    assert float(found.logits.detach().sigmoid().min()) == 1.0
    assert float(found.logits.detach().min()) > 40
    (gradient,) = torch.autograd.grad(found.logits.sum(), x)
    assert gradient.abs().max() > 0


def test_a_finite_difference_agrees_with_the_gradient(taught):
    gradient_agrees(detector_of(taught), F.interpolate(painted([(4, 40)])[0], size=(150, 200)))


MODEL = """
import audit
from tests.adapted import data
from tests.test_adapters_huggingface import detector_of

def model(device):
    return detector_of({folder!r}, files=[{folder!r} + "/model.safetensors"])
"""


def test_the_doctor_finds_nothing_to_mend(taught, tmp_path, capsys):
    path = tmp_path / "mymodel.py"
    path.write_text(MODEL.format(folder=str(taught)))
    out = doctored(path, capsys)
    assert "gradients: attacks are optimised through the model itself" in out
    assert "!!" not in out
    assert "model.safetensors" in out


@pytest.mark.slow
def test_a_control_runs_on_it(taught, tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(MODEL.format(folder=str(taught)))
    row = one_control(path, tmp_path, "DET-CONTROL/noise")
    assert row["verdict"] in ("pass", "fail"), row["reason"]
    assert clean_recall(row) > 0.9


def test_the_example(taught, monkeypatch):
    example = load("huggingface_detr")
    monkeypatch.setattr(example, "FOLDER", str(taught))
    detector = example.model(torch.device("cpu"))
    assert isinstance(detector, WhiteBoxDetector)
    assert isinstance(detector, Detector)
    assert detector.classes == ("square",)
    assert "YolosForObjectDetection of square at 0.7" in repr(detector)
    images, boxes = painted([(108, 40)])
    assert overlap(best(detector(images)[0]), boxes[0]) > 0.8


def test_the_example_without_its_folder_says_so_and_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = load("huggingface_detr")
    for part in ("AutoModelForObjectDetection", "AutoImageProcessor"):
        monkeypatch.setattr(example, part, None)
    with pytest.raises(ModelError) as told:
        example.model(torch.device("cpu"))
    assert "model folder detr-resnet-50: expected a folder of save_pretrained, got none" in str(told.value)
    assert "\n" not in str(told.value)


class Processor:
    """What an image processor must have."""

    image_mean = image_std = (0.5, 0.5, 0.5)
    resample = 2

    def __init__(self, **settings):
        vars(self).update(settings)

    def __call__(self, images, return_tensors, **chosen):
        mask = torch.ones((1, 32, 32), dtype=torch.int64)
        mask[:, getattr(self, "rows", 32) :] = 0
        return {"pixel_values": torch.zeros(1, 3, 32, 32), "pixel_mask": mask}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": torch.nn.Conv2d(3, 3, 1)}, "got Conv2d"),
        ({"model": "facebook/detr-resnet-50"}, "got str; load one with AutoModelForObjectDetection"),
        ({"model": "classifier"}, "logits (N, A, C) and pred_boxes (N, A, 4), got ViTForImageClassification"),
        ({"classes": ("a", "b")}, "3 names, without 'no object', got 2"),
        ({"classes": "cat"}, "the text 'cat'"),
        ({"scores": "sigmoid"}, "4 names, without 'no object', got 3"),
        ({"scores": "logit"}, "'softmax' or 'sigmoid', got 'logit'"),
        ({"score_threshold": math.nan}, "from 0 to 1"),
        ({"score_threshold": 0.1, "score_floor": 0.2}, "at most the score threshold 0.1"),
        ({"size": 640}, "(height, width), or a mapping"),
        ({"size": {"shorter": 640}}, "a size that the processor takes"),
        ({"processor": "detr"}, "an image processor, got str"),
        ({"processor": Processor(resample=3)}, "bilinear resizing, got resample 3"),
        ({"processor": Processor(rows=20)}, "no padding of a single image"),
        ({"files": ["nowhere.safetensors"]}, "no such file"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(given, words):
    import transformers as hf

    given = {"model": made("yolos"), "score_threshold": 0.5} | ({} if "processor" in given else {"size": SEEN}) | given
    if given["model"] == "classifier":
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        given["model"] = hf.ViTForImageClassification(hf.ViTConfig(image_size=list(SEEN), **small))
    with pytest.raises(ModelError) as told:
        huggingface_detector(given.pop("model"), **given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    net = made("yolos")
    monkeypatch.setitem(sys.modules, "transformers.models.auto.image_processing_auto", None)
    with pytest.raises(ModelError, match=r"assay-audit\[huggingface\]"):
        huggingface_detector(net, score_threshold=0.5)
