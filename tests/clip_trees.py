"""Small trees of videos and photographs that the tests write."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.videos import moving, write_video

_NEXT = iter(range(10**9))


def film(path, seed=None):
    """A video of three frames, unlike all others unless a seed is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, moving(3, (48, 64), next(_NEXT) if seed is None else seed))


def photo(path, seed=None, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(next(_NEXT) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def stills(folder, count=3):
    for i in range(count):
        photo(folder / f"{i}.png")


def about(clips):
    """Id -> (method, group, domain, split)."""
    return {c.id: (c.method, c.group, c.domain, c.split) for c in clips.clips}
