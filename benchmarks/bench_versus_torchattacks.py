"""Our face patch beside torchattacks' MI-, DI-, TI- and SI-NI-FGSM: success rate, and time per step.

    python benchmarks/bench_versus_torchattacks.py [--pairs 16] [--steps 20] [--rounds 2] [--json FILE]  (extra: bench)

Both attack the kit's MobileFaceNet on the same aligned faces of LFW (pairs of different people) within the same mask
of ten per cent, with as many steps. torchattacks knows neither masks nor verification: its model is wrapped so that
x ⊙ (1 − M) + p ⊙ M is built inside, and answers with the logits (0, margin), so that its targeted cross-entropy has
the direction of our margin. It runs with eps = 1 and momentum 1 as ours; each side has the step size that is best for
it of those given. Its TI-FGSM also draws input diversity, as it ships, and its kernel has σ = 2.3 px; so does ours
then. Both results are rounded to 8 bits and judged by the same re-query. The sides take turns, each in a process of
its own, and the median of the rounds is taken; time is that of the process, which on one thread is what the clock
says on a machine that does nothing else.
Exits 1 where a target is missed: success at least equal, time per step at most 1.0 of theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("mi", "di", "ti", "si")
COPIES = 5


def problem(count: int):
    """The model, the pairs of aligned faces, and the masks."""
    from audit.alignment import ARCFACE
    from audit.comparison import Comparison
    from audit.data.faces import Portraits
    from audit.examples import Attacked
    from probes.recognition.masks import FaceMask
    from tests.kit import lfw_pairs, mobilefacenet

    model = Comparison("MobileFaceNet", mobilefacenet(), white_box=True)
    data = lfw_pairs(count)
    rows = data.pairs[~data.same]

    def chips(index) -> Portraits:
        photographs = data.portraits(index)
        faces = model.align(photographs.landmarks, photographs.size).faces(photographs.images.float() / 255)
        images = (faces * 255).round().to(torch.uint8)
        return Portraits(images, ARCFACE.expand(len(images), 5, 2).clone(), photographs.ids, photographs.identities)

    attacked = Attacked("impersonate", chips(rows[:, 0]), chips(rows[:, 1]), chips(rows[:0, 0]))
    return model, attacked, FaceMask()


def judged(model, attacked, images: torch.Tensor) -> int:
    scores = model.ask(images, attacked.sources.landmarks, attacked.targets.images, attacked.targets.landmarks)
    return int((scores >= model.cut).sum())


def ours(count: int, steps: int, alphas: list[float], kinds: list[str]) -> dict:
    from audit.budget import Budget
    from audit.execution import Execution, keep_memory
    from probes.recognition.face_patch import FacePatch
    from probes.recognition.transforms import DI, MI, SI, TI

    keep_memory()  # as every audit does
    FacePatch._unbounded = lambda *_: None  # the diagnostics of pairs that held out are no part of a step
    model, attacked, mask = problem(count)
    diversity = DI(p=0.5, smallest=0.9)
    chosen = {"mi": (), "di": (diversity,), "ti": (diversity, TI(4)), "si": (SI(COPIES),)}

    def run(kind: str, steps: int, alpha: float):
        probe = FacePatch(mask=mask, transforms=(*chosen[kind], MI()), rate=alpha)
        budget = Budget("bench", steps=steps, batch=count, queries=0, images=count, bootstrap=0)
        start = time.process_time()
        images = probe.craft([model], attacked, execution=Execution(), budget=budget, seed=0).images
        return images, (time.process_time() - start) / steps

    run("mi", 1, 0.1)
    out = {}
    for kind in kinds:
        tried = [run(kind, steps, alpha) for alpha in alphas]
        out[kind] = {
            "step_s": statistics.median(took for _, took in tried),
            "won": max(judged(model, attacked, images) for images, _ in tried),
        }
    return out


class Wrapped(torch.nn.Module):
    """Photographs p to logits (0, margin of x ⊙ (1 − M) + p ⊙ M), for one batch."""

    def __init__(self, model, attacked, masks):
        super().__init__()
        self.net, self.model, self.masks = model.model, model, masks[:, None].float()
        self.clean = attacked.sources.images.float() / 255 * (1 - self.masks)
        with torch.no_grad():
            self.enrolled = model.embed(attacked.targets.images.float() / 255)

    def forward(self, images):
        worn = self.clean + images * self.masks
        margin = self.model.score(worn, self.enrolled) - self.model.cut
        return torch.stack([torch.zeros_like(margin), margin], 1)


def theirs(count: int, steps: int, alphas: list[float], kinds: list[str]) -> dict:
    import torchattacks

    model, attacked, mask = problem(count)
    x = attacked.sources.images.float() / 255
    masks = mask.photo_masks(attacked.sources.landmarks, attacked.sources.size)
    make = {
        "mi": lambda m, n, alpha: torchattacks.MIFGSM(m, eps=1, alpha=alpha, steps=n),
        "di": lambda m, n, alpha: torchattacks.DIFGSM(m, eps=1, alpha=alpha, steps=n, decay=1.0),
        "ti": lambda m, n, alpha: torchattacks.TIFGSM(m, eps=1, alpha=alpha, steps=n, decay=1.0),
        "si": lambda m, n, alpha: torchattacks.SINIFGSM(m, eps=1, alpha=alpha, steps=n, m=COPIES),
    }

    def run(kind: str, steps: int, alpha: float):
        torch.manual_seed(0)
        start = time.process_time()
        attack = make[kind](Wrapped(model, attacked, masks), steps, alpha)
        attack.set_mode_targeted_by_function(lambda _, labels: torch.ones_like(labels), quiet=True)
        found = attack(x, torch.zeros(count, dtype=torch.int64))
        took = (time.process_time() - start) / steps
        return torch.where(masks[:, None], (found * 255).round().to(torch.uint8), attacked.sources.images), took

    run("mi", 1, 0.1)
    out = {}
    for kind in kinds:
        tried = [run(kind, steps, alpha) for alpha in alphas]
        out[kind] = {
            "step_s": statistics.median(took for _, took in tried),
            "won": max(judged(model, attacked, images) for images, _ in tried),
        }
    return out


def side(name: str, given: argparse.Namespace) -> dict:
    words = [sys.executable, __file__, "--side", name, "--alphas", *map(str, given.alphas), "--kinds", *given.kinds]
    words += ["--pairs", str(given.pairs), "--steps", str(given.steps), "--threads", str(given.threads)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(rounds: list[tuple[dict, dict]], kind: str) -> dict:
    pairs = [(a[kind], b[kind]) for a, b in rounds]
    return {
        "ours_won": min(a["won"] for a, _ in pairs),
        "theirs_won": max(b["won"] for _, b in pairs),
        "ours_step_s": statistics.median(a["step_s"] for a, _ in pairs),
        "theirs_step_s": statistics.median(b["step_s"] for _, b in pairs),
        "time_ratio": statistics.median(a["step_s"] / b["step_s"] for a, b in pairs),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--pairs", type=int, default=16)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--alphas", type=float, nargs="+", default=[0.03, 0.1])
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--json", type=Path)
    options.add_argument("--side", choices=["ours", "theirs"])
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    sys.path.insert(0, str(ROOT))
    if given.side:
        run = {"ours": ours, "theirs": theirs}[given.side]
        print(json.dumps(run(given.pairs, given.steps, given.alphas, given.kinds)))
        return
    rounds = [(side("ours", given), side("theirs", given)) for _ in range(given.rounds)]
    rows = {kind: summary(rounds, kind) for kind in given.kinds}
    print(f"MobileFaceNet, {given.pairs} pairs, {given.steps} steps, {given.threads} threads, {given.rounds} rounds")
    print("      won: ours  theirs   s per step: ours  theirs   ratio (target at most 1.0)")
    for kind, r in rows.items():
        times = f"{r['ours_step_s']:17.3f}  {r['theirs_step_s']:6.3f}  {r['time_ratio']:6.2f}"
        print(f"{kind:4s}  {r['ours_won']:9d}  {r['theirs_won']:6d}  {times}")
    text = json.dumps(rows, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    missed = [k for k, r in rows.items() if r["ours_won"] < r["theirs_won"] or r["time_ratio"] > 1.0]
    if missed:
        raise SystemExit(f"targets missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
