"""From what an annotation file says to Scenes: files checked, boxes made sound, copies grouped, all loss noted."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from audit.data.groups import grouped, own_group
from audit.data.images import SUFFIXES, inspect, read_as
from audit.data.scenes import Scene, Scenes, Unreadable
from audit.errors import DataError

Progress = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and a word on it."""

Box = tuple[float, float, float, float]
_OBEYED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")
_NO_BOX: Box = (math.nan,) * 4


@dataclass(frozen=True, slots=True)
class Entry:
    """What an annotation file says of one image.

    Attributes:
        name: path below the images' folder, as written; it becomes the scene's id.
        boxes: xyxy in px, or in shares of the image's width and height where ``relative``.
        labels: index into the classes, or -1 for an object that counts neither way.
        group: None gives the image a group of its own. size: (height, width) that the boxes were drawn for, if known.
    """

    name: str
    boxes: Sequence[Box] = ()
    labels: Sequence[int] = ()
    ignore: Sequence[bool] = ()
    subsets: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    group: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True)
class _Opened:
    scene: Scene
    without_area: int
    clipped: int


def assemble(
    entries: Iterable[Entry],
    root: Path,
    *,
    classes: Sequence[str],
    name: str,
    source: str,
    labelled_by: str = "human",
    unreadable: Iterable[Unreadable] = (),
    notes: Iterable[str] = (),
    progress: Progress | None = None,
) -> Scenes:
    """Opens every image below ``root``, checks that it decodes, and makes one scene of each.

    Boxes are clipped to their image. A box that has no area then, or is not finite, stays as an ignored object and is
    counted in ``notes``. Files that cannot be used are in ``unreadable`` with the reason. Pixels are let go at once:
    memory does not grow with the images.

    Raises:
        DataError: not one usable image.
    """
    entries = list(entries)
    left_out = list(unreadable)
    opened: dict[str, _Opened] = {}
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        results = pool.map(partial(_outcome, root), entries)
        for i, (entry, result) in enumerate(zip(entries, results, strict=True)):
            key = printable(entry.name)
            if isinstance(result, Unreadable):
                left_out.append(result)
            elif key in opened:
                left_out.append(Unreadable(key, "named more than once; the first entry is used"))
            else:
                opened[key] = result
            if progress is not None:
                progress((i + 1) / len(entries), f"opening {key}")
    finally:
        pool.shutdown(cancel_futures=True)
    if not opened:
        examples = "; ".join(f"{u.name}: {u.reason}" for u in left_out[:3])
        raise DataError(
            f"data {printable(str(root))}",
            expected="at least one usable image",
            got=f"{len(left_out)} unusable ({examples})" if left_out else "none",
            mend="check the path and that the images lie where the annotations say",
        )
    return Scenes(
        scenes=grouped([o.scene for o in opened.values()]),
        classes=tuple(printable(c) for c in classes),
        name=printable(name),
        source=printable(source),
        labelled_by=labelled_by,
        unreadable=tuple(left_out),
        notes=(*notes, *_losses(opened)),
    )


def as_box(values: object) -> Box:
    """Four numbers, or four NaN where it is anything else: such an object is ignored and counted in the notes."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4:
        return _NO_BOX
    try:
        a, b, c, d = (float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return _NO_BOX
    return a, b, c, d


def from_xywh(values: object) -> Box:
    """The xyxy of a box that is given as left, top, width, height."""
    x, y, w, h = as_box(values)
    return x, y, x + w, y + h


def inside(root: Path, name: str) -> Path | None:
    """``root / name``, or None where the name is absolute, names ``root`` itself or climbs out of ``root``.

    By the name alone: a symbolic link that the owner laid inside the folder may lead where it likes.
    """
    base = os.path.normpath(root)
    path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118  Path would not resolve the dots without the disk
    if not name.strip() or os.path.isabs(name) or path == base or not Path(path).is_relative_to(base):  # noqa: PTH117
        return None
    return Path(path)


def images_below(folder: Path) -> list[str]:
    """Names of the image files in and below a folder, sorted; hidden files are left aside."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not any(p.startswith(".") for p in name.parts) and path.is_file():
            found.append(name.as_posix())
    return sorted(found)


