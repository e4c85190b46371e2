"""Pictures for the sample record: real PNG files with the digests that the record names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data as photographs

from audit.record import Evidence

SCENE = (480, 360)


def patch(folder: Path) -> Evidence:
    caption = "Trained on 31 scenes, 400 steps, start from noise."
    return picture(folder, "patch", _face_like(128, 3), role="patch", caption=caption)


def unoptimised(folder: Path) -> list[Evidence]:
    grey = np.full((128, 128, 3), 127, np.uint8)
    return [
        picture(folder, "noise", noise(128, 1), role="control", caption="Noise: recall 0.911"),
        picture(folder, "grey", grey, role="control", caption="Grey: recall 0.927"),
        picture(folder, "face", _astronaut_face(128), role="control", caption="Downsized face: recall 0.853"),
    ]


def triples(folder: Path, scene: str) -> list[Evidence]:
    """Clean, patched and difference for the worst case, the median and a survivor."""
    out = []
    for i, (case, score) in enumerate([("worst", 0.004), ("median", 0.21), ("survivor", 0.83)]):
        clean = _scene(i)
        patched = clean.copy()
        patched.paste(Image.fromarray(_face_like(60, i)), (210, 60))
        difference = np.abs(np.asarray(patched, np.int16) - np.asarray(clean, np.int16)).astype(np.uint8)
        found = score > 0.5
        _box(clean, found=True)
        _box(patched, found=found)
        named = {
            "clean": (np.asarray(clean), f"Found with score {0.93 - i / 100:.3f}. Scene {scene}, seed 8841203."),
            "patched": (np.asarray(patched), f"Best score on the face {score}: {'found' if found else 'not found'}."),
            "difference": (difference, "Only the patch differs."),
        }
        for role, (pixels, caption) in named.items():
            out.append(picture(folder, f"{case}-{role}", pixels, role=role, case=case, caption=caption))
    return out


def placement(folder: Path, caption: str) -> Evidence:
    path = folder / "evidence" / "patch.json"
    path.write_text(json.dumps({"placement": "top", "alpha": 0.5}), encoding="utf-8")
    return Evidence(role="file", path="evidence/patch.json", sha256=_sha256(path), caption=caption)


def picture(folder: Path, name: str, pixels: np.ndarray, *, role: str, caption: str, case: str = "") -> Evidence:
    path = folder / "evidence" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    height, width = pixels.shape[:2]
    return Evidence(
        role=role,
        path=f"evidence/{name}.png",
        sha256=_sha256(path),
        caption=caption,
        case=case,
        width_px=width,
        height_px=height,
    )


def noise(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def _box(image: Image.Image, *, found: bool) -> None:
    ImageDraw.Draw(image).rectangle((170, 40, 310, 225), outline=(40, 220, 90) if found else (255, 200, 40), width=3)


def _scene(shift: int) -> Image.Image:
    image = Image.fromarray(photographs.astronaut()).crop((0, 0, 512, 384)).resize(SCENE)
    return Image.fromarray(np.roll(np.asarray(image), 4 * shift, axis=1).copy())


def _astronaut_face(side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(photographs.astronaut()).crop((160, 40, 300, 180)).resize((side, side)))


def _face_like(side: int, seed: int) -> np.ndarray:
    small = Image.fromarray(noise(12, seed)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(Image.blend(small, Image.fromarray(_astronaut_face(side)), 0.35))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
