"""Evidence: pictures in the output folder, named by their content, and how they are drawn.

Lines tell what they mean without colour: solid, the object was found; dashed, it was missed; dotted, a detection where
no object is (a false alarm); thin white on black, the place of a patch. Pictures are made 512 px wide with lines and
letters that can still be read when a page shows them at 256 px.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from audit.measures.matching import Matches
from audit.record import Evidence

WIDTH = 512
"""Longest side of a drawn picture in px, twice what the report's page shows."""
SPAN = 7.0
"""A window is this many times as wide as its objects: enough of them, and each large enough to be seen."""

FOUND, MISSED, FALSE = (0, 114, 178), (230, 159, 0), (213, 60, 20)  # apart for the colour-blind as well
_LINE, _HALO = 4, 2
_DASH, _GAP, _DOTS = 20, 13, 12
_FONT = 22
_LARGEST = 4.0  # times a small picture is enlarged at most

Pixels = NDArray[np.uint8]
Window = tuple[int, int, int, int]
Box = tuple[float, float, float, float]


class EvidenceStore:
    """Keeps pictures under ``folder/evidence`` as ``<first 16 digits of the file's sha256>.png``.

    The same picture is stored once, whoever stores it; writing is atomic, so that workers may share the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def picture(self, pixels: ArrayLike, role: str, caption: str, case: str = "") -> Evidence:
        """Store a picture.

        Args:
            pixels: uint8 (H, W, 3) RGB or (H, W). role, caption, case: see :class:`audit.record.Evidence`.

        Raises:
            ValueError: not such an array, or empty.
        """
        array = np.asarray(pixels)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size or array.shape[2:] not in ((), (3,)):
            raise ValueError(f"expected uint8 (H, W, 3) or (H, W), got {array.dtype} {array.shape}")
        data = io.BytesIO()
        Image.fromarray(array).save(data, "PNG")
        raw = data.getvalue()
        digest = hashlib.sha256(raw).hexdigest()
        path = self.folder / "evidence" / f"{digest[:16]}.png"
        if not path.exists():
            _write(path, raw)
        return Evidence(
            role=role,
            path=path.relative_to(self.folder).as_posix(),
            sha256=digest,
            caption=caption,
            case=case,
            width_px=array.shape[1],
            height_px=array.shape[0],
        )


def draw(
    image: ArrayLike,
    *,
    truth: ArrayLike = (),
    found: Sequence[bool] | NDArray[np.bool_] = (),
    labels: Sequence[str] = (),
    false: ArrayLike = (),
    false_labels: Sequence[str] = (),
    regions: ArrayLike = (),
    window: Window | None = None,
) -> Pixels:
    """The image with what was found, missed and falsely found drawn in.

    Args:
        image: uint8 (H, W, 3). truth: (T, 4) boxes xyxy in px of the image. found: (T,). labels: (T,) short texts, or
            none. false: (D, 4) boxes of false alarms. false_labels: (D,) or none. regions: (K, 4) places of patches.
        window: the part of the image to show, see :func:`window`; all of it by default.

    Returns:
        uint8 RGB, longest side 512 px (an image is enlarged four times at most).
    """
    shown, scale, origin = _fit(np.asarray(image, dtype=np.uint8), window)
    canvas = Image.fromarray(shown)
    pen = ImageDraw.Draw(canvas)

    def placed(boxes: ArrayLike) -> list[Box]:
        flat = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - np.tile(origin, 2)) * np.tile(scale, 2)
        return [(float(a), float(b), float(c), float(d)) for a, b, c, d in flat]

    for box in placed(regions):
        pen.rectangle(box, outline="black", width=4)
        if min(box[2] - box[0], box[3] - box[1]) > 4:
            pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline="white", width=2)
    places, alarms = placed(truth), placed(false)
    for box, hit in zip(places, found, strict=True):
        _frame(pen, box, FOUND if hit else MISSED, dashed=not hit)
    for box in alarms:
        _dots(pen, box, FALSE)
    taken: list[Box] = []
    # what went wrong is named first: where there is no room for all, the rest stays without a name
    texts = [(b, t, FALSE) for b, t in zip(alarms, false_labels, strict=False)]
    rows = sorted(zip(places, labels, found, strict=False), key=lambda row: bool(row[2]))
    texts += [(b, t, FOUND if hit else MISSED) for b, t, hit in rows]
    for box, text, colour in texts:
        _label(pen, canvas.size, box, text, colour, taken)
    return np.asarray(canvas, dtype=np.uint8)


def draw_matches(
    image: ArrayLike, matches: Matches, threshold: float, *, regions: ArrayLike = (), window: Window | None = None
) -> Pixels:
    """:func:`draw` for the matches of one image at a threshold: scores on what was found, ``missed`` on what was not.

    Objects and detections that do not count are left out.
    """
    counts = ~matches.truth_ignored
    found = matches.found(threshold)[counts]
    scores = matches.truth_scores[counts]
    alarm = (matches.scores >= threshold) & ~matches.true & ~matches.ignored
    return draw(
        image,
        truth=matches.truth_boxes[counts],
        found=found,
        labels=[f"{_score(s)}" if hit else "missed" for s, hit in zip(scores, found, strict=True)],
        false=matches.boxes[alarm],
        false_labels=[f"false {_score(s)}" for s in matches.scores[alarm]],
        regions=regions,
        window=window,
    )


def difference(clean: ArrayLike, changed: ArrayLike, *, window: Window | None = None) -> Pixels:
    """What was changed, as 255 (|a - b| / 255)^(1/3) per channel: black is untouched, one grey level already shows.

    Args:
        clean, changed: uint8 (H, W, 3). window: as in :func:`draw`.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = np.asarray(clean, dtype=np.uint8), np.asarray(changed, dtype=np.uint8)
    if a.shape != b.shape:
        raise ValueError(f"expected two images of one shape, got {a.shape} and {b.shape}")
    gap = np.abs(a.astype(np.float64) - b) / 255
    return _fit(np.round(255 * np.cbrt(gap)).astype(np.uint8), window)[0]


