"""What the controls of a liveness detector share: live faces and presentation attacks, by domain and species."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from audit.clip_audit import ClipAudit, Faces
from audit.contracts import Detector
from audit.data.clips import Clip, Clips
from audit.data.cropping import resized
from audit.errors import DataError, ModelError
from audit.image_model import ImageModel
from audit.measures.scored import Scored
from audit.shifts import Frame, Shift


class LivenessAudit(ClipAudit):
    """Photographs are handed in whole: what is around a face (a phone's edge, a hand) tells an attack as well."""

    task: ClassVar[str] = "liveness"
    kind: ClassVar[Literal["forgery", "liveness", "attribution"]] = "liveness"
    needs: ClassVar[str] = "photographs or videos of live faces and of presentation attacks"

    def prepare(self) -> None:
        """Find out what is wrong with data and models before anything long starts."""
        super().prepare()
        if self.model.frames > 1 and not hasattr(self.model.model, "face_size"):
            raise ModelError(
                "liveness model", expected="`face_size` beside `clip_frames`", got="none",
                mend="say to what size (height, width) photographs are brought",
            )  # fmt: skip
        for fake, words in ((True, "presentation attacks"), (False, "live faces")):
            if not any(c.fake == fake for c in self.clips.clips):
                raise DataError(
                    f"data {self.whole.name}", expected=words, got=f"none among {len(self.clips)} clips",
                    mend="add some, or correct the folders' names",
                )  # fmt: skip

    @cached_property
    def finder(self) -> Detector | None:
        """None: photographs are not cut."""
        return None

    def _face(self, frame: Frame, box: torch.Tensor, clip: Clip) -> Frame:
        del box, clip
        return frame

    def _boxes(self, clip: Clip, at: Sequence[int], frames: Sequence[Frame]) -> list[torch.Tensor | None]:
        del clip, at
        return [torch.tensor([0.0, 0.0, float(f.shape[1]), float(f.shape[0])]) for f in frames]

    def scored(self, model: ImageModel, clips: Clips, shift: Shift | None = None, seed: int = 0) -> Scored:
        """What a model says of every photograph, of the size that it asks for, else one by one in their own size."""
        if hasattr(model.model, "face_size"):
            return super().scored(model, clips, shift, seed)
        key = {
            "model": model.digest, "clips": clips.digest, "shift": None if shift is None else shift.spec(),
            "seed": None if shift is None else seed, "how": [self._how(c) for c in clips.clips[:1]],
        }  # fmt: skip

        def build(folder: Path) -> None:
            scores, rows = [], []
            for i, clip in enumerate(clips.clips):
                found = self._under(clip, shift, seed)
                for frame in found.frames:
                    image = resized(frame, (frame.shape[0], frame.shape[1]))[None].to(torch.uint8)
                    with self.session.asking(model.model):
                        scores.append(float(model.ask(image)[0]))
                    rows.append(clip)
                if self.session_step is not None:
                    self.session_step((i + 1) / len(clips), clip.id)
            np.savez_compressed(
                folder / "scores.npz", scores=np.array(scores, dtype=np.float64),
                labels=np.array([self.label(c) for c in rows], dtype=np.int64),
                clips=np.array([c.id for c in rows], dtype=str), groups=np.array([c.group for c in rows], dtype=str),
                methods=np.array([c.method for c in rows], dtype=str),
                left_out=self.reasons(clips),
            )  # fmt: skip

        return self._read(self.session.artifacts.folder("clip-scores", key, build))

    def _under(self, clip: Clip, shift: Shift | None, seed: int) -> Faces:
        if shift is None:
            return self.faces(clip)
        return self.changed(clip, shift, seed)
