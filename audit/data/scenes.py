"""Scenes: images with boxes, read lazily, split by group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor

from audit.errors import DataError


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and what is to be found in it.

    Attributes:
        id: unique name in its set. group: what must not cross the split (a video, a person, a source image).
        size: (height, width) in pixels after EXIF orientation.
        boxes: (K, 4) float32 xyxy px. labels: (K,) int64 index into ``Scenes.classes``.
        ignore: (K,) bool; an ignored object is neither missed nor a false alarm (crowds, difficult, too small).
        subsets: name -> (K,) bool, e.g. WIDER's ``easy``, ``medium``, ``hard``.
        digest: sha256 of the image file's bytes (or of the pixels of a built image).
        load: gives the image as uint8 RGB (3, height, width).
        areas: (K, 4, 2) float32 (x, y) px, where on each object a patch is stuck, see ``audit.contracts.Areas``;
            ``None`` where the data names no areas.
        hidden: gives (height, width) uint8, 255 where something stands wholly in front of the areas.
    """

    id: str
    group: str
    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    digest: str
    load: Callable[[], Tensor]
    subsets: Mapping[str, Tensor] = field(default_factory=dict)
    areas: Tensor | None = None
    hidden: Callable[[], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Scenes(Sequence[Scene]):
    """A data set for detectors.

    Attributes:
        labelled_by: ``human``, ``construction`` (boxes known because we placed the objects) or ``self`` (the audited
            model's own confident clean detections).
        unreadable: files left out, with the reason; named in the report.
        targets: labels under attack, where they are named; else those that objects have.
    """

    scenes: tuple[Scene, ...]
    classes: tuple[str, ...]
    name: str
    source: str
    labelled_by: str = "human"
    licence: str = "as stated by the owner of the data"
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for s in self.scenes:
            if s.id in seen or not bool(s.boxes.isfinite().all()):
                raise DataError(
                    f"data {self.name}",
                    expected="scenes with ids of their own and finite boxes",
                    got=f"{s.id!r} twice" if s.id in seen else f"boxes of {s.id!r} that are not finite",
                    mend="give each scene another id" if s.id in seen else "mend or leave out those boxes",
                )
            seen.add(s.id)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> Scenes: ...
    def __getitem__(self, index: int | slice) -> Scene | Scenes:
        if isinstance(index, slice):
            return replace(self, scenes=self.scenes[index])
        return self.scenes[index]

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[Scene]:
        return iter(self.scenes)

    @property
    def objects(self) -> int:
        """Number of objects that count (not ignored)."""
        return sum(int((~s.ignore).sum()) for s in self.scenes)

    @property
    def digest(self) -> str:
        """sha256 over classes and, in order of id, ids, groups, image digests, boxes, labels, flags,
        subsets, areas and what hides them.
        """
        h = hashlib.sha256()
        h.update("\0".join(self.classes).encode() + repr(self.targets).encode() * bool(self.targets))
        for s in sorted(self.scenes, key=lambda s: s.id):
            h.update(f"{s.id}\0{s.group}\0{s.digest}\0{len(s.boxes)}\0".encode())
            h.update(s.boxes.numpy().tobytes() + s.labels.numpy().tobytes() + s.ignore.numpy().tobytes())
            for name, chosen in sorted(s.subsets.items()):
                h.update(name.encode() + b"\0" + chosen.numpy().tobytes())
            if s.areas is not None:
                h.update(b"areas\0" + s.areas.numpy().tobytes())
            if s.hidden is not None:
                h.update(b"hidden\0" + s.hidden().numpy().tobytes())
        return h.hexdigest()

    def split(self, craft_share: float, salt: str = "assay") -> tuple[Scenes, Scenes]:
        """(craft, held out): a scene goes where the sha256 of its group says, whatever its order or company.

        A group's hash, read as a number in [0, 1), is compared with ``craft_share``. Where one side would be empty,
        the groups are ranked by the same hash and at least one goes to each side.

        Raises:
            DataError: fewer than two groups, so that no split can keep them apart.
        """
        rank = {g: _unit(f"{salt}\0{g}") for g in {s.group for s in self.scenes}}
        if len(rank) < 2:
            raise DataError(
                f"data {self.name}",
                expected="at least two groups of images, one to craft on and one to measure on",
                got=f"{len(rank)} ({len(self)} images)",
                mend="add images of another source, or give each image a group of its own",
            )
        order = sorted(rank, key=lambda g: rank[g])
        chosen = {g for g in order if rank[g] < craft_share} or {order[0]}
        if len(chosen) == len(order):
            chosen.discard(order[-1])
        craft = tuple(s for s in self.scenes if s.group in chosen)
        held_out = tuple(s for s in self.scenes if s.group not in chosen)
        return replace(self, scenes=craft), replace(self, scenes=held_out)

    def sample(self, limit: int, seed: int) -> Scenes:
        """At most ``limit`` scenes, chosen by hash of id and seed, never the first ones."""
        if len(self) <= limit:
            return self
        order = sorted(self.scenes, key=lambda s: _unit(f"{seed}\0{s.id}"))
        return replace(self, scenes=tuple(sorted(order[:limit], key=lambda s: s.id)))

    def for_classes(self, model_classes: Sequence[str], wanted: Sequence[str] | None = None) -> Scenes:
        """The same scenes with labels as indices into ``model_classes``; other objects become ignored, with label -1.

        Names are compared without regard to case, spaces, hyphens and underscores.

        Raises:
            DataError: no object of the data has a class that the model knows (or that ``wanted`` names), or ``wanted``
            names a class that the model does not have.
        """
        index = {plain(c): i for i, c in enumerate(model_classes)}
        strange = [c for c in wanted or () if plain(c) not in index]
        if strange:
            raise DataError(
                "`targets` of the profile",
                expected=f"classes of the model ({', '.join(list(model_classes)[:8])})",
                got=repr(strange[0]),
                mend="correct the name, or leave `targets` out",
            )
        keep = {plain(c) for c in wanted} if wanted is not None else set(index)
        table = torch.tensor(
            [index.get(plain(c), -1) if plain(c) in keep else -1 for c in self.classes], dtype=torch.int64
        )
        out = []
        for s in self.scenes:
            labels = table[s.labels] if len(s.labels) else s.labels
            out.append(replace(s, labels=labels, ignore=s.ignore | (labels < 0)))
        targets = tuple(sorted(index[plain(c)] for c in wanted or ()))
        new = replace(self, scenes=tuple(out), classes=tuple(model_classes), targets=targets)
        if new.objects == 0:
            raise DataError(
                f"data {self.name}",
                expected=f"objects of class {', '.join(wanted or list(model_classes)[:5])}",
                got=f"classes {', '.join(self.classes[:5]) or 'none'} with {self.objects} usable objects",
                mend="point --audit-data to data of that class or set `targets` in the profile",
            )
        return new

    def smaller_ignored(self, pixels: float) -> Scenes:
        """Objects whose shorter side is under ``pixels`` are ignored: nobody wears a patch of three pixels."""
        out = []
        for s in self.scenes:
            side = (s.boxes[:, 2:] - s.boxes[:, :2]).amin(1) if len(s.boxes) else torch.zeros(0)
            out.append(replace(s, ignore=s.ignore | (side < pixels)))
        return replace(self, scenes=tuple(out))


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def plain(name: str) -> str:
    """A class name without case, spaces, hyphens and underscores, as names are compared."""
    return name.lower().replace(" ", "").replace("-", "").replace("_", "")
