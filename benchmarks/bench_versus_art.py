"""A step of our patch optimisation beside a step of ART's ``AdversarialPatchPyTorch``: time and peak memory.

    python benchmarks/bench_versus_art.py [--rounds 3] [--steps 3] [--threads 1] [--json FILE]    (extra: bench)

Both attack torchvision's Faster R-CNN MobileNetV3-Large 320 FPN with the same random weights, on the same 8 images of
320×320 with two boxes each. Ours goes through the candidates of both stages. ART's loss is the detector's training
loss, as it is meant to be used. Each side runs in a process of its own; memory is the process's peak during the steps
above its peak before them, with model and images loaded. The two take turns, and the median round by round is taken, so
that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

SIDE, BATCH, SIZE, CLASSES = 320, 8, 64, 91
ROOT = Path(__file__).resolve().parents[1]


def network():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images (8, 3, 320, 320) in [0, 1], boxes (8, 2, 4) xyxy px."""
    stream = np.random.default_rng(0)
    corner = np.stack([stream.uniform(5, 60, (BATCH, 2)), stream.uniform(165, 200, (BATCH, 2))], 1)
    boxes = np.concatenate([corner, corner + stream.uniform(70, 100, (BATCH, 2, 2))], 2)
    return stream.random((BATCH, 3, SIDE, SIDE)).astype(np.float32), boxes.astype(np.float32)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(steps: int) -> dict:
    from audit.adapters import torchvision_detector
    from audit.execution import Execution
    from probes.detection.craftset import Placed
    from probes.detection.objectives import PatchScore, Targets
    from probes.detection.universal import UniversalPatch
    from probes.geometry import TOP, uv_map
    from probes.optimisers import Descent
    from probes.probe import frozen

    # With random weights no class stands out: the threshold is low, so that the second stage is attacked as well.
    detector = torchvision_detector(network(), [str(i) for i in range(1, CLASSES)], 0.01, stage="both")
    images, boxes = data()
    lists, labels = [torch.from_numpy(b) for b in boxes], [torch.zeros(2, dtype=torch.int64)] * BATCH
    where, targets = uv_map(lists, TOP, (SIDE, SIDE)), Targets.of(lists, labels, TOP, (0,))
    group = (Placed(torch.from_numpy(images), where, targets, lists, labels),)
    probe, execution = UniversalPatch(PatchScore(), size=SIZE), Execution()
    value = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with frozen(detector):
        before, times, descent = peak_mb(), [], Descent(value, steps + 1)
        for _ in range(steps + 1):
            start = time.perf_counter()
            gradient, _, attacked = probe.gradient(detector, group, value, execution)
            descent.step(gradient)
            times.append(time.perf_counter() - start)
        memory = peak_mb() - before
        with torch.no_grad():
            first = torchvision_detector(network(), detector.classes, 0.01, stage="first").candidates(group[0].images)
    if attacked <= first.boxes.shape[0] * first.boxes.shape[1] or not bool(gradient.any()):
        raise SystemExit("the second stage was not attacked: the comparison would not be fair")
    return {"step_s": statistics.median(times[1:]), "peak_mb": memory, "attacked": attacked}


def art(steps: int) -> dict:
    from art.attacks.evasion import AdversarialPatchPyTorch
    from art.estimators.object_detection import PyTorchFasterRCNN

    estimator = PyTorchFasterRCNN(
        network(), input_shape=(3, SIDE, SIDE), clip_values=(0.0, 1.0), channels_first=True, device_type="cpu"
    )
    attack = AdversarialPatchPyTorch(
        estimator,
        rotation_max=0.0,
        scale_min=0.2,
        scale_max=0.3,
        learning_rate=0.05,
        max_iter=steps + 1,
        batch_size=BATCH,
        patch_shape=(3, SIZE, SIZE),
        patch_type="square",
        optimizer="Adam",
        targeted=False,
        verbose=False,
    )
    images, boxes = data()
    truth = [{"boxes": b, "labels": np.ones(2, np.int64), "scores": np.ones(2, np.float32)} for b in boxes]
    times, step = [], attack._train_step

    def timed(*args, **kwargs):
        start = time.perf_counter()
        out = step(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return out

    attack._train_step = timed
    before = peak_mb()
    attack.generate(x=images, y=truth)
    return {"step_s": statistics.median(times[1:]), "peak_mb": peak_mb() - before}


def side(name: str, given: argparse.Namespace) -> dict:
    words = [sys.executable, __file__, "--side", name, "--steps", str(given.steps), "--threads", str(given.threads)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path)
    options.add_argument("--side", choices=["ours", "art"])
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        sys.path.insert(0, str(ROOT))
        print(json.dumps({"ours": ours, "art": art}[given.side](given.steps)))
        return
    rounds = [{name: side(name, given) for name in ("ours", "art")} for _ in range(given.rounds)]
    time_ratio = statistics.median(r["art"]["step_s"] / r["ours"]["step_s"] for r in rounds)
    memory_ratio = statistics.median(r["ours"]["peak_mb"] / r["art"]["peak_mb"] for r in rounds)
    rows = {
        name: {key: statistics.median(r[name][key] for r in rounds) for key in ("step_s", "peak_mb")}
        for name in ("ours", "art")
    }
    print(f"Faster R-CNN MobileNet 320, {BATCH} images, 2 boxes each, {given.threads} threads, {given.rounds} rounds")
    print("        s per step  peak MB")
    for name, row in rows.items():
        print(f"{name:6s}  {row['step_s']:10.3f}  {row['peak_mb']:7.0f}")
    print(f"time: {time_ratio:.2f} times less (target at least 3)")
    print(f"memory: {memory_ratio:.2f} of ART's (target at most 0.6)")
    text = json.dumps({**rows, "times_faster": time_ratio, "memory_share": memory_ratio}, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
