"""The starter set: real faces on real photographs, from what ships inside the scikit-image wheel. No download."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from audit.data.scenes import Scene, Scenes
from audit.errors import DataError

LICENCE = (
    "faces: Labeled Faces in the Wild, press photographs distributed for research (subset shipped with scikit-image); "
    "coffee, brick, grass, gravel: CC0; rocket (SpaceX) and astronaut (NASA): public domain"
)
NOTES = (
    "starter set: 100 grey faces of 25×25 pixels, enlarged 2–6 times and pasted on five photographs without faces, "  # noqa: ISC004
    "and one portrait; it shows how the audit works and does not stand for the place where the model is used",
    "each face photograph is in one scene only; two photographs may show the same well-known person, and the five "  # noqa: ISC004
    "backgrounds occur on both sides of the split",
    "boxes and backgrounds were chosen so that CenterFace finds the faces, so its clean figures here say little",
)

SIZES = ((256, 256), (256, 320))
"""(height, width) of the scenes: two only, and multiples of 32, so that whole batches run without padding."""

_GREY = ("grass.png", "brick.png", "gravel.png")
BACKGROUNDS = (*_GREY[:2], "coffee.png", _GREY[2], *_GREY[:2], "rocket.jpg", _GREY[2])
"""In turn. None of them holds a face, and a face detector finds none in them."""

FACES_PER_SCENE = (1, 2, 1, 3)
ENLARGED = {1: (3.0, 6.0), 2: (2.5, 5.0), 3: (2.0, 4.0)}
"""Faces in the scene -> range of the enlargement, so that they fit side by side."""

FACE_IN_CROP = (0.06, 0.04, 0.84, 0.96)
"""The face in an LFW crop, as fractions of its side: cheek to cheek and forehead to chin, the same for all crops, which
LFW's alignment allows. It is the median of CenterFace's boxes on the crops; RetinaFace's agree (median IoU 0.84)."""

ASTRONAUT = "astronaut.png"
ASTRONAUT_WINDOW = (64, 0, 384, 256)
ASTRONAUT_FACE = (182.0, 62.0, 268.0, 176.0)
"""xyxy in the whole picture, measured by eye: cheek to cheek, forehead to chin."""

_SEED = 20_000
_GAP = 10
_FADE = 0.2


