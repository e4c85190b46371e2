"""Gallery and probes for telling which method made a fake, with methods that the gallery does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audit.data.assemble import Progress, printable
from audit.data.clip_files import class_tree, files_below, sources
from audit.data.clip_set import ClipEntry, assemble_clips, chosen, left_aside, missing
from audit.data.clip_tables import GROUPS, read_groups
from audit.data.clips import Clips, linked

GALLERY = "gallery"
PROBE = "probe"


@dataclass(frozen=True, eq=False)
class Attribution:
    """What an attributor is asked (000 §2): of each probe, which clips of the gallery the same method made.

    Attributes:
        gallery, probe: clips with their methods. novel: methods of probes that the gallery does not have, sorted.
        shared: groups that are in gallery and probe both, sorted.
    """

    gallery: Clips
    probe: Clips
    novel: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def shifted(self) -> bool:
        """Whether the probes are of other sources than the gallery: no group is on both sides."""
        return not self.shared

    @property
    def known(self) -> tuple[str, ...]:
        """The gallery's methods, sorted."""
        return self.gallery.methods


def read_gallery(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Attribution:
    """``gallery/<method>/…`` and ``probe/<method>/…`` with videos, photographs, or a folder of frames per video.

    Methods that are only in ``probe/`` are new. A folder ``real`` is a method like the others: the images that nobody
    manipulated. Groups are as in ``read_plain``, joined over both sides, with ``groups.csv``.

    Raises:
        DataError: no such folders, nothing usable on a side, no method on both sides.
    """
    root = Path(root)
    entries: list[ClipEntry] = []
    given, doubled = read_groups(root), 0
    names = files_below(root)
    for side in (GALLERY, PROBE):
        placed, aside = class_tree([n for n in names if _side(n) == side], (), (side,), "")
        nameless = [p.found.name for p in placed if not p.method]
        if nameless or not placed:
            raise missing(root, f"clips in {side}/<method>/", printable(nameless[0]) if nameless else "none",
                          "put each clip into the folder of its method")  # fmt: skip
        entries += [ClipEntry(p.found, p.method, "", p.domain, p.split) for p in placed]
        doubled += aside
    groups = linked({e.found.name: (given[e.found.name],) if e.found.name in given else sources(e.found)
                     for e in entries})  # fmt: skip
    clips = assemble_clips(
        [replace(e, group=groups[e.found.name]) for e in entries],
        root,
        name=root.name,
        source=f"gallery and probes in {root}",
        both=False,
        cropped=cropped,
        grouping="" if given else GROUPS,
        notes=left_aside(doubled),
        progress=progress,
    )
    gallery, probe = clips.where(lambda c: _side(c.id) == GALLERY), clips.where(lambda c: _side(c.id) == PROBE)
    return _attribution(gallery, probe, root)


def split_attribution(clips: Clips, novel: Sequence[str], gallery_share: float = 0.5) -> Attribution:
    """Gallery and probes of any set of fakes: groups go to one side by hash, and new methods to the probes only.

    Genuine clips are left out. No source is on both sides, so that what tells the methods apart is not the source.

    Args:
        novel: methods that the gallery shall not have; may be empty. gallery_share: of the groups, in (0, 1).

    Raises:
        DataError: a method that the data does not have, fewer than two groups, a method without clips on a side.
    """
    fakes = clips.where(lambda c: c.fake)
    place = Path(clips.name)
    hidden = set(chosen(place, "methods", novel, fakes.methods))
    gallery, probe = fakes.split(gallery_share)
    gallery = gallery.where(lambda c: c.method not in hidden)
    for side, half, wanted in (("gallery", gallery, set(fakes.methods) - hidden), ("probe", probe, set(fakes.methods))):
        lost = sorted(wanted - set(half.methods))
        if lost or not wanted:
            raise missing(place, f"clips of every method in the {side}",
                          f"none of {lost[0]}" if lost else "no method that is not new",
                          "add clips of other sources, or change the share of the gallery")  # fmt: skip
    return _attribution(gallery, probe, place)


def _side(name: str) -> str:
    return name.partition("/")[0].lower()


def _attribution(gallery: Clips, probe: Clips, place: Path) -> Attribution:
    if not set(gallery.methods) & set(probe.methods):
        there = [", ".join(half.methods)[:80] or "none" for half in (gallery, probe)]
        raise missing(place, "a method in gallery and probe both", f"{there[0]} in one and {there[1]} in the other",
                      "name the folders of a method alike")  # fmt: skip
    novel = tuple(sorted(set(probe.methods) - set(gallery.methods)))
    shared = tuple(sorted({c.group for c in gallery.clips} & {c.group for c in probe.clips}))
    return Attribution(gallery, probe, novel, shared)