def window(boxes: ArrayLike, size: tuple[int, int], *, span: float = SPAN) -> Window | None:
    """The part of a large image to show: :data:`SPAN` objects wide, where most objects are.

    Args:
        boxes: (T, 4) xyxy px. size: (height, width).

    Returns:
        xyxy px inside the image, or ``None`` (show it all) without objects or where they are large enough.
    """
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height, width = size
    if not len(b):
        return None
    sides = np.sqrt(np.prod(b[:, 2:] - b[:, :2], axis=1))
    side = span * float(np.median(sides))
    w, h = min(width, round(side)), min(height, round(side * 0.75))
    if w > 0.8 * width or w < 8 or h < 8:
        return None
    middle = (b[:, :2] + b[:, 2:]) / 2
    low = np.clip(middle - np.array([w, h]) / 2, 0, [width - w, height - h]).round()
    high = low + np.array([w, h])
    inside = (b[None, :, :2] >= low[:, None]).all(2) & (b[None, :, 2:] <= high[:, None]).all(2)
    x, y = low[int(inside.sum(1).argmax())].astype(int)
    return int(x), int(y), int(x) + w, int(y) + h


def pick_cases(kept: Sequence[float | None], *, seed: int = 0) -> dict[str, int]:
    """Which scenes to show: the index of the ``worst``, the ``median`` and a ``survivor``.

    Scenes are ranked by the share of objects kept, equals by a hash of seed and index, never by their order alone. The
    worst is the first, the survivor the last, if anything was kept in it, the median the one in the middle. No scene is
    shown twice; with fewer scenes there are fewer cases.

    Args:
        kept: per scene in [0, 1], ``None`` where there was nothing to keep: such a scene is never chosen.
    """

    def chance(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{index}".encode()).digest()

    ranked = sorted(((v, chance(i), i) for i, v in enumerate(kept) if v is not None))
    if not ranked:
        return {}
    cases = {"worst": ranked[0][2]}
    if len(ranked) > 2:
        cases["median"] = ranked[(len(ranked) - 1) // 2 or 1][2]
    if len(ranked) > 1 and ranked[-1][0] > 0:
        cases["survivor"] = ranked[-1][2]
    return cases


def _write(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _fit(image: Pixels, part: Window | None) -> tuple[Pixels, NDArray[np.float64], NDArray[np.float64]]:
    """The window at its final size, (2,) the factors x and y, (2,) its origin in the image."""
    x1, y1, x2, y2 = part or (0, 0, image.shape[1], image.shape[0])
    cut = Image.fromarray(np.ascontiguousarray(image[y1:y2, x1:x2]))
    factor = min(WIDTH / max(cut.size), _LARGEST)
    size = (max(1, round(cut.width * factor)), max(1, round(cut.height * factor)))
    resized = cut.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)
    scale = np.array([size[0] / cut.width, size[1] / cut.height])
    return np.asarray(resized, dtype=np.uint8), scale, np.array([x1, y1], dtype=np.float64)


def _sides(box: Box) -> Iterator[Box]:
    x1, y1, x2, y2 = box
    yield from ((x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1))


def _frame(pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], *, dashed: bool) -> None:
    strokes = []
    for x1, y1, x2, y2 in _sides(box):
        length = max(abs(x2 - x1), abs(y2 - y1))
        # a whole number of dashes, one at each corner
        pieces = max(2, round((length + _GAP) / (_DASH + _GAP))) if dashed else 1
        dash = max((length + _GAP) / pieces - _GAP, length / (2 * pieces)) if dashed else length
        step = (length - dash) / (pieces - 1) if pieces > 1 else 0.0
        for i in range(pieces):
            a, b = (i * step / length, (i * step + dash) / length) if length else (0.0, 0.0)
            strokes.append((x1 + (x2 - x1) * a, y1 + (y2 - y1) * a, x1 + (x2 - x1) * b, y1 + (y2 - y1) * b))
    for grow, fill in ((_LINE / 2 + _HALO, (255, 255, 255)), (_LINE / 2, colour)):
        for x1, y1, x2, y2 in strokes:
            left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
            pen.rectangle((left - grow, top - grow, right + grow - 1, bottom + grow - 1), fill=fill)


def _dots(pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int]) -> None:
    spots = []
    for x1, y1, x2, y2 in _sides(box):
        pieces = max(1, round(max(abs(x2 - x1), abs(y2 - y1)) / _DOTS))
        spots += [(x1 + (x2 - x1) * i / pieces, y1 + (y2 - y1) * i / pieces) for i in range(pieces)]
    for radius, fill in ((_LINE / 2 + _HALO, (255, 255, 255)), (_LINE / 2 + 0.5, colour)):
        for x, y in spots:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Box,
    text: str,
    colour: tuple[int, int, int],
    taken: list[Box],
) -> None:
    """A short text above the box, below it, or inside its top, where it is free; else none."""
    font = ImageFont.load_default(_FONT)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    w, h = right - left + 8, bottom - top + 8
    x = min(max(box[0] - _LINE, 0.0), max(size[0] - w, 0.0))
    for y in (box[1] - h - 3, box[3] + 4, box[1] + 4):
        place = (x, y, x + w, y + h)
        clear = all(place[2] <= t[0] or t[2] <= place[0] or place[3] <= t[1] or t[3] <= place[1] for t in taken)
        if y >= 0 and place[3] <= size[1] and clear and box[2] > 0 and box[0] < size[0]:
            taken.append(place)
            pen.rectangle(place, fill=(20, 20, 20), outline=colour, width=2)
            pen.text((x + 4 - left, y + 4 - top), text, font=font, fill="white")
            return


def _score(score: float) -> str:
    """Two digits; never rounded up to a 1.00 that it is not."""
    return "1.00" if score == 1 else f"{min(np.floor(score * 100) / 100, 0.99):.2f}"
