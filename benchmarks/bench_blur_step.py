"""What a step over σ costs beside one 9 × 9 depth-wise convolution of the same image.

    python benchmarks/bench_blur_step.py [--rounds 15] [--threads 1] [--keep-memory] [--json FILE]

A step is the blur with a σ of its own at every pixel and its gradient in σ, both from ring sums that are taken once per
image. The convolution is torch's, forwards only, one 9 × 9 kernel per channel. The two run in turns, and the median of
the ratios of neighbours is taken, so that a busy machine slows both. Half of the convolution's time goes into asking
the system for memory, which ``--keep-memory`` saves it. Memory is the largest resident size while a fresh
process takes the ring sums and three steps, less that before, over the size of the images. Exits with 1 where a step
costs more than one convolution, or takes more than 20 times the images' memory.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from audit.execution import keep_memory
from probes.forgery.blur_field import RingSums

KERNEL = 9
SIZES = {"256×256": (1, 256, 256), "8 of 256×256": (8, 256, 256), "1280×720": (1, 720, 1280)}
LONGEST, LARGEST = 1.0, 20.0


def inputs(n: int, h: int, w: int):
    """Images, a field of σ from 0.3 to 3 px, and a gradient to hand back."""
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, h, w, generator=stream)
    sigma = torch.exp(torch.rand(n, h, w, generator=stream) * 2.3 - 1.2)
    return images, sigma, torch.rand(n, 3, h, w, generator=stream)


def step(rings: RingSums, sigma, given):
    """The blurred images and the gradient in σ."""
    field = sigma.requires_grad_()
    return torch.autograd.grad(rings.blurred(field), field, given)[0]


def measure(n: int, h: int, w: int, rounds: int) -> dict:
    images, sigma, given = inputs(n, h, w)
    kernel = torch.rand(3, 1, KERNEL, KERNEL)
    rings = RingSums.of(images, KERNEL)
    works = {
        "convolution": lambda: F.conv2d(images, kernel, padding=KERNEL // 2, groups=3),
        "step": lambda: step(rings, sigma, given),
    }
    times = {name: [] for name in works}
    for i in range(-2, rounds):
        for name in works if i % 2 else reversed(works):
            start = time.perf_counter()
            works[name]()
            if i >= 0:
                times[name].append(time.perf_counter() - start)
    start = time.perf_counter()
    RingSums.of(images, KERNEL)
    times["ring sums"] = [time.perf_counter() - start]
    ratios = [a / b for a, b in zip(times["step"], times["convolution"], strict=True)]
    return {f"{k} s": statistics.median(v) for k, v in times.items()} | {"ratio": statistics.median(ratios)}


def resident(peak: bool = False) -> int:
    """Bytes of this process that are in memory, or that were at most."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", text)[1]) * 1024


def weigh(n: int, h: int, w: int) -> float:
    """Largest memory of the ring sums and three steps, over that of the images; run in a process of its own."""
    step(RingSums.of(torch.rand(1, 3, 32, 32), KERNEL), torch.ones(1, 32, 32), torch.rand(1, 3, 32, 32))
    images, sigma, given = inputs(n, h, w)
    before = resident()
    rings = RingSums.of(images, KERNEL)
    for _ in range(3):
        step(rings, sigma, given)
    return (resident(peak=True) - before) / (images.numel() * images.element_size())


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--keep-memory", action="store_true", help="as an audit runs: freed memory is kept")
    options.add_argument("--json", type=Path)
    options.add_argument("--weigh", choices=SIZES, help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    if given.weigh:
        print(weigh(*SIZES[given.weigh]))
        return 0
    if given.keep_memory:
        keep_memory()
    print(f"k = {KERNEL}, {given.threads} threads, {given.rounds} rounds")
    print("images        convolution s   step s  ratio (at most 1)  ring sums s  memory (at most 20 images)")
    rows, missed = [], False
    for name, size in SIZES.items():
        row = {"images": name} | measure(*size, given.rounds)
        again = [sys.executable, __file__, "--weigh", name, "--threads", str(given.threads)]
        row["memory"] = float(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        missed |= row["ratio"] > LONGEST or row["memory"] > LARGEST
        print(f"{name:12s}  {row['convolution s']:13.4f}  {row['step s']:7.4f}  {row['ratio']:17.3f}"
              f"  {row['ring sums s']:11.4f}  {row['memory']:6.1f}")  # fmt: skip
    text = json.dumps({"threads": given.threads, "rounds": given.rounds, "rows": rows}, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
