"""Our corruptions beside those of the package ``imagecorruptions``: time per image, and whether they do the same.

    python benchmarks/bench_versus_imagecorruptions.py [--images FOLDER] [--sizes 224 480] [--severities 1 3 5]
        [--names NAME …] [--count 3] [--rounds 2] [--python PYTHON] [--json FILE]    (extra: bench)

All fifteen corruptions that both have, at the benchmark's severities, on the same squares cut from photographs (of the
folder, else of the kit's COCO images, else those that scikit-image ships). Each side runs in a process of its own on
one thread, OpenCV's own included; the two take turns, time is that of the process, and the median of the rounds is
taken. The package is not kept up to date: it asks for a module that setuptools no longer has and names an argument that
scikit-image has renamed. Both are mended here before it is imported, so that it runs with the same versions of NumPy,
SciPy, scikit-image, Pillow and OpenCV as ours. ``--python`` runs it in another environment.

That both do the same is seen by the PSNR against the photograph (within half a dB; one dB where an angle is drawn) and,
where nothing is drawn, by the pixels (a mean difference below one level: the package cuts off what is behind the point,
ours rounds; its disks of defocus weigh up to 1.01 in all, ours 1).
Exits 1 where a target is missed: no corruption slower at any size and severity, the geometric mean of the ratios 3.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT.parent / "shared" / "kit" / "coco128"
DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"}
DRAWN |= {"glass_blur", "motion_blur", "elastic_transform"}
NAMES = ["gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast", "saturate", "jpeg_compression"]
NAMES += ["pixelate", *sorted(DRAWN)]
ENOUGH_S, FEW = 0.3, 3


def photographs(folder: Path | None, count: int, size: int) -> list[np.ndarray]:
    where = folder or KIT
    files = sorted(p for p in where.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if files:
        whole = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in files[:count]]
    else:
        from skimage import data

        whole = [data.astronaut(), data.coffee(), data.chelsea()][:count]
    out = []
    for photo in whole:
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = photo[top : top + side, left : left + side]
        out.append(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC))
    return out


def ours():
    sys.path.insert(0, str(ROOT))
    from probes.forgery.corruptions import corruption

    return lambda name, severity, image, seed: corruption(name, severity).apply([image], seed=seed)[0]


def theirs():
    import scipy.ndimage
    import skimage.filters

    warnings.simplefilter("ignore")
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda *_: ""  # of frost alone, which is not asked for
    sys.modules["pkg_resources"] = resources
    moved = types.ModuleType("scipy.ndimage.interpolation")
    moved.map_coordinates = scipy.ndimage.map_coordinates
    sys.modules["scipy.ndimage.interpolation"] = moved
    import imagecorruptions

    def gaussian(image, sigma, *, multichannel=False, **others):
        return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **others)

    sys.modules["imagecorruptions.corruptions"].gaussian = gaussian

    def run(name, severity, image, seed):
        np.random.seed(seed)  # noqa: NPY002  the package draws from the global stream
        return imagecorruptions.corrupt(image, corruption_name=name, severity=severity)

    return run


def measured(who: str, path: Path, names: list[str], severities: list[int]) -> dict:
    """Key -> seconds per image, PSNR; the last results are left in a file."""
    run, out, last = {"ours": ours, "theirs": theirs}[who](), {}, {}
    with np.load(path) as file:
        images = {size: file[size] for size in file.files}
    for size, batch in images.items():
        for name in names:
            for severity in severities:
                run(name, severity, batch[0][:64, :64], 0)  # tables are made once
                times, errors, begun = [], [], time.process_time()
                while len(times) < FEW or (time.process_time() - begun < ENOUGH_S and len(times) < 30):
                    start = time.process_time()
                    got = [run(name, severity, image, len(times) * 100 + i) for i, image in enumerate(batch)]
                    times.append((time.process_time() - start) / len(batch))
                    errors += [float(np.mean((a.astype(float) - b) ** 2)) for a, b in zip(got, batch, strict=True)]
                    if times[-1] > ENOUGH_S:  # glass: seconds for an image
                        break
                key = f"{name} {severity} {size}"
                psnr = statistics.mean(10 * math.log10(255**2 / max(e, 1e-9)) for e in errors)
                out[key] = {"s": statistics.median(times), "psnr": psnr}
                last[key] = np.stack(got)
    np.savez(path.with_suffix(f".{who}.npz"), **last)
    return out


def side(name: str, given: argparse.Namespace, path: Path) -> dict:
    python = sys.executable if name == "ours" else given.python
    words = [python, __file__, "--side", name, "--data", str(path), "--names", *given.names]
    words += ["--severities", *map(str, given.severities)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(rounds: list[tuple[dict, dict]], path: Path) -> dict:
    rows = {}
    with np.load(path.with_suffix(".ours.npz")) as a, np.load(path.with_suffix(".theirs.npz")) as b:
        for key in rounds[0][0]:
            rows[key] = {
                "ours_s": statistics.median(x[key]["s"] for x, _ in rounds),
                "theirs_s": statistics.median(y[key]["s"] for _, y in rounds),
                "ratio": statistics.median(y[key]["s"] / x[key]["s"] for x, y in rounds),
                "ours_psnr": rounds[0][0][key]["psnr"],
                "theirs_psnr": rounds[0][1][key]["psnr"],
                "difference": None if key.split()[0] in DRAWN else float(np.abs(a[key].astype(float) - b[key]).mean()),
            }
    return rows


def missed(rows: dict, mean: float) -> list[str]:
    out = [f"{key}: {1 / r['ratio']:.2f} of their time" for key, r in rows.items() if r["ratio"] < 1]
    for key, r in rows.items():
        apart = abs(r["ours_psnr"] - r["theirs_psnr"])
        if apart > (1.0 if key.startswith("motion") else 0.5) or (r["difference"] or 0) > 1:
            out.append(f"{key}: not the same corruption ({apart:.2f} dB apart)")
    return out + ([f"geometric mean {mean:.2f}"] if mean < 3 else [])


def geometric(values) -> float:
    return math.exp(statistics.mean(math.log(v) for v in values))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--images", type=Path)
    options.add_argument("--sizes", type=int, nargs="+", default=[224, 480])
    options.add_argument("--severities", type=int, nargs="+", default=[1, 3, 5])
    options.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    options.add_argument("--count", type=int, default=3)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--python", default=sys.executable)
    options.add_argument("--json", type=Path)
    options.add_argument("--side", choices=["ours", "theirs"])
    options.add_argument("--data", type=Path)
    given = options.parse_args()
    cv2.setNumThreads(1)
    if given.side:
        print(json.dumps(measured(given.side, given.data, given.names, given.severities)))
        return
    looked = "import importlib.util as u, sys; sys.exit(u.find_spec('imagecorruptions') is None)"
    if subprocess.run([given.python, "-c", looked], check=False).returncode:
        raise SystemExit("imagecorruptions is not installed: pip install --no-deps imagecorruptions==1.1.2")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        np.savez(path, **{str(s): np.stack(photographs(given.images, given.count, s)) for s in given.sizes})
        rounds = [(side("ours", given, path), side("theirs", given, path)) for _ in range(given.rounds)]
        rows = compared(rounds, path)
    print(f"{given.count} photographs, one thread, {given.rounds} rounds; ms per image, PSNR in dB")
    print(f"{'corruption, severity, px':32s}     ours    theirs   ratio     PSNR: ours  theirs   mean difference")
    for key, r in rows.items():
        times = f"{key:32s} {1e3 * r['ours_s']:8.2f}  {1e3 * r['theirs_s']:8.2f}  {r['ratio']:6.2f}"
        apart = "" if r["difference"] is None else f"{r['difference']:18.2f}"
        print(f"{times}  {r['ours_psnr']:13.2f}  {r['theirs_psnr']:6.2f}{apart}")
    mean = geometric(geometric(r["ratio"] for k, r in rows.items() if k.split()[0] == n) for n in given.names)
    others = geometric([r["ratio"] for k, r in rows.items() if not k.startswith("glass")] or [mean])
    worst = min(rows, key=lambda k: rows[k]["ratio"])
    print(f"geometric mean of the ratios {mean:.2f} (target at least 3); without glass {others:.2f}")
    print(f"least {rows[worst]['ratio']:.2f}, {worst} (target at least 1)")
    if given.json:
        summary = {"geometric_mean": mean, "without_glass": others, "least": rows[worst]["ratio"], "rows": rows}
        given.json.write_text(json.dumps(summary, indent=2) + "\n")
    if faults := missed(rows, mean):
        raise SystemExit("targets missed: " + "; ".join(faults))


if __name__ == "__main__":
    main()
