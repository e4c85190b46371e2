"""Torchvision's detectors: candidates are what the model's own detections are made of, and nothing else changes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torchvision.models.detection as zoo
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, box_iou

from audit.adapters import torchvision_detector
from audit.adapters.torchvision_detectors import transformed
from audit.adapters.torchvision_rcnn import PADDING
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError

NAMES = ("cat", "dog", "kite")
NONE = {"weights": None, "weights_backbone": None}


def net(name: str, classes: int = len(NAMES), **kwargs):
    """A small random network that detects something: its class scores are spread out, nothing is cut for speed."""
    torch.manual_seed(0)
    background = "ssd" in name or "rcnn" in name
    made = getattr(zoo, name)(num_classes=classes + background, **NONE, **kwargs)
    if "rcnn" in name:
        last = [made.roi_heads.box_predictor.cls_score]
        made.roi_heads.detections_per_img = 50
        made.rpn._pre_nms_top_n["testing"] = made.rpn._post_nms_top_n["testing"] = 40
    else:
        head = made.head.classification_head
        last = list(head.module_list) if "ssd" in name else [head.cls_logits]
        made.topk_candidates, made.detections_per_img = 10**6, 50
    calibrate(made.backbone)
    made.eval()
    with torch.no_grad():
        heard: list[torch.Tensor] = []
        hooks = [m.register_forward_hook(lambda m, i, o: heard.append(o)) for m in last]
        made(list(images(2, 96, 128, seed=9)))
        spread = torch.cat([h.flatten() for h in heard]).std()
        for hook, module in zip(hooks, last, strict=True):
            hook.remove()
            layer = module[-1] if isinstance(module, torch.nn.Sequential) else module
            layer.weight.mul_(2.0 / spread)
            layer.bias.mul_(0.5)
    return made


def calibrate(backbone):
    """Batch statistics as training would leave them: without, a deep random net gives the same for every image."""
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    if norms:
        backbone.train()
        with torch.no_grad():
            for seed in range(2):
                backbone(images(2, 192, 192, seed) * 4 - 2)


def images(n: int, height: int, width: int, seed: int = 0):
    """Smooth random pictures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, height // 12 + 2, width // 12 + 2), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").contiguous()


SMALL = {"min_size": 96, "max_size": 160}
MODELS = {
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
    "retinanet_resnet50_fpn": SMALL,
    "retinanet_resnet50_fpn_v2": SMALL,
    "fcos_resnet50_fpn": SMALL,
    "fasterrcnn_mobilenet_v3_large_320_fpn": SMALL,
    "fasterrcnn_mobilenet_v3_large_fpn": SMALL,
    "fasterrcnn_resnet50_fpn": SMALL,
    "fasterrcnn_resnet50_fpn_v2": SMALL,
}
QUICK = ("ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in MODELS])
def made(request):
    return net(request.param, **MODELS[request.param])


def suppressed(module, boxes, logits):
    """The model's final step, by its own settings, from candidates."""
    settings = module.roi_heads if hasattr(module, "roi_heads") else module
    scores = logits.sigmoid()
    index, label = (scores > settings.score_thresh).nonzero(as_tuple=True)
    if hasattr(module, "roi_heads"):
        sides = (boxes[index, 2:] - boxes[index, :2]).amin(1)
        index, label = index[sides > 1e-2], label[sides > 1e-2]
    kept = batched_nms(boxes[index], scores[index, label], label, settings.nms_thresh)[: settings.detections_per_img]
    return boxes[index][kept], scores[index, label][kept], label[kept]


@pytest.mark.parametrize("size", [(120, 180), (200, 90)])
def test_the_candidates_are_what_the_model_suppresses(made, size):
    detector = torchvision_detector(made, NAMES, 0.5, boxes="each")
    x = images(2, *size)
    with torch.no_grad():
        found = detector.candidates(x)
    own = detector(x)
    assert found.boxes.shape == (2, found.logits.shape[1], 4)
    assert found.logits.shape[2] == len(NAMES)
    for i in range(2):
        boxes, scores, labels = suppressed(made, found.boxes[i], found.logits[i])
        assert len(own[i].boxes) > 5, "the test's net has to detect something"
        torch.testing.assert_close(scores, own[i].scores, atol=1e-4, rtol=1e-3)
        # neighbours of equal score may change places, so the boxes are compared as a set
        apart = (boxes[:, None] - own[i].boxes).abs().amax(-1) + 1e3 * (labels[:, None] != own[i].labels)
        assert (apart.amin(1) < 0.01).float().mean() > 0.95
        assert own[i].boxes[:, 0::2].max() <= size[1] + 1e-3
        assert own[i].boxes[:, 1::2].max() <= size[0] + 1e-3


def test_gradients_flow_and_repeat_and_the_model_is_left_alone(made):
    before = copy.deepcopy(made.state_dict())
    detector = torchvision_detector(made, NAMES, 0.5)
    assert isinstance(detector, WhiteBoxDetector)
    gradients = []
    for _ in range(2):
        x = images(2, 110, 150).requires_grad_()
        found = detector.candidates(x)
        real = found.logits > PADDING / 2
        gradients.append(torch.autograd.grad(found.logits[real].mean() + found.boxes.mean() / 100, x)[0])
        detector(x.detach())
    assert torch.equal(*gradients)
    assert gradients[0].isfinite().all()
    assert (gradients[0].abs().amax((1, 2, 3)) > 0).all()
    assert not any(m.training for m in made.modules())
    after = made.state_dict()
    assert list(before) == list(after)
    for key, value in before.items():
        assert value.numpy().tobytes() == after[key].numpy().tobytes(), key
    assert all(p.grad is None and not p.requires_grad for p in made.parameters())


def test_a_finite_difference_agrees_with_the_gradient():
    module = net("ssdlite320_mobilenet_v3_large").double()
    detector = torchvision_detector(module, NAMES, 0.5)
    x = images(1, 80, 120).double().requires_grad_()
    direction = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5

    def value(step: float):
        return detector.candidates(x + step * direction).logits[0, 100].double().sum()

    (gradient,) = torch.autograd.grad(value(0.0), x)
    # the adapter hands on float32, so the step is large enough for its rounding, and small enough for kinks
    with torch.no_grad():
        difference = (value(3e-5) - value(-3e-5)) / 6e-5
    assert math.isclose(float((gradient * direction).sum()), float(difference), rel_tol=0.05)


@pytest.mark.parametrize("size", [(64, 64), (90, 200), (211, 77), (300, 300)])
@pytest.mark.parametrize("fixed", [None, (96, 64)])
def test_the_whole_batch_passes_the_models_own_transform(size, fixed):
    module = GeneralizedRCNNTransform(100, 160, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4], fixed_size=fixed).eval()
    x = images(3, *size)
    mine, own = transformed(module, x), module(list(x))[0]
    assert torch.equal(mine.tensors, own.tensors)
    assert [tuple(s) for s in mine.image_sizes] == [tuple(s) for s in own.image_sizes]


