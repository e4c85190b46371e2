"""Face submissions for tests: pictures, folders, zips, and recognizers whose answers follow from a few pixels."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import torch
from PIL import Image
from skimage import measure

MODEL = """
import torch
from torch import nn


class Corner(nn.Module):
    '''Embeds a face as the mean colour of its upper left corner, brought to {size} px a side.'''

    task = "recognizer"
    face_size = ({size}, {size})
    threshold = {threshold}
    metric = "{metric}"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, faces):
        assert not self.training and tuple(faces.shape[2:]) == self.face_size
        n = {size} * 30 // 112
        return faces[:, :, :n, :n].mean((2, 3)) @ self.weight


def model(device):
    return Corner().train()
"""

COMPARER = """
import torch


class Comparer:
    '''Only compares: 1 less the difference of the mean red of the upper left corners.'''

    task = "recognizer"
    face_size = (112, 112)
    threshold = 0.8

    def similarity(self, a, b):
        return 1 - (a[:, 0, :30, :30].mean((1, 2)) - b[:, 0, :30, :30].mean((1, 2))).abs()


def model(device):
    return Comparer()
"""


def write_model(folder, name="corner", threshold=0.9, metric="cosine", size=112):
    path = folder / f"{name}.py"
    path.write_text(MODEL.format(threshold=threshold, metric=metric, size=size))
    return path


def write_comparer(folder):
    path = folder / "comparer.py"
    path.write_text(COMPARER)
    return path


def png_bytes(pixels, mode="RGB", **how):
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG", **how)
    return out.getvalue()


def face(colour, seed=0):
    """A face whose upper left 30 x 30 px have one colour; the rest is texture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    pixels[:30, :30] = colour
    return pixels


def originals(folder, pairs, space=False):
    """Green sources and red targets."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, pairs + 1):
        (folder / f"{i:04d}.png").write_bytes(png_bytes(face((0, 200, 0), i)))
        name = f"{i:04d} compare.png" if space else f"{i:04d}_compare.png"
        (folder / name).write_bytes(png_bytes(face((200, 0, 0), 1000 + i)))
    return folder


def attacked(i, colour=(200, 0, 0), rows=30):
    """Source i with so many rows of its corner painted: rows * 30 px in one region."""
    pixels = face((0, 200, 0), i)
    pixels[:rows, :30] = colour
    return pixels


def handed_in(folder, files):
    """Files (name -> bytes) as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def zipped(path, files, kind=zipfile.ZIP_DEFLATED):
    """Files (name or ZipInfo -> bytes) as a zip."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def plain_score(folder, clean, models):
    """Eq. 16 once more, pair by pair with Pillow, NumPy and scikit-image: models are functions of two uint8 faces."""
    wins = []
    for source in sorted(p for p in clean.glob("*.png") if "compare" not in p.name):
        target = np.array(Image.open(next(clean.glob(f"{source.stem}?compare.png"))))
        won = [0] * len(models)
        try:
            image = Image.open(folder / source.name)
            pixels = np.array(image)
            fits = image.mode == "RGB" and pixels.shape == (112, 112, 3)
        except Exception:
            fits = False
        if fits:
            changed = np.abs(pixels.astype(int) - np.array(Image.open(source)).astype(int)).max(2) > 0
            if measure.label(changed).max() <= 5 and changed.sum() <= 1254:
                won = [bool(m(pixels, target)) for m in models]
        wins.append(won)
    return float(np.mean(wins)), np.array(wins, bool)


def corner_cosine(threshold):
    """What ``MODEL`` says with cosines, in NumPy."""

    def same(a, b):
        x, y = (p[:30, :30].astype(np.float64).mean((0, 1)) for p in (a, b))
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y) >= threshold

    return same


torch.set_num_threads(1)
