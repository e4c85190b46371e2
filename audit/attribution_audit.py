"""What the controls of an attributor share: gallery, probes and their features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from audit import data as datasets
from audit.clip_audit import ClipAudit
from audit.data.attribution_sets import Attribution, split_attribution
from audit.data.clips import Clips
from audit.errors import DataError, ModelError
from audit.image_model import ImageModel
from audit.record import Data
from audit.shifts import Shift
from audit.tasks import told

REAL = "real"
"""What faces that nobody manipulated are called as a method of the gallery."""


@dataclass(frozen=True, eq=False)
class Features:
    """(N, D) features of N faces, with the method, the source and the clip of each."""

    rows: NDArray[np.float64]
    methods: tuple[str, ...]
    groups: tuple[str, ...]
    clips: tuple[str, ...]

    def where(self, keep: NDArray[np.bool_]) -> Features:
        """The faces for which ``keep`` (N,) holds."""
        at = np.flatnonzero(keep).tolist()
        parts = (tuple(x[i] for i in at) for x in (self.methods, self.groups, self.clips))
        return Features(self.rows[at], *parts)


class AttributionAudit(ClipAudit):
    """Computed once and shared by all controls of a run."""

    task: ClassVar[str] = "attributor"
    kind: ClassVar[Literal["forgery", "liveness", "attribution"]] = "attribution"
    needs: ClassVar[str] = "fakes of several methods, as gallery and probes"

    @cached_property
    def sides(self) -> Attribution:
        """Gallery and probes, each cut to the budget; whole groups on one side where the data are split here."""
        session, subject = self.session, self.session.subject
        novel = list(session.profile.data.novel)
        if session.options.data is not None:
            found = datasets.open_clips(session.options.data, kind="attribution", novel=novel)
        elif subject.data_fn is not None:
            given = subject.data_fn(Path.cwd())
            found = split_attribution(given, novel) if isinstance(given, Clips) else given
            if not isinstance(found, Attribution):
                raise DataError(f"data(root) of {subject.path}", expected="audit.data.Clips or audit.data.Attribution",
                                got=told(given), mend="return what audit.data.open_clips gives")  # fmt: skip
        else:
            raise DataError("--audit-data", expected=self.needs, got="nothing",
                            mend=f"give a data set with --audit-data PATH ({datasets.CLIP_FORMATS})")  # fmt: skip
        return Attribution(self.sampled(found.gallery), self.sampled(found.probe), found.novel, found.shared)

    @cached_property
    def whole(self) -> Clips:
        """Gallery and probes together."""
        return self.clips

    @cached_property
    def clips(self) -> Clips:
        """Gallery and probes together, their ids told apart by side."""
        g, p = self.sides.gallery, self.sides.probe
        names = {c.id for c in g.clips}
        both = {c.id for c in p.clips if c.id in names}
        if both:
            raise DataError(f"data {g.name}", expected="clips that are in the gallery or among the probes, not both",
                            got=min(both), mend="give each clip one name")  # fmt: skip
        unreadable = tuple(dict.fromkeys((*g.unreadable, *p.unreadable)))
        notes = tuple(dict.fromkeys((*g.notes, *p.notes)))
        return Clips((*g.clips, *p.clips), g.name, g.source, "genuine", g.licence, unreadable, notes)

    def features(self, clips: Clips, shift: Shift | None = None, seed: int = 0) -> Features:
        """What the attributor says of every face of the clips.

        Raises:
            ModelError: it answers with another shape, or with values that are not finite.
        """
        key = {
            "clips": clips.digest, "shift": None if shift is None else shift.spec(),
            "seed": None if shift is None else seed, "how": [self._how(c) for c in clips.clips[:1]],
        }  # fmt: skip

        def build(folder: Path) -> None:
            found = self.labelled(clips, shift, seed)
            t, out = self.model.frames, []
            step = max(32 // t, 1) * t
            with self.session.asking(self.model.model), torch.inference_mode():
                for i in range(0, len(found), step):
                    images = found.images[i : i + step].to(self.model.device).float() / 255
                    out.append(self.model.outputs(images)[::t].float().cpu())
            found = found[torch.arange(0, len(found), t)]  # one row for each clip of t frames
            rows = torch.cat(out).double().numpy() if out else np.zeros((0, 1))
            if rows.ndim != 2 or len(rows) != len(found) or not np.isfinite(rows).all():
                raise ModelError(
                    "attributor",
                    expected=f"{len(found)} finite rows of features",
                    got=f"shape {rows.shape}",
                    mend="mend the model or its adapter; nothing was counted",
                )
            methods = {c.id: c.method or REAL for c in clips.clips}
            np.savez_compressed(
                folder / "features.npz", rows=rows, groups=np.array(found.groups, dtype=str),
                clips=np.array(found.clips, dtype=str), methods=np.array([methods[c] for c in found.clips], dtype=str),
                left_out=self.reasons(clips),
            )  # fmt: skip

        with np.load(self.session.artifacts.folder("features", key, build) / "features.npz") as file:
            self.left_out |= {str(k): str(v) for k, v in file["left_out"]}
            return Features(file["rows"], tuple(file["methods"].tolist()), tuple(file["groups"].tolist()),
                            tuple(file["clips"].tolist()))  # fmt: skip

    @cached_property
    def surrogates(self) -> dict[str, ImageModel]:
        """None: attribution is not attacked through other models."""
        return {}

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        found, sides = super().data_records(), self.sides
        said = f"{len(sides.gallery)} clips in the gallery, {len(sides.probe)} probes"
        new = f"; new methods: {', '.join(sides.novel)}" if sides.novel else "; no new method among the probes"
        shared = "" if sides.shifted else f"; {len(sides.shared)} sources are on both sides"
        return [d.model_copy(update={"chosen": f"{said}{new}{shared}; {d.chosen}"}) for d in found]
