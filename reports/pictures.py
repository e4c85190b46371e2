"""Evidence pictures as data: URIs: checked against their digest, made small, and kept under a total size.

Nothing that cannot be shown is dropped silently: each picture that is not embedded says why.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from PIL import Image

from audit.record import Control, Evidence, Report
from reports.words import worst_first

SCENE_PX = 256
"""Scenes are at most this wide."""
PATCH_PX = 512
"""Patches and unoptimised controls are the object of the audit: they keep their pixels up to this width."""
_QUALITIES = (80, 65, 50, 35)
"""JPEG qualities that scenes are shown in, one after the other, until all of them fit."""
_LARGEST = 50_000_000
_CASES = ("worst", "median", "survivor")


@dataclass(frozen=True, slots=True)
class Picture:
    """What the page shows of one piece of evidence.

    Attributes:
        uri: ``data:image/png;base64,…`` or ``jpeg``, or empty where the picture is not embedded.
        width, height: px of the embedded picture.
        href: relative link to the file, or empty where its path is not a plain path inside the folder.
        note: why it is not embedded, or how it was reduced; empty where neither.
        altered: the file is not the one that was recorded.
    """

    uri: str
    width: int
    height: int
    href: str
    note: str
    altered: bool = False


Album = dict[tuple[str, str], Picture]
"""Pictures by (path, sha256)."""


def href(path: str) -> str:
    """``path`` as a relative link, or empty where it is absolute, climbs out of the folder or carries a scheme."""
    parts = PurePosixPath(path).parts
    bad = not path or "\\" in path or ":" in parts[0] or path.startswith("/") or ".." in parts or "\0" in path
    return "" if bad else quote(path)


def bare(report: Report) -> Album:
    """No picture embedded: the page with links alone, whose size tells what is left for pictures."""
    return {(e.path, e.sha256): Picture("", 0, 0, href(e.path), _FULL) for e in _in_order(report)}


_FULL = "not embedded, because the page would pass its size limit; see the file"


def album(report: Report, folder: Path, budget: int) -> Album:
    """All evidence, embedded within ``budget`` bytes of base64.

    Patches come first, then the worst case of each control, the worst control first. Where everything together is too
    large, scenes are shown as JPEG, more and more strongly compressed; what still does not fit becomes a link with a
    note. Patches keep every pixel.
    """
    order = list(_in_order(report))
    full = {(e.path, e.sha256): _embed(e, folder, quality=0) for e in order}
    uses: dict[tuple[str, str], int] = {}
    for c in report.controls:
        for e in c.evidence:
            uses[e.path, e.sha256] = uses.get((e.path, e.sha256), 0) + 1
    for quality in _QUALITIES:
        if sum(len(p.uri) * uses[k] for k, p in full.items()) <= budget:
            break
        for e in order:
            if not _patch_like(e) and full[e.path, e.sha256].uri:
                full[e.path, e.sha256] = _embed(e, folder, quality=quality)
    out: Album = {}
    for key, picture in full.items():
        cost = len(picture.uri) * uses[key]
        fits = cost <= budget
        budget -= cost if fits else 0
        out[key] = picture if fits else Picture("", 0, 0, picture.href, _FULL)
    return out


def _in_order(report: Report) -> Iterator[Evidence]:
    """Pictures by importance, each file once."""
    seen: set[tuple[str, str]] = set()
    controls = worst_first(report.controls)
    for wanted in ("patch", *_CASES, ""):
        for e in _wanted(controls, wanted):
            if (e.path, e.sha256) not in seen:
                seen.add((e.path, e.sha256))
                yield e


def _wanted(controls: Sequence[Control], wanted: str) -> Iterator[Evidence]:
    for c in controls:
        for e in c.evidence:
            group = "patch" if _patch_like(e) else e.case if e.case in _CASES else ""
            if group == wanted:
                yield e


def _patch_like(evidence: Evidence) -> bool:
    return evidence.role in {"patch", "control"}


def _embed(evidence: Evidence, folder: Path, *, quality: int) -> Picture:
    link = href(evidence.path)
    if not link:
        return Picture("", 0, 0, "", "not embedded, because its path leaves the output folder", altered=True)
    path = folder / evidence.path
    try:
        path.resolve().relative_to(folder.resolve())
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not inside the folder"
        return Picture("", 0, 0, link, f"the file cannot be read: {reason}", altered=True)
    if hashlib.sha256(raw).hexdigest() != evidence.sha256:
        return Picture("", 0, 0, link, "not shown: the file is not the one that was recorded", altered=True)
    if evidence.role == "file":
        return Picture("", 0, 0, link, "")
    try:
        return _encode(raw, link, PATCH_PX if _patch_like(evidence) else SCENE_PX, quality)
    except (OSError, ValueError, SyntaxError) as error:
        return Picture("", 0, 0, link, f"the file cannot be read as a picture: {type(error).__name__}", altered=True)


def _encode(raw: bytes, link: str, widest: int, quality: int) -> Picture:
    with Image.open(io.BytesIO(raw)) as image:
        width, height = image.size
        if width * height > _LARGEST:
            return Picture("", 0, 0, link, f"not embedded, because it has {width} × {height} px")
        small = image.convert("RGB")
    if width > widest or height > 2 * widest:
        ratio = min(widest / width, 2 * widest / height)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        small = small.resize(size, Image.Resampling.LANCZOS)
    note, kind = "", "png"
    out = io.BytesIO()
    if quality:
        small.save(out, "JPEG", quality=quality, optimize=True)
        note, kind = "compressed to keep the page small", "jpeg"
    else:
        small.save(out, "PNG")
    uri = f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(uri, small.width, small.height, link, note)
