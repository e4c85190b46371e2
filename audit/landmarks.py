"""Five landmarks for photographs that come without: from a landmarker, in batches, kept by the photograph's digest."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import ARCFACE, CHIP
from audit.contracts import Landmarker
from audit.errors import DataError, ModelError

if TYPE_CHECKING:  # the readers of audit.data use this module
    from audit.data.assemble import Progress
    from audit.data.faces import FacePairs

LONGEST = 1024
"""px; larger photographs are shown to a landmarker in this size."""
NO_FACE = "no face was found in it"
_TOGETHER = 4.0
_NEAR = 0.5


@dataclass(frozen=True, slots=True)
class LandmarkCache:
    """Where found landmarks are kept.

    Attributes:
        key: what decides the landmarker's answers, e.g. the digests of its files; another key, other answers.
    """

    folder: Path
    key: str


@dataclass(frozen=True, slots=True)
class Finder:
    """How landmarks are found for photographs that come without: a landmarker and where its answers are kept.

    Attributes:
        device: where the landmarker wants its images.
    """

    landmarker: Landmarker | None = None
    cache: LandmarkCache | None = None
    device: torch.device | str = "cpu"
    batch: int = 16


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph that can be read: uint8 (3, height, width) of ``size``; ``digest`` of its file."""

    read: Callable[[], Tensor]
    size: tuple[int, int]
    digest: str


def chip_landmarks(size: tuple[int, int]) -> Tensor | None:
    """(5, 2) px where the photograph is an aligned chip, 112 × 112, else ``None``."""
    return ARCFACE.clone() if size == (CHIP, CHIP) else None


def fault(landmarks: Tensor, size: tuple[int, int]) -> str:
    """What is wrong with (5, 2) landmarks of a photograph of that size; empty where nothing is.

    A landmark may lie outside of the photograph, where a face is cut off, but not by more than half its sides.
    """
    if not bool(landmarks.isfinite().all()):
        return NO_FACE
    if float((landmarks.amax(0) - landmarks.amin(0)).amax()) < _TOGETHER:
        return "its landmarks are all in one place"
    side = landmarks.new_tensor([size[1], size[0]])
    if bool(((landmarks < -_NEAR * side) | (landmarks > (1 + _NEAR) * side)).any()):
        return "its landmarks lie outside of it"
    # A face seen in a mirror has no similarity with the template: the owner's left is not the viewer's.
    eyes, down = landmarks[1] - landmarks[0], landmarks[3:].mean(0) - landmarks[:2].mean(0)
    if float(eyes[0] * down[1] - eyes[1] * down[0]) < -0.1 * float(eyes.norm() * down.norm()):
        return "its landmarks are mirrored: eyes and corners of the mouth go from the viewer's left to the right"
    return ""


def locate(photos: Sequence[Photo], finder: Finder, progress: Progress | None = None) -> Tensor:
    """(N, 5, 2) float32 px of N photographs, NaN where the landmarker finds no face.

    Raises:
        DataError: there is no landmarker. ModelError: it returns something else than (N, 5, 2) numbers.
    """
    landmarker, cache = finder.landmarker, finder.cache
    if landmarker is None:
        raise DataError(
            "landmarks",
            expected="five per face, or a landmarker",
            got=f"{len(photos)} photographs without",
            mend="give them in a faces.csv beside the data (image,x1,y1,…,x5,y5), "
            "or a function landmarks(device) in the model file",
        )
    known = {} if cache is None else _load(_place(cache))
    rows = [i for i, p in enumerate(photos) if p.digest not in known]
    sizes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in rows:
        sizes[_shown(photos[i].size)].append(i)
    batches = [(s, same[i : i + finder.batch]) for s, same in sizes.items() for i in range(0, len(same), finder.batch)]
    found: dict[str, Tensor] = {}
    for number, (shown, batch) in enumerate(batches, start=1):
        images = torch.stack([_shrunk(photos[i].read(), shown) for i in batch]).to(finder.device)
        points = _asked(landmarker, images)
        for i, point in zip(batch, points, strict=True):
            h, w = photos[i].size
            found[photos[i].digest] = (point + 0.5) * torch.tensor([w / shown[1], h / shown[0]]) - 0.5
        if progress is not None:
            progress(number / len(batches), "finding landmarks")
    if cache is not None and found:
        known = _keep(_place(cache), found)
    known = {**known, **found}
    return torch.stack([known[p.digest] for p in photos]) if photos else torch.zeros(0, 5, 2)


def with_landmarks(
    data: FacePairs, finder: Finder, *, name: str = "a landmarker", progress: Progress | None = None
) -> FacePairs:
    """The same data with a landmarker's landmarks; faces in which it finds none are left out, and their pairs.

    Raises:
        DataError: there is no landmarker, or it finds no face at all.
    """
    from audit.data.scenes import Unreadable

    points = locate([Photo(f.read, data.size, f.digest) for f in data.faces], finder, progress)
    reasons = [fault(p, data.size) for p in points]
    keep = [i for i, r in enumerate(reasons) if not r]
    if not keep:
        raise DataError(f"data {data.name}", expected="faces that the landmarker finds", got="none",
                        mend="check the landmarker's images, float RGB in [0, 1]")  # fmt: skip
    new = {old: i for i, old in enumerate(keep)}
    rows = [k for k, (a, b) in enumerate(data.pairs.tolist()) if a in new and b in new]
    lost = len(data) - len(rows)
    return replace(
        data,
        faces=tuple(replace(data.faces[i], landmarks=points[i]) for i in keep),
        pairs=torch.tensor([[new[i] for i in data.pairs[k].tolist()] for k in rows], dtype=torch.int64).reshape(-1, 2),
        same=data.same[rows],
        gallery=tuple(new[i] for i in data.gallery if i in new),
        landmarks_from=name,
        unreadable=(*data.unreadable, *(Unreadable(f.id, r) for f, r in zip(data.faces, reasons, strict=True) if r)),
        notes=(*data.notes, *(f"{lost} pair(s) were dropped with photographs without a face",) * bool(lost)),
    )


def _asked(landmarker: Landmarker, images: Tensor) -> Tensor:
    with torch.no_grad():
        out = landmarker(images)
    if not isinstance(out, Tensor) or tuple(out.shape) != (len(images), 5, 2):
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ModelError("landmarker", expected=f"({len(images)}, 5, 2) px, (x, y)", got=got,
                         mend="return five points per photograph, NaN where there is no face")  # fmt: skip
    return out.detach().float().cpu()


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    ratio = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def _shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, h, w) in [0, 1] of uint8 (3, H, W)."""
    whole = image.float() / 255
    if tuple(image.shape[1:]) == size:
        return whole
    return F.interpolate(whole[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _place(cache: LandmarkCache) -> Path:
    return cache.folder / f"landmarks-{hashlib.sha256(cache.key.encode()).hexdigest()[:32]}.npz"


def _load(place: Path) -> dict[str, Tensor]:
    try:
        with np.load(place, allow_pickle=False) as file:
            points = torch.from_numpy(file["points"])
            return dict(zip(file["digests"].tolist(), points, strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or a broken one: found anew
        return {}


def _keep(place: Path, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """All that is known by now; another process may have added to it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        known = {**_load(place), **found}
        draft = place.with_name(f"{place.stem}-{os.getpid()}.draft.npz")
        save = partial(np.savez, draft)
        save(digests=np.array(list(known)), points=torch.stack(list(known.values())).numpy())
        draft.replace(place)
    return known