def test_an_owners_transform_is_called_as_it_is():
    class Dark(GeneralizedRCNNTransform):
        def normalize(self, image):
            return super().normalize(image * 0)

    module = net("ssdlite320_mobilenet_v3_large")
    module.transform = Dark(320, 320, [0.5] * 3, [0.5] * 3, size_divisible=1, fixed_size=(320, 320))
    detector = torchvision_detector(module, NAMES, 0.5)
    with torch.no_grad():
        first, second = (detector.candidates(images(1, 99, 120, seed)).logits for seed in (0, 1))
    assert torch.equal(first, second)


def test_images_with_fewer_proposals_are_filled_up():
    module = net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL)
    module.rpn.nms_thresh = 0.2
    x = images(2, 96, 160)
    proposals = []
    module.roi_heads.box_roi_pool.register_forward_hook(lambda m, i, o: proposals.append([len(p) for p in i[1]]))
    with torch.no_grad():
        found = torchvision_detector(module, NAMES, 0.5).candidates(x)
    counts = proposals[0]
    assert counts[0] != counts[1], "the test needs images with different numbers of proposals"
    assert found.boxes.shape[1] == max(counts)
    for i, n in enumerate(counts):
        assert (found.logits[i, n:] == PADDING).all()
        assert (found.boxes[i, n:] == 0).all()
        assert (found.logits[i, :n] > PADDING).all()


def test_an_image_does_not_depend_on_its_batch():
    detector = torchvision_detector(net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL), NAMES, 0.5)
    x = images(3, 120, 90)
    with torch.no_grad():
        whole, alone = detector.candidates(x), detector.candidates(x[1:2])
    real = alone.logits.shape[1]
    torch.testing.assert_close(whole.logits[1, :real], alone.logits[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whole.boxes[1, :real], alone.boxes[0], atol=1e-2, rtol=1e-3)


def test_the_first_stage_is_objectness_for_every_class():
    module = net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL)
    x = images(2, 120, 160).requires_grad_()
    first = torchvision_detector(module, NAMES, 0.5, stage="first").candidates(x)
    assert (first.logits == first.logits[..., :1]).all()
    levels = 3
    assert first.logits.shape == (2, 40 * levels, len(NAMES))
    scores, boxes = [], []
    # torchvision's own proposals before its suppression: objectness is unchanged by it, so every one is among them
    module.rpn.nms_thresh = 1.0
    module.rpn._post_nms_top_n["testing"] = 10**6
    inner = transformed(module.transform, x.detach())
    with torch.no_grad():
        features = module.backbone(inner.tensors)
        proposals, _ = module.rpn(inner, features)
    scale = torch.tensor([160 / inner.image_sizes[0][1], 120 / inner.image_sizes[0][0]] * 2)
    for i, p in enumerate(proposals):
        scores.append(len(p))
        boxes.append(box_iou(p * scale, first.boxes[i].detach()).amax(1).min())
    assert min(boxes) > 0.99
    (gradient,) = torch.autograd.grad(first.logits.mean(), x)
    assert gradient.abs().max() > 0


