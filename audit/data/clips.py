"""What a data set of videos and photographs that are genuine or not offers: clips, their method, source and domain."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from audit.data.groups import side_of
from audit.data.scenes import Unreadable
from audit.errors import DataError
from audit.shifts import Frame

GENUINE = ""
"""The method of what nobody manipulated."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How footage was compressed, read from its file; ``None`` where the file does not say.

    Attributes:
        codec: such as ``h264`` or ``jpeg``. bits_per_pixel: of the stream, over all its frames. quantiser: mean over
            the frames that were looked at. size: (height, width) px.
    """

    codec: str
    bits_per_pixel: float | None
    quantiser: float | None
    size: tuple[int, int]


class Footage(Protocol):
    """The frames of one clip, decoded when they are wanted."""

    @property
    def count(self) -> int:
        """Frames."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second; 0 where the frames are stills."""
        ...

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """uint8 (H, W, 3) RGB each, in the order of the (rising) indices."""
        ...

    def compression(self) -> Compression:
        """What the file says of how it was compressed."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One video, the stills of one, or one photograph.

    Attributes:
        id: unique in its data set. method: how it was manipulated or what is held before the camera; ``GENUINE`` where
            it is real or live. group: what must not be on both sides of a split: clips that share a source.
        domain: the data set, camera or quality that it comes from; empty where there is one only.
        split: ``train``, ``val``, ``test`` as the data's official lists say; empty where they say nothing.
        footage: its frames. digest: sha256 of its files.
        boxes: frame number -> (4,) xyxy px of the face, where the data says; ``None`` where it does not.
        cropped: whether frames are faces cut out already.
    """

    id: str
    method: str
    group: str
    footage: Footage
    digest: str
    domain: str = ""
    split: str = ""
    boxes: Callable[[int], Tensor | None] | None = None
    cropped: bool = False

    @property
    def fake(self) -> bool:
        """Whether somebody manipulated it."""
        return self.method != GENUINE


@dataclass(frozen=True, eq=False)
class Clips:
    """A data set of clips.

    Attributes:
        genuine: what the data calls what nobody manipulated: ``real``, ``live``.
        unreadable: files left out, with the reason. notes: sentences for the report.
    """

    clips: tuple[Clip, ...]
    name: str
    source: str
    genuine: str = "real"
    licence: str = "as stated by the owner of the data"
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [c.id for c in self.clips]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f"data {self.name}", expected="clips with ids of their own", got=f"{twice!r} twice",
                            mend="give each clip another id")  # fmt: skip

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the clips that somebody manipulated, sorted."""
        return tuple(sorted({c.method for c in self.clips if c.fake}))

    @property
    def domains(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted({c.domain for c in self.clips}))

    def where(self, keep: Callable[[Clip], bool]) -> Clips:
        """The clips for which ``keep`` holds."""
        return replace(self, clips=tuple(c for c in self.clips if keep(c)))

    def split(self, craft_share: float) -> tuple[Clips, Clips]:
        """(craft, held out) with no group on both sides, by hash of the group.

        Raises:
            DataError: fewer than two groups.
        """
        sides = side_of({c.group for c in self.clips}, craft_share, self.name)
        return self.where(lambda c: sides[c.group]), self.where(lambda c: not sides[c.group])

    def sample(self, limit: int, seed: int) -> Clips:
        """At most ``limit`` clips of each method and domain, genuine ones included, chosen by hash of id and seed."""

        def rank(c: Clip) -> bytes:
            return hashlib.sha256(f"{seed}\0{c.id}".encode()).digest()

        kept: set[str] = set()
        for kind in {(c.method, c.domain) for c in self.clips}:
            rows = [c for c in self.clips if (c.method, c.domain) == kind]
            kept |= {c.id for c in sorted(rows, key=rank)[:limit]}
        return self.where(lambda c: c.id in kept)

    @property
    def digest(self) -> str:
        """sha256 over ids, methods, groups, domains, splits and the files' digests."""
        h = hashlib.sha256(self.genuine.encode())
        for c in self.clips:
            h.update(f"{c.id}\0{c.method}\0{c.group}\0{c.domain}\0{c.split}\0{c.cropped}\0{c.digest}\0".encode())
        return h.hexdigest()


def linked(pairs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Key -> name of its group, where keys that share any source are one group, by whatever chain.

    Args:
        pairs: clip id -> its sources (``("519", "515")`` for FaceForensics++'s 519_515, ``("519",)`` for 519).
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        above.setdefault(name, name)
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for sources in pairs.values():
        first, *others = [top(f"source {s}") for s in sources]
        for other in others:
            one, two = sorted((top(first), top(other)))
            above[two] = one
    return {key: top(f"source {sources[0]}").removeprefix("source ") for key, sources in pairs.items()}


def evenly(count: int, wanted: int) -> list[int]:
    """``wanted`` frame numbers of ``count`` in equal steps, the middle of each piece; all where there are fewer."""
    n = min(count, wanted)
    return [int((i + 0.5) * count / n) for i in range(n)]
