"""What the audits share that are about videos and photographs of faces: data, models, faces cut out, and scores."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from audit import data as datasets
from audit.contracts import Detector
from audit.data.clips import Clip, Clips, evenly
from audit.data.cropping import cut, face_boxes, resized, scaled, square
from audit.errors import DataError, ModelError
from audit.image_model import ImageModel
from audit.labelled import Labelled
from audit.measures.scored import Scored
from audit.other_models import audited_image_model, other_image_models
from audit.record import Data, Diagnostic, Unreadable, digest
from audit.shifts import Frame, Shift
from audit.state import frozen, modules_of, state_digest
from audit.tasks import told
from audit.tiny import tiny_images
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.session import AuditSession

_MEMORY = 256 << 20
"""Bytes of cut-out faces that a process keeps."""
LEFT_OUT = 0.1
"""Share of clips that may be left out, unreadable or without a face, before no pass stands on the rest."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one clip as they were cut out.

    Attributes:
        indices: their frame numbers; maybe none. frames: uint8 (H, W, 3) each. boxes: (4,) xyxy px in the frame each.
    """

    clip: Clip
    indices: tuple[int, ...]
    frames: list[Frame] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)


class ClipAudit:
    """Computed once and shared by all controls of a run; a subclass says which data and task.

    Faces are found in the clip as it is, and looked for in the same place whatever was done to its quality: a face
    that a shift hides from the face detector would leave the count, and make the shift look harmless.
    """

    task: ClassVar[str]
    kind: ClassVar[Literal["forgery", "liveness", "attribution"]]
    needs: ClassVar[str]

    def __init__(self, session: AuditSession) -> None:
        self.session = session
        self.left_out: dict[str, str] = {}
        self._kept: OrderedDict[str, Faces] = OrderedDict()

    def prepare(self) -> None:
        """Find out what is wrong with data and models before anything long starts."""
        _ = self.clips, self.model, self.surrogates, self.finder

    # --- data and models

    @cached_property
    def whole(self) -> Clips:
        """All of the data."""
        session, subject = self.session, self.session.subject
        if session.options.data is not None:
            kind: Literal["forgery", "liveness"] = "liveness" if self.kind == "liveness" else "forgery"
            return datasets.open_clips(session.options.data, kind=kind)
        if subject.data_fn is None:
            raise DataError(
                "--audit-data", expected=self.needs, got="nothing",
                mend=f"give a data set with --audit-data PATH ({datasets.CLIP_FORMATS})",
            )  # fmt: skip
        found = subject.data_fn(Path.cwd())
        if not isinstance(found, Clips):
            raise DataError(
                f"data(root) of {subject.path}", expected="audit.data.Clips", got=told(found),
                mend="return what audit.data.open_clips gives",
            )  # fmt: skip
        return found

    @cached_property
    def clips(self) -> Clips:
        """The clips that are judged: those of the official test list where the data has one, cut to the budget."""
        official = self.whole.where(lambda c: c.split == "test")
        return self.sampled(official if len(official) else self.whole)

    def sampled(self, clips: Clips) -> Clips:
        """At most as many clips of each method and domain as the budget has."""
        return clips.sample(self.session.budget.images, self.session.options.seed)

    @cached_property
    def model(self) -> ImageModel:
        """The audited model."""
        return audited_image_model(self.session, self.task)

    @cached_property
    def surrogates(self) -> dict[str, ImageModel]:
        """Every other model of the task that is given, by name; maybe none."""
        return other_image_models(self.session, self.task, "return models of the audited model's task")

    def surrogate_digests(self) -> dict[str, str]:
        """Name -> digest of every other model."""
        digests = {name: s.digest for name, s in self.surrogates.items()}
        return digests if self.finder is None else digests | {"faces(device)": self._finder_digest}

    @cached_property
    def unit(self) -> int:
        """Frames that make whole clips for every model that is asked."""
        return math.lcm(self.model.frames, *(s.frames for s in self.surrogates.values()))

    @cached_property
    def finder(self) -> Detector | None:
        """The model file's detector of faces; ``None`` where it gives none."""
        maker = self.session.subject.faces_fn
        found = None if maker is None else maker()
        if found is not None and not isinstance(found, Detector):
            raise ModelError(
                f"faces(device) of {self.session.subject.path}",
                expected="a detector of faces (classes, score_threshold, a call that returns Detections)",
                got=told(found), mend="return one of audit.adapters' detectors",
            )  # fmt: skip
        if found is None and any(not c.cropped and c.boxes is None for c in self.clips.clips):
            raise DataError(
                f"data {self.whole.name}",
                expected="faces cut out already, boxes.csv with their places, or a detector that finds them",
                got="whole frames and nothing that finds faces in them",
                mend="add `def faces(device)` to the model file that returns a detector of faces",
            )
        return found

    # --- faces

    def faces(self, clip: Clip) -> Faces:
        """The faces of a clip in evenly spread frames, cut out of them as they are.

        A clip that cannot be read, or in which no face is found, gives none, and is named in ``left_out``.
        """
        if clip.id not in self._kept:
            self._kept[clip.id] = self._cut(clip)
            while len(self._kept) > 1 and sum(_bytes(f) for f in self._kept.values()) > _MEMORY:
                self._kept.popitem(last=False)
        self._kept.move_to_end(clip.id)
        return self._kept[clip.id]

    def shown(self, clip: Clip, shift: Shift | None, seed: int, size: tuple[int, int]) -> tuple[Tensor, list[int]]:
        """The faces of a clip under a shift: (T, 3, *size) uint8, and their frame numbers; T may be 0."""
        key = {
            "clip": clip.digest, "id": clip.id, "shift": None if shift is None else shift.spec(), "size": list(size),
            "seed": None if shift is None else seed, "how": self._how(clip),
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = self.faces(clip) if shift is None else self.changed(clip, shift, seed)
            frames = found.frames
            images = torch.stack([resized(f, size) for f in frames]) if frames else torch.zeros(0, 3, *size)
            np.savez_compressed(
                folder / "faces.npz", images=images.to(torch.uint8).numpy(), at=np.array(found.indices, dtype=np.int64),
                left_out=np.array(self.left_out.get(clip.id, "")),
            )  # fmt: skip

        folder = self.session.artifacts.folder("faces-of-clips", key, build)
        with np.load(folder / "faces.npz") as file:
            reason = str(file["left_out"])
            if reason:
                self.left_out[clip.id] = reason
            return torch.from_numpy(file["images"]), file["at"].tolist()

    def changed(self, clip: Clip, shift: Shift, seed: int) -> Faces:
        """The faces of a clip under a shift, before they are resized for a model."""
        if shift.level == "video":
            return self._shifted(clip, shift, seed)
        found = self.faces(clip)
        if not found.frames:
            return found
        return replace(found, frames=shift.apply(found.frames, fps=0.0, seed=_seed(seed, clip.id)))

    def labelled(
        self, clips: Clips, shift: Shift | None = None, seed: int = 0, model: ImageModel | None = None
    ) -> Labelled:
        """Every face of the clips, labelled 1 where the clip is fake (of a liveness detector, where it is live)."""
        judge = model or self.model
        parts, ids, groups, names, labels = [], [], [], [], []
        for i, clip in enumerate(clips.clips):
            images, at = self.shown(clip, shift, seed, judge.size)
            keep = len(at) // judge.frames * judge.frames
            if at and not keep and judge is self.model:
                self.left_out[clip.id] = f"{len(at)} faces, and the model judges clips of {judge.frames}"
            parts.append(images[:keep])
            ids += [f"{clip.id}#{k}" for k in at[:keep]]
            groups += [clip.group] * keep
            names += [clip.id] * keep
            labels += [self.label(clip)] * keep
            if self.session_step is not None:
                self.session_step((i + 1) / len(clips), f"faces of {clip.id}")
        images = torch.cat(parts) if parts else torch.zeros(0, 3, *judge.size, dtype=torch.uint8)
        made = Labelled(images, torch.tensor(labels, dtype=torch.int64), tuple(ids), tuple(groups), tuple(names))
        self._made_of[made.ids] = clips
        return made

    @cached_property
    def _made_of(self) -> dict[tuple[str, ...], Clips]:
        """Names of faces -> the clips that they were looked for in."""
        return {}

    session_step: Any = None
    """Told of progress while faces are cut out."""

    def label(self, clip: Clip) -> int:
        """1 or 0, as the model's task has it."""
        return int(clip.fake) if self.task == "forgery" else int(not clip.fake)

    # --- scores

    def scored(self, model: ImageModel, clips: Clips, shift: Shift | None = None, seed: int = 0) -> Scored:
        """What a model says of every face of the clips; computed once for all controls and processes."""
        key = {
            "model": model.digest, "clips": clips.digest, "shift": None if shift is None else shift.spec(),
            "seed": None if shift is None else seed, "how": [self._how(c) for c in clips.clips[:1]],
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = self.labelled(clips, shift, seed, model)
            with self.session.asking(model.model):
                scores = model.ask(found.images)
            names = {c.id: c.method for c in clips.clips}
            methods = [names[c] for c in found.clips]
            np.savez_compressed(
                folder / "scores.npz", scores=scores, labels=found.labels.numpy(),
                clips=np.array(found.clips, dtype=str),
                groups=np.array(found.groups, dtype=str), methods=np.array(methods, dtype=str),
                left_out=self.reasons(clips),
            )  # fmt: skip

        return self._read(self.session.artifacts.folder("clip-scores", key, build))

    def _read(self, folder: Path) -> Scored:
        with np.load(folder / "scores.npz") as file:
            self.left_out |= {str(k): str(v) for k, v in file["left_out"]}
            return Scored(
                file["scores"], file["labels"], tuple(file["clips"].tolist()), tuple(file["groups"].tolist()),
                tuple(file["methods"].tolist()),
            )  # fmt: skip

    def reasons(self, clips: Clips) -> Any:
        """(L, 2) id and reason of those of the clips that were left out."""
        rows = [[c.id, self.left_out[c.id]] for c in clips.clips if c.id in self.left_out]
        return np.array(rows, dtype=str).reshape(-1, 2)

    def tell_of(self, trial: Trial, faces: Labelled) -> None:
        """``tell_left_out`` for the clips that these faces were looked for in."""
        if faces.ids in self._made_of:
            self.tell_left_out(trial, self._made_of[faces.ids])

    def tell_left_out(self, trial: Trial, clips: Clips) -> None:
        """Clips that could not be used stand beside a number; with too many of one method no pass stands on it."""
        out = {str(i): str(why) for i, why in self.reasons(clips)}
        if out:
            trial.details["clips left out"] = counted(out)
        kinds: dict[str, list[bool]] = {}
        for c in clips.clips:
            kinds.setdefault(c.method, []).append(c.id in out)
        share = max((sum(k) / len(k) for k in kinds.values()), default=0.0)
        trial.diagnostics.append(
            Diagnostic(
                name="clips left out",
                value=share,
                limit=LEFT_OUT,
                raised=share > LEFT_OUT,
                meaning=f"{len(out)} of {len(clips)} clips could not be read or show too few faces; the number is the "
                "largest share of a method, and above the limit what is left of it may be another population",
            )
        )

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        whole, used = self.whole, self.clips
        counts: dict[str, int] = {}
        for c in used.clips:
            counts[c.method or whole.genuine] = counts.get(c.method or whole.genuine, 0) + 1
        told_of = ", ".join(f"{n} {m}" for m, n in sorted(counts.items()))
        b = self.session.budget
        return [
            Data(
                name=whole.name,
                source=whole.source,
                labelled_by="human",
                licence=whole.licence,
                digest=whole.digest,
                images=len(whole),
                objects=len({c.group for c in whole.clips}),
                craft_images=self.craft_count,
                held_out_images=len(used),
                chosen=f"{told_of}; at most {b.images} of each by seed {self.session.options.seed}, "
                f"{b.frames} frames of each",
                unreadable=[Unreadable(name=u.name, reason=u.reason) for u in whole.unreadable],
                notes=list(whole.notes),
            )
        ]

    @property
    def craft_count(self) -> int:
        """Clips that something is trained on."""
        return 0

    # --- inside

    def _indices(self, clip: Clip) -> list[int]:
        frames = -(-self.session.budget.frames // self.unit) * self.unit
        return evenly(min(clip.footage.count, self.session.profile.data.clip_frames), frames)

    def _how(self, clip: Clip) -> dict[str, Any]:
        data = self.session.profile.data
        return {
            "frames": self.session.budget.frames, "clip": self.unit, "of": data.clip_frames,
            "margin": data.margin, "finder": self._finder_digest, "cropped": clip.cropped,
        }  # fmt: skip

    @cached_property
    def _finder_digest(self) -> str:
        finder, device = self.finder, self.session.execution.device
        if finder is None:
            return ""
        files = []
        for file in sorted(str(f) for f in getattr(finder, "files", ())):
            with Path(file).open("rb") as stream:
                files.append(hashlib.file_digest(stream, "sha256").hexdigest())
        with frozen(modules_of(finder)):
            found = self.session.execution.detect(finder, tiny_images((256, 320), device))
        # rounded: two processes on a GPU may differ in the last bits
        said = [[(d.scores * 1e3).round().tolist(), d.boxes.round().tolist()] for d in found]
        return digest([state_digest(modules_of(finder)), files, list(finder.classes), finder.score_threshold, said])

    def _cut(self, clip: Clip) -> Faces:
        try:
            at = self._indices(clip)
            frames = clip.footage.read(at)
            boxes = self._boxes(clip, at, frames)
        except DataError as error:
            self.left_out[clip.id] = str(error)
            return Faces(clip, ())
        seen = [(i, frame, box) for i, frame, box in zip(at, frames, boxes, strict=True) if box is not None]
        if not seen:
            self.left_out[clip.id] = "no face was found in it"
        cuts = [self._face(frame, box, clip) for _, frame, box in seen]
        return Faces(clip, tuple(i for i, _, _ in seen), cuts, [box for _, _, box in seen])

    def _boxes(self, clip: Clip, at: Sequence[int], frames: Sequence[Frame]) -> list[Tensor | None]:
        with frozen(modules_of(self.finder) if self.finder is not None else []):
            return face_boxes(clip, at, frames, self.finder, device=self.session.execution.device)

    def _face(self, frame: Frame, box: Tensor, clip: Clip) -> Frame:
        return frame if clip.cropped else cut(frame, square(box, self.session.profile.data.margin))

    def _shifted(self, clip: Clip, shift: Shift, seed: int) -> Faces:
        """The same faces, cut out of the whole clip after the shift."""
        found = self.faces(clip)
        if not found.indices:
            return found
        try:
            return self._changed_whole(clip, found, shift, _seed(seed, clip.id))
        except DataError as error:
            self.left_out[clip.id] = str(error)
            return Faces(clip, ())

    def _changed_whole(self, clip: Clip, found: Faces, shift: Shift, own: int) -> Faces:
        if clip.footage.fps:
            whole = clip.footage.read(list(range(min(clip.footage.count, self.session.profile.data.clip_frames))))
            before = [whole[i] for i in found.indices]
            after = shift.apply(whole, fps=clip.footage.fps, seed=own)
            after = [after[i] for i in found.indices]
        else:
            # stills are no film: each is encoded for itself
            before = clip.footage.read(list(found.indices))
            seeds = [_seed(own, str(i)) for i in found.indices]
            after = [shift.apply([f], fps=0.0, seed=s)[0] for f, s in zip(before, seeds, strict=True)]
        moved = [scaled(box, a.shape, b.shape) for a, b, box in zip(before, after, found.boxes, strict=True)]
        return replace(found, frames=[self._face(f, box, clip) for f, box in zip(after, moved, strict=True)])


def _bytes(faces: Faces) -> int:
    return sum(f.nbytes for f in faces.frames)


def _seed(seed: int, name: str) -> int:
    return int(digest([seed, name])[:15], 16)


def counted(left_out: Mapping[str, str], limit: int = 20) -> dict[str, str]:
    """The clips left out with their reasons, for a record: the first so many, and how many more."""
    names = sorted(left_out)
    shown = {n: left_out[n] for n in names[:limit]}
    return shown | ({"…": f"{len(names) - limit} more"} if len(names) > limit else {})
