"""What scoring a submission costs beyond the recognizers' own embeddings.

    python benchmarks/bench_score_faces.py [--pairs 256] [--rounds 5] [--model FILE …] [--zip] [--json FILE]

Scoring is everything that `python -m audit score faces` does between loading the models and printing: reading,
checksums, decoding, every rule, alignment, embeddings, comparison. The bare count embeds the same faces (each attacked
face and its target), decoded and aligned before, with the same batches. They run in turns; the median of the ratios
bare / scoring counts, and has to be at least 0.9. The ratio in processor time stands beside it, for machines that are
shared: it adds up all threads, as if none of them could run beside another. Without model files: three networks of
torchvision, untrained, one of them asking for 150 × 150 faces. In the competition there are 3000 pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image

from audit.alignment import ARCFACE
from audit.comparison import Comparison
from audit.data.face_submissions import FaceSubmission
from audit.execution import Execution, keep_memory
from audit.measures.face_rules import FaceRules
from audit.measures.face_score import BATCH, score_faces
from audit.state import frozen
from audit.subject import find_device, load


class Net(torch.nn.Module):
    """A network of torchvision as a recognizer."""

    threshold = 0.3

    def __init__(self, name, side):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.face_size = getattr(torchvision.models, name)(), (side, side)

    def forward(self, faces):
        return self.net(faces)


def picture(rng):
    """As smooth as an aligned photograph: its PNG has some 20 KB."""
    small = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
    smooth = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + rng.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8)


def write(folder, pairs):
    """Originals and a submission with a patch of 1200 px on every face."""
    rng = np.random.default_rng(0)
    for part in ("originals", "submission"):
        (folder / part).mkdir()
    for i in range(1, pairs + 1):
        source, target = picture(rng), picture(rng)
        worn = source.copy()
        worn[20:50, 30:70] = target[20:50, 30:70] ^ 1
        Image.fromarray(source).save(folder / "originals" / f"{i:04d}.png")
        Image.fromarray(target).save(folder / "originals" / f"{i:04d}_compare.png")
        Image.fromarray(worn).save(folder / "submission" / f"{i:04d}.png")
    with zipfile.ZipFile(folder / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "submission").iterdir()):
            archive.write(path, path.name)


def timed(work, device):
    """(seconds on the wall, seconds of processors in all threads)."""
    wall, processors = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processors


def bare(models, faces):
    """The embeddings alone. ``faces``: per size, per batch, (attacked, targets)."""
    with torch.inference_mode():
        for model in models:
            for a, b in faces[model.face_size]:
                model.embed(a), model.embed(b)


def aligned(models, submission, device):
    """Face size -> the same faces, aligned, in batches."""
    rules = FaceRules()
    entries = [submission.entry(n, rules) for n in submission.numbers]
    assert not any(e.void for e in entries)
    out = {}
    for model in models:
        out[model.face_size] = []
        for at in range(0, len(entries), BATCH):
            both = []
            for side in ("face", "other"):
                pixels = np.stack([getattr(e, side) for e in entries[at : at + BATCH]])
                x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device).float() / 255
                both.append(model.align(ARCFACE.expand(len(x), 5, 2).to(device), (112, 112)).faces(x))
            out[model.face_size].append(tuple(both))
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--pairs", type=int, default=256)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--model", action="append", default=[])
    options.add_argument("--zip", action="store_true")
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    device = find_device(given.device, "--device")
    nets = {"mobilenet_v2": 112, "resnet18": 112, "resnet34": 150}
    things = {Path(m).stem: load(m, device).tasks["recognizer"] for m in given.model}
    things = things or {name: Net(name, side).to(device) for name, side in nets.items()}
    models = {name: Comparison(name, thing, white_box=False) for name, thing in things.items()}
    execution = Execution(device, threads=given.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        held.enter_context(frozen([t for t in things.values() if isinstance(t, torch.nn.Module)]))
        folder = Path(name)
        write(folder, given.pairs)
        place = folder / ("submission.zip" if given.zip else "submission")

        def scoring() -> None:
            submission = FaceSubmission.open(place, folder / "originals")
            found = score_faces(submission, models, rules=FaceRules(), execution=execution)
            assert found.void == 0

        faces = aligned(models.values(), FaceSubmission.open(place, folder / "originals"), device)
        works = {"bare": lambda: bare(models.values(), faces), "scoring": scoring}
        bare(models.values(), {size: batches[:1] for size, batches in faces.items()})
        names = ", ".join(models)
        print(f"{given.pairs} pairs x {len(models)} recognizers ({names}), {given.threads} threads of {os.cpu_count()}")
        print("bare s  scoring s  ratio (target: at least 0.9)  ratio in processor time")
        rows = []
        for i in range(given.rounds):
            took = {name: timed(works[name], device) for name in (sorted(works) if i % 2 else sorted(works)[::-1])}
            (a, a_cpu), (b, b_cpu) = took["bare"], took["scoring"]
            rows.append((a, b, a / b, a_cpu / b_cpu))
            print(f"{a:6.2f}  {b:9.2f}  {a / b:5.3f}  {a_cpu / b_cpu:5.3f}", flush=True)
    ratio, processors = (statistics.median(row[i] for row in rows) for i in (2, 3))
    print(f"median {ratio:.3f}, in processor time {processors:.3f}")
    if given.json is not None:
        given.json.write_text(json.dumps({"pairs": given.pairs, "models": list(models), "rows": rows, "ratio": ratio}))


if __name__ == "__main__":
    main()
