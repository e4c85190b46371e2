"""The shared kit of real models and images, where it stands beside the checkout."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.nn import functional as F

import audit
from audit.adapters.logodds import from_log_probability
from audit.data.faces import Face, FacePairs
from audit.data.images import inspect, read_as
from audit.image_model import ImageModel
from audit.labelled import Labelled

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
KIT = SHARED / "kit"


def kit(*parts: str) -> Path:
    """The path of a kit file; skips where there is no ``../shared`` at all, fails where the kit is broken."""
    if not SHARED.exists():
        pytest.skip("no ../shared beside the checkout: the kit of real models and images is not at hand")
    path = KIT.joinpath(*parts)
    if not path.exists():
        pytest.fail(f"../shared is there but the kit is broken: {path.relative_to(SHARED)} is missing")
    return path


def kit_nets(name: str):
    """A module of the kit's loaders, e.g. ``nets_face``."""
    folder = str(kit("nets"))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return __import__(name)


def retinaface(score_threshold: float = 0.5):
    """RetinaFace MobileNet-0.25 as a white-box detector of faces: any image size, boxes from the net's own decoding,
    log-odds from its class heads (the net itself hands out probabilities, which saturate)."""
    weights = kit("face_det_retinaface_mnet025", "mobilenet0.25_Final.pth")
    net = kit_nets("nets_face").RetinaMnet(str(weights))

    def candidates(x):
        with _heard([head.conv1x1 for head in net.ClassHead]) as heads:
            _, boxes, _ = net(x)
        scores = torch.cat([t.permute(0, 2, 3, 1).reshape(len(x), -1, 2) for t in heads], 1)
        return boxes, (scores[..., 1] - scores[..., 0])[..., None]

    return audit.adapters.callable_detector(
        None,
        ["face"],
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        scale=255,
        nms_iou=0.4,
        score_floor=0.02,
    )


def ultralight(score_threshold: float = 0.6):
    """Ultra-Light RFB-320 as a white-box detector of faces: images stretched to 320 x 240, log-odds from its heads."""
    weights = kit("face_det_ultralight", "version-RFB-320.pth")
    net = kit_nets("nets_face").UltraLight(str(weights))

    def candidates(x):
        # the last layer of each class head
        last = [h if isinstance(h, torch.nn.Conv2d) else h[-1] for h in net.classification_headers]
        with _heard(last) as heads:
            _, boxes = net(x)
        scores = torch.cat([t.permute(0, 2, 3, 1).reshape(len(x), -1, 2) for t in heads], 1)
        return boxes * boxes.new_tensor((320, 240, 320, 240)), (scores[..., 1] - scores[..., 0])[..., None]

    return audit.adapters.callable_detector(
        None,
        ["face"],
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        input_size=(240, 320),
        resize="stretch",
        scale=255,
        nms_iou=0.4,
    )


def fastestdet(score_threshold: float = 0.5):
    """FastestDet, COCO's 80 classes, as a white-box detector: images stretched to 352 x 352, score obj^0.6 cls^0.4."""
    weights = kit("coco_det_fastestdet", "weight_AP05_0.253207_280-epoch.pth")
    net = kit_nets("nets_coco").FastestDet(str(weights))
    heads = net.detect_head

    def candidates(x):
        with _heard([heads.obj_layers.conv5x5, heads.cls_layers.conv5x5]) as seen:
            boxes, _ = net(x)
        objectness, classes = (t.permute(0, 2, 3, 1).reshape(len(x), -1, t.shape[1]) for t in seen)
        log_score = 0.6 * F.logsigmoid(objectness) + 0.4 * F.log_softmax(classes, 2)
        return boxes, from_log_probability(log_score)

    return audit.adapters.callable_detector(
        None,
        audit.adapters.COCO80,
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        input_size=(352, 352),
        resize="stretch",
        scale=255,
        nms_iou=0.5,
        one_label=True,
    )


