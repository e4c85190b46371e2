"""Which images belong together, so that they never stand on both sides of the split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from audit.data.scenes import Scene, Scenes
from audit.errors import DataError

_FRAME = re.compile(r"^(.*?)[ ._\-]*(?:frame)?[ ._\-]*\d+$", re.IGNORECASE | re.DOTALL)


def grouped(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    """Scenes whose groups are joined where they share an exact copy of a file, by digest.

    A joined group has the name, first in the alphabet, of those it joins.
    """
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for s in scenes:
        a, b = sorted((root(s.group), root(first.setdefault(s.digest, s.group))))
        parent[b] = a
    return tuple(s if root(s.group) == s.group else replace(s, group=root(s.group)) for s in scenes)


def group_by(scenes: Scenes, rule: str) -> Scenes:
    """The same scenes in other groups.

    Args:
        rule: ``image``: each file by itself (exact copies together). ``folder``: the folder that a file lies in, one
            per person, event or video. ``video``: the name without its frame number, so that ``street_000123.jpg`` and
            ``street_000124.jpg`` are one group, folders kept apart; names that are numbers only fall to their folder.

    Raises:
        DataError: another rule.
    """
    if rule == "image":
        regrouped = [replace(s, group=own_group(s.digest)) for s in scenes]
    elif rule == "folder":
        regrouped = [replace(s, group=f"folder:{PurePosixPath(s.id).parent}") for s in scenes]
    elif rule == "video":
        regrouped = [replace(s, group=f"video:{_video(s.id)}") for s in scenes]
    else:
        raise DataError("group_by", expected="image, folder or video", got=repr(rule), mend="choose one of these rules")
    return replace(scenes, scenes=grouped(regrouped))


def own_group(digest: str) -> str:
    """The group of an image that belongs to nothing else. From its content, so that renaming moves no image across."""
    return f"image:{digest[:16]}"


def _video(name: str) -> str:
    path = PurePosixPath(name)
    found = _FRAME.match(path.stem)
    return str(path.parent / (found[1] if found else path.stem))


def side_of(groups: Iterable[str], craft_share: float, name: str, salt: str = "assay") -> dict[str, bool]:
    """Group -> whether it is on the craft side: it goes where the sha256 of its name says, and neither side is empty.

    Raises:
        DataError: fewer than two groups. ``name``: of the data, for the error.
    """
    rank = {g: hashlib.sha256(f"{salt}\0{g}".encode()).digest() for g in groups}
    if len(rank) < 2:
        raise DataError(f"data {name}", expected="at least two groups of what belongs together", got=str(len(rank)),
                        mend="add videos or photographs of other sources")  # fmt: skip
    order = sorted(rank, key=lambda g: rank[g])
    chosen = {g for g in order if int.from_bytes(rank[g][:8], "big") / 2**64 < craft_share} or {order[0]}
    if len(chosen) == len(order):
        chosen.discard(order[-1])
    return {g: g in chosen for g in order}