def test_both_stages_are_the_second_and_then_the_first():
    module = net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL)
    x = images(2, 120, 160)
    with torch.no_grad():
        second, first, both = (
            torchvision_detector(module, NAMES, 0.5, stage=s).candidates(x) for s in ("second", "first", "both")
        )
    assert torch.equal(both.logits, torch.cat((second.logits, first.logits), 1))
    assert torch.equal(both.boxes, torch.cat((second.boxes, first.boxes), 1))


def test_the_best_box_is_the_best_classs_box():
    module = net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL)
    x = images(1, 120, 160)
    with torch.no_grad():
        best = torchvision_detector(module, NAMES, 0.5).candidates(x)
        each = torchvision_detector(module, NAMES, 0.5, boxes="each").candidates(x)
    n, c = best.logits.shape[1], len(NAMES)
    each_boxes, each_logits = each.boxes.reshape(n, c, 4), each.logits.reshape(n, c, c)
    own = torch.diagonal(each_logits, dim1=1, dim2=2)
    assert torch.equal(own, best.logits[0])
    assert (each_logits[:, ~torch.eye(c, dtype=torch.bool)] == PADDING).all()
    assert torch.equal(each_boxes[torch.arange(n), own.argmax(1)], best.boxes[0])


def test_an_empty_batch_of_proposals_is_not_an_error():
    module = net("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL)
    module.rpn.score_thresh = 2.0
    x = images(2, 96, 96).requires_grad_()
    found = torchvision_detector(module, NAMES, 0.5, stage="both").candidates(x)
    assert found.logits.shape[1] == 40 * 3
    assert all(len(d.boxes) == 0 for d in torchvision_detector(module, NAMES, 0.5)(x.detach()))


def test_categories_with_background_are_taken_as_they_are():
    module = net("ssdlite320_mobilenet_v3_large")
    detector = torchvision_detector(module, ("__background__", *NAMES), 0.5)
    assert detector.classes == NAMES
    one = torchvision_detector(net("fcos_resnet50_fpn", classes=4, **SMALL), ("__background__", *NAMES), 0.5)
    assert one.classes == NAMES
    x = images(1, 100, 120)
    assert one.candidates(x).logits.shape[2] == 3
    assert all((d.labels >= 0).all() and (d.labels < 3).all() for d in one(x))


def test_it_meets_the_contract():
    detector = torchvision_detector(net("ssdlite320_mobilenet_v3_large"), NAMES, 0.5)
    assert isinstance(detector, Detector)
    assert detector.module is not None
    assert detector.files == ()
    assert "SSD" in repr(detector)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"net": torch.nn.Conv2d(3, 3, 1)}, "Conv2d"),
        ({"classes": ()}, "at least one class name"),
        ({"classes": "face"}, "the text 'face'"),
        ({"classes": ("a", "b")}, "3 names"),
        ({"classes": ("a", "b", "c", "d")}, "3 names"),
        ({"score_threshold": 1.5}, "from 0 to 1"),
        ({"score_threshold": float("nan")}, "from 0 to 1"),
        ({"stage": "third"}, "'third'"),
        ({"boxes": "all"}, "'all'"),
        ({"files": ["no/such/file.pth"]}, "no such file"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, words):
    given = {"net": net("ssdlite320_mobilenet_v3_large"), "classes": NAMES, "score_threshold": 0.5} | arguments
    with pytest.raises(ModelError) as told:
        torchvision_detector(**given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert "expected" in str(told.value)


def test_images_of_the_wrong_kind_are_refused():
    detector = torchvision_detector(net("ssdlite320_mobilenet_v3_large"), NAMES, 0.5)
    with pytest.raises(ModelError, match="float tensor"):
        detector(torch.zeros((1, 3, 8, 8), dtype=torch.uint8))
    with pytest.raises(ModelError, match="float tensor"):
        detector.candidates(torch.zeros((3, 8, 8)))