def yolox_nano(score_threshold: float = 0.3):
    """YOLOX-nano from its ONNX file, as a white-box detector, as examples/onnx_yolox.py has it."""
    return audit.adapters.onnx_detector(
        str(kit("coco_det_yolox_nano", "yolox_nano.onnx")),
        audit.adapters.Yolo(boxes="yolox", strides=(8, 16, 32)),
        classes=audit.adapters.COCO80,
        score_threshold=score_threshold,
        resize="letterbox-corner",
        channels="bgr",
        scale=255,
        one_label=True,
        device="cpu",
    )


class FaceNet(torch.nn.Module):
    """A recognizer of the kit as a contract object: faces in [0, 1] to embeddings; the kit's nets want 0 to 255."""

    def __init__(self, net, face_size, threshold, metric, template=None, files=()):
        super().__init__()
        self.net, self.face_size, self.threshold, self.metric = net, face_size, threshold, metric
        self.files = tuple(files)
        if template is not None:
            self.template = template
        self.eval().requires_grad_(False)

    def forward(self, faces):
        return self.net(faces * 255)


def mobilefacenet(threshold: float = 0.263):
    """MobileFaceNet (112 x 112, cosine): 597 of the kit's 600 pairs of LFW right at this threshold."""
    weights = kit("face_rec_mobilefacenet_foamliu", "mobilefacenet.pt")
    net = kit_nets("nets_rec").MobileFaceNetFoamliu(str(weights))
    return FaceNet(net, (112, 112), threshold, "cosine", files=[weights])


def dlib_resnet(threshold: float = 0.615):
    """dlib's ResNet (150 x 150, distance): 595 of the kit's 600 pairs of LFW right at this threshold."""
    nets = kit_nets("nets_rec")
    folder = kit("face_rec_dlib_resnet")
    files = [folder / "face_recognition_model-weights_manifest.json", folder / "face_recognition_model.bin"]
    net = nets.FaceApiResNet(str(folder))
    return FaceNet(net, (150, 150), threshold, "euclidean", torch.from_numpy(nets.DLIB5.copy()), files)


def retinaface_landmarks(sure: float = 0.5):
    """A Landmarker: the five landmarks of the face nearest to the middle, NaN where there is none."""
    net = kit_nets("nets_face").RetinaMnet(str(kit("face_det_retinaface_mnet025", "mobilenet0.25_Final.pth")))

    def landmarks(images):
        with torch.inference_mode():
            scores, boxes, points = net(images * 255)
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2 - boxes.new_tensor([images.shape[3], images.shape[2]]) / 2
        # of the anchors that found the central face, the surest has the best landmarks
        away = middle.norm(dim=2).masked_fill(scores < sure, torch.inf)
        near = away <= away.amin(1, keepdim=True) + 0.1 * max(images.shape[2:])
        best = (scores * near.float()).argmax(1)
        rows = torch.arange(len(images))
        found = points[rows, best]
        found[away[rows, best].isinf()] = torch.nan
        return found.clone()

    return landmarks


def lfw_pairs(pairs: int | None = None) -> FacePairs:
    """LFW's fold 1 (600 pairs, 807 photographs, 435 people) with RetinaFace's landmarks.

    Args:
        pairs: only this many of one person and as many of two, chosen by hash; with the photographs that they need.
    """
    root = kit("lfw_fold1", "images")
    with kit("lfw_fold1", "pairs.csv").open(newline="") as file:
        rows = [(r["a"], r["b"], r["same"] == "1") for r in csv.DictReader(file)]
    if pairs is not None:
        rank = sorted(rows, key=lambda r: hashlib.sha256("\0".join(r[:2]).encode()).digest())
        rows = [r for same in (True, False) for r in [x for x in rank if x[2] == same][:pairs]]
    names = sorted({n for a, b, _ in rows for n in (a, b)})
    where = _lfw_landmarks(root, names)
    at = {n: i for i, n in enumerate(names)}
    faces = []
    for name in names:
        file = inspect(root / name)
        read = partial(read_as, root / name, file.size)
        faces.append(Face(name, name.partition("/")[0], read, file.digest, torch.from_numpy(where[name])))
    return FacePairs(
        tuple(faces),
        torch.tensor([[at[a], at[b]] for a, b, _ in rows]),
        torch.tensor([same for *_, same in rows]),
        (250, 250),
        name="LFW fold 1",
        source="the kit",
        landmarks_from="RetinaFace",
    )


