"""Opens data of videos and photographs that are genuine or not; the format is found from what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, overload

from audit.data.assemble import Progress, printable
from audit.data.attribution_sets import GALLERY, PROBE, Attribution, read_gallery, split_attribution
from audit.data.clip_files import class_tree, files_below
from audit.data.clips import Clips
from audit.data.forgery_sets import CELEB, METADATA, plain_tree, read_celebdf, read_dfd, read_dfdc, read_plain
from audit.data.forgery_tree import looks_ffpp, read_ffpp
from audit.data.liveness_sets import ATTACK, LIVE, SPOOF, looks_labelled, read_liveness
from audit.errors import DataError

Kind = Literal["forgery", "liveness", "attribution"]

_FORMATS: dict[Kind, str] = {
    "forgery": "the trees of FaceForensics++, Celeb-DF, DFD or DFDC, or real/ with fake/<method>/",
    "liveness": "<domain>/live/ with <domain>/spoof/<species>/, or labels.csv with the columns file,spoof,kind",
    "attribution": "gallery/<method>/ with probe/<method>/, or a set of fakes of several methods",
}
CLIP_FORMATS = "; ".join(f"for {kind}: {formats}" for kind, formats in _FORMATS.items())
CLIP_PREFIXES: dict[Kind, tuple[str, ...]] = {
    "forgery": ("ffpp", "celebdf", "dfd", "dfdc", "plain"),
    "liveness": ("liveness",),
    "attribution": ("gallery", "ffpp", "celebdf", "dfd", "dfdc", "plain"),
}
_CROPPED = {"crops": True, "whole": False}
"""Prefixes that say whether frames are faces cut out already."""


@overload
def open_clips(
    path: str | Path, kind: Literal["forgery", "liveness"] = "forgery", *, progress: Progress | None = None
) -> Clips: ...
@overload
def open_clips(
    path: str | Path, kind: Literal["attribution"], *, novel: Sequence[str] = (), progress: Progress | None = None
) -> Attribution: ...
def open_clips(
    path: str | Path, kind: Kind = "forgery", *, novel: Sequence[str] = (), progress: Progress | None = None
) -> Clips | Attribution:
    """The clips at ``path``, a folder; its format is found from its content.

    A prefix names the format where that is wanted: ``ffpp:PATH``, ``celebdf:``, ``dfd:``, ``dfdc:``, ``plain:``,
    ``liveness:``, ``gallery:``. In front of it, ``crops:`` says that frames are faces cut out already, ``whole:`` that
    they are not; without either, stills are and videos are not, see ``assemble_clips``.

    Args:
        kind: ``forgery`` (real and fake), ``liveness`` (live and attacks), ``attribution`` (gallery and probes).
        novel: for attribution on a set of fakes, the methods that the gallery shall not have; folders of gallery and
            probes say it themselves, and must not contradict.
        progress: called with the share done and a word on it.

    Raises:
        DataError: nothing there, no known format or several, or what the format's reader finds wrong.
    """
    text = rest = os.fspath(path)
    cropped: bool | None = None
    prefix, colon, after = rest.partition(":")
    if colon and prefix in _CROPPED:
        cropped, rest = _CROPPED[prefix], after
        prefix, colon, after = rest.partition(":")
    named = prefix if colon and prefix in CLIP_PREFIXES[kind] else ""
    rest = after if named else rest
    place = Path(rest)
    try:
        if not rest.strip() or not place.exists():
            raise _wrong(text, kind, "nothing there")
        if not place.is_dir():
            raise _wrong(text, kind, "a file")
        named = named or _find(place, kind)
        if named == "gallery":
            return _said(read_gallery(place, cropped=cropped, progress=progress), novel)
        readers: dict[str, Callable[[], Clips]] = {
            "ffpp": lambda: read_ffpp(place, cropped=cropped, progress=progress),
            "celebdf": lambda: read_celebdf(place, cropped=cropped, progress=progress),
            "dfd": lambda: read_dfd(place, cropped=cropped, progress=progress),
            "dfdc": lambda: read_dfdc(place, cropped=cropped, progress=progress),
            "plain": lambda: read_plain(place, cropped=cropped, progress=progress),
            "liveness": lambda: read_liveness(place, cropped=cropped, progress=progress),
        }
        clips = readers[named]()
        return split_attribution(clips, novel) if kind == "attribution" else clips
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise _wrong(text, kind, f"{type(e).__name__}: {e}") from e


def _said(found: Attribution, novel: Sequence[str]) -> Attribution:
    wrong = sorted(set(novel) - set(found.novel))
    if wrong:
        only = f"{printable(wrong[0])} in {PROBE}/ only, since it is new"
        raise DataError(f"data {found.gallery.name}", expected=only,
                        got=f"the new methods {', '.join(found.novel)[:80] or '(none)'}",
                        mend="take its folder out of the gallery, or do not call it new")  # fmt: skip
    return found


def _find(root: Path, kind: Kind) -> str:
    """The format of what lies in a folder."""
    if kind == "liveness":
        if looks_labelled(root):
            return "liveness"
        placed, _ = class_tree(files_below(root), LIVE, SPOOF, ATTACK)
        if placed:
            return "liveness"
        raise _wrong(str(root), kind, "a folder with neither")
    folders = {f.name for f in sorted(root.iterdir()) if f.is_dir()}
    known = {
        "gallery": kind == "attribution" and {GALLERY, PROBE} <= folders,
        "ffpp": looks_ffpp(root),
        "celebdf": not folders.isdisjoint(CELEB),
        "dfd": any(f.lower().startswith(("dfd_original", "dfd_manipulated")) for f in folders),
        "dfdc": any((root / f / METADATA).is_file() for f in ("", *folders)),
    }
    found = [k for k, there in known.items() if there]
    if len(found) > 1:
        raise _wrong(str(root), kind, f"several of them ({', '.join(found)})")
    if found:
        return found[0]
    names = files_below(root)
    if plain_tree(names)[0]:
        return "plain"
    raise _wrong(str(root), kind, f"a folder with {len(names)} videos and images and no word on which are real")


def _wrong(path: str, kind: Kind, got: str) -> DataError:
    example = CLIP_PREFIXES[kind][0]
    mend = f"check the path, or name the format in front of it, as in {example}:PATH"
    return DataError(f"data {printable(path)}", expected=_FORMATS[kind], got=got, mend=mend)