def images_root(given: Path | None, candidates: Iterable[Path], names: Sequence[str], subject: str) -> Path:
    """The folder that the images' names start from: the one given, or the first candidate that has one of them.

    Raises:
        DataError: the given folder is none, or no candidate holds any of them.
    """
    if not names:
        raise DataError(
            subject, expected="at least one image in it", got="none", mend="check that it is the right file"
        )
    tried = [given] if given is not None else list(dict.fromkeys(candidates))
    for folder in tried:
        if not folder.is_dir():
            continue
        if given is not None or any(_exists(folder, n) for n in names[:10_000]):
            return folder
    raise DataError(
        subject,
        expected=f"its images beside it, e.g. {printable(names[0]) if names else 'an image'}",
        got=f"none of them in {', '.join(printable(str(t)) for t in tried)}",
        mend="give the folder of the images, or put the images beside the annotations",
    )


def printable(text: str) -> str:
    """The text itself, with what UTF-8 cannot hold (stray bytes of file names) written as escapes.

    So are characters that a terminal obeys instead of showing: controls (C0, C1), line separators, and those that turn
    the direction of writing.
    """
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _OBEYED.sub(lambda c: c[0].encode("unicode_escape").decode("ascii"), plain)


def _exists(folder: Path, name: str) -> bool:
    path = inside(folder, name)
    try:
        return path is not None and path.is_file()
    except (OSError, ValueError):
        return False


def _outcome(root: Path, entry: Entry) -> _Opened | Unreadable:
    name = printable(entry.name)
    path = inside(root, entry.name)
    if path is None:
        return Unreadable(name, "the name is empty or leads out of the folder of the images")
    try:
        file = inspect(path)
    except DataError as e:
        return Unreadable(name, e.got)
    if entry.size not in (None, file.size):
        h, w = entry.size or file.size
        return Unreadable(name, f"boxes drawn for {w}x{h} px, but upright the image has {file.size[1]}x{file.size[0]}")
    boxes, bad, clipped = sound(entry.boxes, file.size, relative=entry.relative)
    count = len(boxes)
    labels = torch.tensor(list(entry.labels), dtype=torch.int64) if entry.labels else torch.zeros(count).long()
    ignore = torch.tensor(list(entry.ignore), dtype=torch.bool) if entry.ignore else torch.zeros(count).bool()
    scene = Scene(
        id=name,
        group=own_group(file.digest) if entry.group is None else printable(entry.group),
        size=file.size,
        boxes=boxes,
        labels=labels.clamp(min=0),
        ignore=ignore | bad | (labels < 0),
        digest=file.digest,
        load=partial(read_as, path, file.size),
        subsets={k: torch.tensor(list(v), dtype=torch.bool) for k, v in entry.subsets.items()},
    )
    return _Opened(scene, int(bad.sum()), int(clipped.sum()))


def sound(boxes: Sequence[Box], size: tuple[int, int], *, relative: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes clipped to their image, which of them have no area there, and which lost more than a pixel.

    Args:
        boxes: K of xyxy, in px or in shares of the image. size: (height, width).

    Returns:
        (K, 4) float32 xyxy px with x1 <= x2, y1 <= y2, all finite; (K,) bool without area; (K,) bool clipped.
    """
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=torch.float64)
    raw = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    if relative:
        raw = raw * limit
    finite = raw.isfinite().all(1)
    raw = torch.where(finite[:, None], raw, 0.0)
    out = torch.minimum(raw.clamp(min=0), limit).float()
    bad = (out[:, 2:] <= out[:, :2]).any(1) | ~finite
    out[bad, 2:] = out[bad, :2]
    return out, bad, ~bad & ((out - raw).abs() > 1).any(1)


def _losses(opened: Mapping[str, _Opened]) -> list[str]:
    notes = []
    for count, what in (
        ({n: o.without_area for n, o in opened.items() if o.without_area}, "without area inside the image are ignored"),
        ({n: o.clipped for n, o in opened.items() if o.clipped}, "reached over the edge and were clipped to the image"),
    ):
        if count:
            notes.append(f"{sum(count.values())} box(es) {what}, the first in {next(iter(count))}")
    copies = len(opened) - len({o.scene.digest for o in opened.values()})
    if copies:
        notes.append(f"{copies} file(s) are exact copies of others; copies stay on one side of the split")
    return notes
