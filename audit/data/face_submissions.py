"""Attacked faces as they are handed in, ``0001.png`` …, each held against every rule (paper 000 §4.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.alignment import CHIP
from audit.data import png
from audit.data.bundles import Bundle, Unusable, open_bundle, plain
from audit.errors import DataError
from audit.measures.face_rules import FaceRules, RuleCount

Bytes = NDArray[np.uint8]

RULES = ("name", "PNG", "8-bit RGB", f"{CHIP}x{CHIP} px", "regions", "area")
"""The rules on a file, in the order they are looked at. The form and the size are looked at together, and the last two;
otherwise no more is asked once one is broken."""

_STAGE = dict(zip(RULES, (0, 1, 2, 2, 3, 3), strict=True))
_NAME = re.compile(r"([0-9]{4,6})\.png")


@dataclass(frozen=True, slots=True)
class Entry:
    """One attacked face and how it stands to the rules.

    Attributes:
        number: of its pair, such as "0001". broken: the rules broken, each with what was found; a pair that breaks one
            counts as not successful. count: regions and area, ``None`` where they could not be
            counted. sha256: of its file, empty where there is none.
        face, other: (112, 112, 3) uint8 RGB, the attacked face and the one it is to be taken for; ``None`` in a void
            pair, and once the models have seen them.
    """

    number: str
    broken: tuple[tuple[str, str], ...]
    count: RuleCount | None = None
    sha256: str = ""
    face: Bytes | None = None
    other: Bytes | None = None

    @property
    def void(self) -> bool:
        """A rule is broken."""
        return bool(self.broken)

    def seen(self) -> Entry:
        """Without the pictures."""
        return replace(self, face=None, other=None)


@dataclass(frozen=True, eq=False)
class FaceSubmission:
    """A submission beside the originals.

    Attributes:
        numbers: of the pairs to be scored, in order. strange: names in the submission that none of the pairs asks for,
            with why they are left aside, printable.
    """

    submitted: Bundle
    originals: Bundle
    numbers: tuple[str, ...]
    strange: tuple[str, ...]

    @classmethod
    def open(cls, submission: Path, originals: Path, pairs: int | None = None) -> FaceSubmission:
        """Lists both; no picture is read yet.

        Args:
            submission: folder or zip of ``0001.png`` …. originals: folder or zip with these and ``0001_compare.png``
                (or ``0001 compare.png``). pairs: score 0001 to this one; all of the originals if not given.

        Raises:
            DataError: one of them cannot be used, or a pair of the originals is not whole.
        """
        asked, given = open_bundle(originals, "originals"), open_bundle(submission, "submission")
        there = {m[1] for m in map(_NAME.fullmatch, asked.names) if m}
        numbers = sorted(there, key=int) if pairs is None else [f"{i:04d}" for i in range(1, pairs + 1)]
        missing = [f"{n}.png" for n in numbers if n not in there]
        missing += [f"{n}_compare.png" for n in numbers if n in there and _compare(asked, n) is None]
        if missing or not numbers:
            raise DataError(
                f"originals {plain(str(originals))}",
                expected="0001.png … and 0001_compare.png …",
                got=f"no {missing[0]}" + (f" and {len(missing) - 1} more missing" if missing[1:] else "")
                if missing
                else "none of them",
                mend="hand in the competition's own pictures" if pairs is None else "correct them, or --pairs",
            )
        wanted = {f"{n}.png" for n in numbers}
        strange = [f"{plain(n)}: {why}" for n, why in sorted(given.others.items())]
        strange += [f"{plain(n)}: no name that is asked for" for n in sorted(given.names - wanted)]
        return cls(given, asked, tuple(numbers), tuple(strange))

    def entry(self, number: str, rules: FaceRules) -> Entry:
        """One pair, read and judged. Safe to call from several threads.

        Raises:
            DataError: an original cannot be used.
        """
        clean, other = self._original(f"{number}.png"), self._original(_compare(self.originals, number) or "")
        name = f"{number}.png"
        if name not in self.submitted.names:
            return Entry(number, ((RULES[0], self.submitted.others.get(name, "no such file")),))
        try:
            data = self.submitted.read(name)
        except Unusable as error:
            return Entry(number, ((RULES[1], plain(str(error))),))
        digest = hashlib.sha256(data).hexdigest()
        face, broken = _face(data)
        if face is None:
            return Entry(number, broken, sha256=digest)
        apart = face != clean
        count = rules.count(apart[..., 0] | apart[..., 1] | apart[..., 2])  # any(axis=2) takes five times as long
        if not count.ok:
            return Entry(number, count.broken, count, digest)
        return Entry(number, (), count, digest, face, other)

    def _original(self, name: str) -> Bytes:
        try:
            face, broken = _face(self.originals.read(name))
            got = broken[0][1] if broken else ""
        except Unusable as error:
            face, got = None, str(error)
        if face is None:
            raise DataError(
                f"original {plain(str(self.originals.path))}/{name}",
                expected=f"a PNG of {png.form(png.RGB)}, {CHIP}x{CHIP} px",
                got=plain(got),
                mend="hand in the competition's own pictures",
            )
        return face


def outcome(entry: Entry) -> dict[str, bool | None]:
    """Rule -> whether it is kept; ``None`` where it could not be asked because of another."""
    said = {rule for rule, _ in entry.broken}
    last = max((_STAGE[rule] for rule in said), default=len(RULES))
    return {rule: False if rule in said else (_STAGE[rule] <= last or None) for rule in RULES}


def broken_by_rule(entries: Sequence[Entry]) -> dict[str, int]:
    """Rule -> how many files break it, in the order of ``RULES``."""
    names = [rule for e in entries for rule in {rule for rule, _ in e.broken}]
    return {rule: names.count(rule) for rule in RULES}


def _compare(originals: Bundle, number: str) -> str | None:
    names = (f"{number}_compare.png", f"{number} compare.png")
    return next((n for n in names if n in originals.names), None)


def _face(data: bytes) -> tuple[Bytes | None, tuple[tuple[str, str], ...]]:
    """The pixels of a file that keeps the rules on its form, or the rule that it breaks with what was found."""
    head = png.head(data)
    if head is None:
        return None, ((RULES[1], "another kind of file" if data else "an empty file"),)
    broken = []
    if (head.depth, head.kind) != (8, png.RGB):
        broken.append((RULES[2], head.form))
    if (head.width, head.height) != (CHIP, CHIP):
        broken.append((RULES[3], f"{head.width}x{head.height} px"))
    if broken:
        return None, tuple(broken)
    found, reason = png.pixels(data)
    if found is None:
        return None, ((RULES[1], plain(reason)),)
    return found, ()