def _lfw_landmarks(root, names):
    """name -> (5, 2) float32, found once per machine: all 807 take some 16 s."""
    weights = kit("face_det_retinaface_mnet025", "mobilenet0.25_Final.pth")
    key = hashlib.sha256(weights.read_bytes() + str(root).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"assay-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / f"lfw-landmarks-{key}.npz"
    with FileLock(f"{place}.lock"):
        known = {}
        if place.exists():
            with np.load(place) as file:
                known = dict(file)
        missing = [n for n in names if n not in known]
        find = retinaface_landmarks() if missing else None
        for i in range(0, len(missing), 16):
            part = missing[i : i + 16]
            images = torch.stack([read_as(root / n, (250, 250)) for n in part]).float() / 255
            known.update(zip(part, find(images).numpy(), strict=True))
        if missing:
            draft = place.with_name(f"draft-{os.getpid()}.npz")
            np.savez(draft, **known)
            draft.rename(place)
    return known


class MiniFAS(torch.nn.Module):
    """MiniFASNet as a liveness detector: photographs (N, 3, H, W) in [0, 1] to the log-odds of a live face (N,).

    It wants the face's box enlarged 2.7 or 4 times, 80 x 80. A photograph of a data set (LFW's, or one framed as the
    readers do) holds no more than about twice a box, to which its authors' crop shrinks then: the middle three quarters
    of the width and the whole height, resized bilinearly without antialiasing, as it was trained.
    """

    def __init__(self, nets, threshold, files):
        super().__init__()
        self.nets, self.threshold, self.files = torch.nn.ModuleList(nets), threshold, tuple(files)
        self.eval().requires_grad_(False)

    def forward(self, photographs):
        edge = photographs.shape[3] // 8
        crop = photographs[..., edge : photographs.shape[3] - edge]
        seen = F.interpolate(crop, size=(80, 80), mode="bilinear", align_corners=False) * 255
        with _heard([net.prob for net in self.nets]) as logits:
            for net in self.nets:
                net(seen)
        each = torch.stack([F.log_softmax(z, 1) for z in logits])  # the authors add the nets' probabilities
        return each[..., 1].logsumexp(0) - each[..., [0, 2]].logsumexp((0, 2))


def minifas(which: str = "both", threshold: float = 0.0):
    """A liveness detector of the kit: ``V2``, ``V1SE`` or ``both``."""
    names = {"V2": "2.7_80x80_MiniFASNetV2.pth", "V1SE": "4_0_0_80x80_MiniFASNetV1SE.pth"}
    files = [kit("antispoof_minifasnet", n) for k, n in names.items() if which in (k, "both")]
    return MiniFAS([kit_nets("nets_spoof").MiniFAS(str(f)) for f in files], threshold, files)


@contextlib.contextmanager
def _heard(layers):
    """The outputs of layers while the net runs, in order."""
    found: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: found.append(o)) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


MESONETS = ("Meso4_DF", "Meso4_F2F", "MesoInception_DF", "MesoInception_F2F")


