"""What a data set of faces offers: photographs with landmarks, pairs of them, who is who, who is enrolled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from audit.data.scenes import Unreadable
from audit.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One photograph of one person.

    Attributes:
        id: stable, unique in its data set. identity: who it is; empty where nobody knows.
        read: gives uint8 (3, H, W), the same size for all faces of a data set. digest: sha256 of its file.
        landmarks: (5, 2) float32 px (x, y) in what ``read`` gives: eyes, nose, corners of the mouth, left to right as
            the viewer sees them.
        groups: what the data says of the person, such as ``{"age": "over 60"}``.
    """

    id: str
    identity: str
    read: Callable[[], Tensor]
    digest: str
    landmarks: Tensor
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Portraits:
    """Faces, decoded.

    Attributes:
        images: (N, 3, H, W) uint8. landmarks: (N, 5, 2) float32 px. ids, identities: N each.
    """

    images: Tensor
    landmarks: Tensor
    ids: tuple[str, ...]
    identities: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Sequence[int] | Tensor) -> Portraits:
        at = torch.as_tensor(index, dtype=torch.int64)
        chosen = at.tolist()
        return Portraits(
            self.images[at],
            self.landmarks[at],
            tuple(self.ids[i] for i in chosen),
            tuple(self.identities[i] for i in chosen),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    @property
    def digest(self) -> str:
        """sha256 of ids, landmarks and pixels, in order."""
        h = hashlib.sha256("\0".join((*self.ids, *self.identities)).encode())
        h.update(self.landmarks.numpy().tobytes() + self.images.numpy().tobytes())
        return h.hexdigest()


@dataclass(frozen=True, eq=False)
class FacePairs:
    """A data set for face verification.

    Attributes:
        pairs: (P, 2) int64 indices into ``faces``; same: (P,) bool, whether they show one person.
        size: (height, width) px of all photographs. gallery: indices of the enrolled faces, for 1:N; maybe none.
        landmarks_from: who found the landmarks, for the report.
        unreadable: files left out, with the reason. notes: sentences for the report.
    """

    faces: tuple[Face, ...]
    pairs: Tensor
    same: Tensor
    size: tuple[int, int]
    name: str
    source: str
    landmarks_from: str = "the data"
    gallery: tuple[int, ...] = ()
    licence: str = "as stated by the owner of the data"
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [f.id for f in self.faces]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f"data {self.name}", expected="faces with ids of their own", got=f"{twice!r} twice",
                            mend="give each face another id")  # fmt: skip
        if self.pairs.shape != (len(self.same), 2) or self.same.dtype != torch.bool:
            raise DataError(f"data {self.name}", expected="pairs (P, 2) and as many of `same`, bool",
                            got=f"{tuple(self.pairs.shape)}, {tuple(self.same.shape)} {self.same.dtype}",
                            mend="correct them")  # fmt: skip
        if len(self.pairs) and not 0 <= int(self.pairs.min()) <= int(self.pairs.max()) < len(ids):
            raise DataError(f"data {self.name}", expected=f"pairs of faces 0 to {len(ids) - 1}",
                            got=f"face {int(self.pairs.max())}", mend="correct the pairs")  # fmt: skip

        who = [f.identity or f.id for f in self.faces]
        for (a, b), same in zip(self.pairs.tolist(), self.same.tolist(), strict=True):
            if (who[a] == who[b]) != same:
                raise DataError(f"data {self.name}", expected="pairs of one person to have one identity, and no others",
                                got=f"{ids[a]!r} ({who[a]!r}) and {ids[b]!r} ({who[b]!r}) as "
                                f"{'one person' if same else 'two people'}",
                                mend="correct `same`, or name the identities")  # fmt: skip

    def __len__(self) -> int:
        return len(self.pairs)

    def portraits(self, index: Sequence[int] | Tensor) -> Portraits:
        """The faces of these indices, decoded, in that order."""
        chosen = torch.as_tensor(index, dtype=torch.int64).tolist()
        faces = [self.faces[i] for i in chosen]
        empty = torch.zeros(0, 3, *self.size, dtype=torch.uint8), torch.zeros(0, 5, 2)
        return Portraits(
            torch.stack([f.read() for f in faces]) if faces else empty[0],
            torch.stack([f.landmarks for f in faces]) if faces else empty[1],
            tuple(f.id for f in faces),
            tuple(f.identity for f in faces),
        )

    @property
    def digest(self) -> str:
        """sha256 over ids, identities, groups, image digests, landmarks, pairs and gallery."""
        h = hashlib.sha256(repr((self.size, self.gallery)).encode())
        for f in self.faces:
            h.update(f"{f.id}\0{f.identity}\0{f.digest}\0{sorted(f.groups.items())}\0".encode())
            h.update(f.landmarks.numpy().tobytes())
        h.update(self.pairs.numpy().tobytes() + self.same.numpy().tobytes())
        return h.hexdigest()

    def split(self, craft_share: float, salt: str = "assay") -> tuple[FacePairs, FacePairs]:
        """(craft, held out) with no person on both sides: an identity goes where the sha256 of its name says.

        Pairs across the split are dropped, and a note says how many.

        Raises:
            DataError: fewer than two people.
        """
        rank = {name: _unit(f"{salt}\0{name}") for name in {f.identity or f.id for f in self.faces}}
        if len(rank) < 2:
            raise DataError(f"data {self.name}", expected="at least two people", got=str(len(rank)),
                            mend="add faces of other people")  # fmt: skip
        order = sorted(rank, key=lambda n: rank[n])
        chosen = {n for n in order if rank[n] < craft_share} or {order[0]}
        if len(chosen) == len(order):
            chosen.discard(order[-1])
        side = torch.tensor([(f.identity or f.id) in chosen for f in self.faces])
        both = side[self.pairs] if len(self.pairs) else torch.zeros(0, 2, dtype=torch.bool)
        across = int((both[:, 0] != both[:, 1]).sum())
        note = (f"{across} of {len(self)} pairs joined people of both sides of the split and were dropped",) * bool(
            across
        )
        parts = []
        for wanted in (True, False):
            keep = (both == wanted).all(1)
            part = self._only(torch.nonzero(side == wanted)[:, 0].tolist(), self.pairs[keep], self.same[keep])
            parts.append(replace(part, notes=self.notes + note))
        return parts[0], parts[1]

    def sample(self, limit: int, seed: int) -> FacePairs:
        """At most ``limit`` pairs of one person and as many of two, chosen by hash of ids and seed; all faces stay.

        As many of either kind: an accuracy over a hundred strangers to one friend says what is said to strangers.
        """
        keep: list[int] = []
        kinds = [int((self.same == same).sum()) for same in (True, False)]
        limit = min(limit, *(k for k in kinds if k)) if any(kinds) else limit
        for same in (True, False):
            rows = torch.nonzero(self.same == same)[:, 0].tolist()
            name = {i: "\0".join(self.faces[j].id for j in self.pairs[i].tolist()) for i in rows}
            keep += sorted(rows, key=lambda i: _unit(f"{seed}\0{name[i]}"))[:limit]
        at = torch.tensor(sorted(keep), dtype=torch.int64)
        return replace(self, pairs=self.pairs[at], same=self.same[at])

    def _only(self, faces: Sequence[int], pairs: Tensor, same: Tensor) -> FacePairs:
        new = {old: i for i, old in enumerate(faces)}
        moved = torch.tensor([[new[a], new[b]] for a, b in pairs.tolist()], dtype=torch.int64).reshape(-1, 2)
        gallery = tuple(new[i] for i in self.gallery if i in new)
        return replace(self, faces=tuple(self.faces[i] for i in faces), pairs=moved, same=same.clone(), gallery=gallery)


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