@dataclass(frozen=True, slots=True)
class Placed:
    """One face: its index in the LFW subset, the side of its enlarged crop and the crop's corner, in px."""

    face: int
    side: int
    x: int
    y: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = (f * self.side for f in FACE_IN_CROP)
        return self.x + x1, self.y + y1, self.x + x2, self.y + y2

    def clear_of(self, other: Placed) -> bool:
        gap = max(self.side, other.side) // 10 + _GAP
        return (
            self.x + self.side + gap <= other.x
            or other.x + other.side + gap <= self.x
            or self.y + self.side + gap <= other.y
            or other.y + other.side + gap <= self.y
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a scene is made: the window of the background that is shown, and the faces on it."""

    size: tuple[int, int]
    background: str
    window: tuple[float, float, float, float]
    faces: tuple[Placed, ...]


def starter() -> Scenes:
    """58 built scenes with 100 real faces in all, and the astronaut: 59 images, 101 boxes, class ``face``.

    Boxes are exact by construction (the astronaut's was measured). Pixels are the same on every call; nothing is read
    but files of the installed scikit-image. A scene is its own group, and each face photograph is in one scene.

    Raises:
        DataError: the installed scikit-image does not hold one of the pictures.
    """
    scenes = [
        _scene(f"starter-{i:02d}", [p.box for p in recipe.faces], partial(render, recipe))
        for i, recipe in enumerate(recipes())
    ]
    x, y = ASTRONAUT_WINDOW[:2]
    x1, y1, x2, y2 = ASTRONAUT_FACE
    scenes.append(_scene("starter-astronaut", [(x1 - x, y1 - y, x2 - x, y2 - y)], _astronaut))
    return Scenes(
        scenes=tuple(scenes),
        classes=("face",),
        name="starter set",
        source=f"scikit-image {version('scikit-image')}: lfw_subset, astronaut, "
        + ", ".join(sorted({b.split(".")[0] for b in BACKGROUNDS})),
        labelled_by="construction",
        licence=LICENCE,
        notes=NOTES,
    )


def recipes() -> Iterator[Recipe]:
    """The built scenes, from a fixed seed. Only ``Random.random`` is used: Python promises its stream for good."""
    faces = list(range(100))
    rng = random.Random(_SEED)
    faces.sort(key=lambda _: rng.random())
    number = 0
    while faces:
        count = min(FACES_PER_SCENE[number % len(FACES_PER_SCENE)], len(faces))
        size = SIZES[int(rng.random() * len(SIZES))] if count < 3 else SIZES[-1]
        background = BACKGROUNDS[number % len(BACKGROUNDS)]
        yield Recipe(size, background, _window(background, size, rng), _place(faces[:count], size, rng))
        del faces[:count]
        number += 1


def render(recipe: Recipe) -> Tensor:
    """The scene as uint8 RGB (3, height, width)."""
    height, width = recipe.size
    canvas = _picture(recipe.background).resize((width, height), Image.Resampling.LANCZOS, box=recipe.window)
    for placed in recipe.faces:
        crop, rim = _enlarged(placed.face, placed.side)
        canvas.paste(crop, (placed.x - rim, placed.y - rim), _fading(placed.side, rim))
    return _tensor(canvas)


def _window(background: str, size: tuple[int, int], rng: random.Random) -> tuple[float, float, float, float]:
    """A random window of the scene's shape that shows 60 to 100 % of what the background can show."""
    height, width = size
    full_w, full_h = _picture(background).size
    most = min(full_w / width, full_h / height)
    zoom = most * (0.6 + 0.4 * rng.random())
    x, y = rng.random() * (full_w - zoom * width), rng.random() * (full_h - zoom * height)
    return x, y, x + zoom * width, y + zoom * height


def _place(faces: list[int], size: tuple[int, int], rng: random.Random) -> tuple[Placed, ...]:
    height, width = size
    low, high = ENLARGED[len(faces)]
    while True:
        done: list[Placed] = []
        for face in faces:
            side = round(25 * (low + (high - low) * rng.random()))
            x, y = int(rng.random() * (width - side + 1)), int(rng.random() * (height - side + 1))
            placed = Placed(face, side, x, y)
            if not all(placed.clear_of(other) for other in done):
                break
            done.append(placed)
        else:
            return tuple(done)


def _scene(name: str, boxes: list[tuple[float, float, float, float]], load: Callable[[], Tensor]) -> Scene:
    pixels = load()
    return Scene(
        id=name,
        group=name,
        size=(pixels.shape[1], pixels.shape[2]),
        boxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        ignore=torch.zeros(len(boxes), dtype=torch.bool),
        digest=hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
        load=load,
    )


def _astronaut() -> Tensor:
    return _tensor(_picture(ASTRONAUT).crop(ASTRONAUT_WINDOW))


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _enlarged(face: int, side: int) -> tuple[Image.Image, int]:
    """The crop enlarged (Lanczos), its border continued outwards and blurred, and the width of that rim in px."""
    rim = round(side * _FADE)
    crop = Image.fromarray(_faces()[face]).resize((side, side), Image.Resampling.LANCZOS)
    wide = Image.fromarray(np.pad(np.asarray(crop), rim, mode="edge")).filter(ImageFilter.GaussianBlur(rim / 3))
    wide.paste(crop, (rim, rim))
    return wide.convert("RGB"), rim


def _fading(side: int, rim: int) -> Image.Image:
    """Opacity of a crop: full on the face, falling to 0 over the rim, so that no hard frame is pasted with it."""
    place = np.arange(side + 2 * rim)
    edge = np.minimum((np.minimum(place, place[::-1]) + 1) * 255 // max(1, rim), 255)
    return Image.fromarray((np.outer(edge, edge) // 255).astype(np.uint8))


@lru_cache(maxsize=8)
def _picture(name: str) -> Image.Image:
    with Image.open(_shipped(name)) as image:
        return image.convert("RGB")


@lru_cache(maxsize=1)
def _faces() -> NDArray[np.uint8]:
    """(100, 25, 25) uint8 grey."""
    crops: NDArray[np.float64] = np.load(_shipped("lfw_subset.npy"), allow_pickle=False)[:100]
    return np.round(crops * 255).astype(np.uint8)


def _shipped(name: str) -> Path:
    # Read directly: skimage.data would try a download where a file is missing, and this set promises none.
    spec = find_spec("skimage")
    path = Path(spec.origin or "").parent / "data" / name if spec is not None else Path(name)
    if not path.is_file():
        raise DataError(
            "starter set",
            expected=f"the picture {name} inside the installed scikit-image",
            got=f"scikit-image {version('scikit-image')} without it",
            mend="install a wheel of scikit-image 0.25 or newer, or give data of your own with --audit-data",
        )
    return path