class MesoNet(torch.nn.Module):
    """MesoNet as a forgery detector: faces (N, 3, 256, 256) in [0, 1] to fake logits (N,).

    The kit's network hands out 1 - sigmoid of its last layer, which saturates; the logit is that layer's, negated.
    """

    face_size, threshold = (256, 256), 0.0

    def __init__(self, net, trained_on, files):
        super().__init__()
        self.net, self.trained_on, self.files = net, trained_on, files
        self.eval().requires_grad_(False)

    def forward(self, faces):
        with _heard([self.net.f2]) as heard:
            self.net(faces * 255)
        return -heard[0][:, 0]

    def embed(self, faces):
        with _heard([self.net.f1]) as heard:
            self.net(faces * 255)
        return heard[0]


def mesonet(which: str):
    """One of ``MESONETS`` with its authors' weights, trained on Deepfakes (DF) or Face2Face (F2F)."""
    weights = kit("deepfake_mesonet_keras", f"{which}.h5")
    method = "Deepfakes" if which.endswith("_DF") else "Face2Face"
    return MesoNet(kit_nets("nets_deepfake").MesoNetKeras(str(weights)), (method,), (weights,))


def mesonet_model(which: str) -> ImageModel:
    """The same, as probes ask it."""
    return ImageModel(which, mesonet(which), "forgery", white_box=True)


def forgery_faces() -> Labelled:
    """The kit's cut-out faces, 256 x 256: DFDC and Face2Face frames, MesoNet's four examples; 1 is fake."""
    frames = kit("deepfake_frames")
    files = [(p, int(p.parent.parent.name != "real"), p.parent.name) for p in sorted(frames.glob("*/*/*/*.png"))]
    own = kit("deepfake_mesonet_keras", "test_images")
    files += [(p, int(p.parent.name == "df"), p.stem) for p in sorted(own.glob("*/*.jpg"))]
    images = []
    for path, _, _ in files:
        image = read_as(path, inspect(path).size).float()[None] / 255
        small = F.interpolate(image, size=(256, 256), mode="bilinear", antialias=True, align_corners=False)
        images.append((small.clamp(0, 1) * 255).round().to(torch.uint8)[0])
    names = tuple(f"{clip}/{p.stem}" for p, _, clip in files)
    clips = tuple(clip for _, _, clip in files)
    return Labelled(torch.stack(images), torch.tensor([label for _, label, _ in files]), names, clips, clips)


class MiniFASFinder:
    """MiniFASNet as its authors run it: a face is found in the whole photograph and cut out 2.7 and 4 times as large.

    Photographs (N, 3, H, W) in [0, 1] of any size to the log-odds of a live face (N,); shows no gradient.
    """

    task = "liveness"

    def __init__(self, threshold=0.0):
        self.threshold = threshold
        names = {2.7: "2.7_80x80_MiniFASNetV2.pth", 4.0: "4_0_0_80x80_MiniFASNetV1SE.pth"}
        self.files = [kit("antispoof_minifasnet", n) for n in names.values()]
        spoof = kit_nets("nets_spoof")
        self.cut = spoof.crop_scaled
        self.nets = {k: spoof.MiniFAS(str(f)) for k, f in zip(names, self.files, strict=True)}
        self.finder = retinaface(0.5)

    def __call__(self, photographs):
        with torch.no_grad():
            return torch.stack([self._one(p) for p in photographs])

    def _one(self, photograph):
        scale = min(1.0, 480 / max(photograph.shape[1:]))
        small = F.interpolate(photograph[None], scale_factor=scale, mode="bilinear", antialias=scale < 1)
        (found,) = self.finder(small)
        height, width = photograph.shape[1:]
        box = torch.tensor([0.0, 0.0, width, height])
        if len(found.scores):
            box = found.boxes[found.scores.argmax()] / scale
        picture = (photograph.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        live = []
        for enlarged, net in self.nets.items():
            face = torch.from_numpy(self.cut(picture, box.tolist(), enlarged, 80)).permute(2, 0, 1)[None].float()
            live.append(net(face)[0, 1])
        p = torch.stack(live).mean().clamp(1e-7, 1 - 1e-7)
        return p.log() - (-p).log1p()
