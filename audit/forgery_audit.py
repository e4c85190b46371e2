"""What the controls of a forgery detector share: clips, faces under shifts, scores, its word on clean ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from audit.clip_audit import ClipAudit
from audit.data.clips import GENUINE, Clip, Clips, Compression
from audit.errors import DataError
from audit.labelled import Labelled
from audit.measures.confounders import Confounders, compressions, confounders
from audit.measures.intervals import Resampling
from audit.measures.roc import auc
from audit.preconditions import why_not_attacked

Side = Literal["fake", "real"]


class ForgeryAudit(ClipAudit):
    """Computed once and shared by all controls of a run."""

    task: ClassVar[str] = "forgery"
    kind: ClassVar[Literal["forgery", "liveness", "attribution"]] = "forgery"
    needs: ClassVar[str] = "videos or photographs of faces, real ones and manipulated ones"

    def prepare(self) -> None:
        """Find out what is wrong with data and models before anything long starts."""
        super().prepare()
        for fake, words in ((True, "manipulated"), (False, "real")):
            if not any(c.fake == fake for c in self.clips.clips):
                raise DataError(
                    f"data {self.whole.name}", expected=f"clips that are {words}",
                    got=f"none among {len(self.clips)}", mend="add some, or correct the folders' names",
                )  # fmt: skip

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """Methods of the data that the model file says the detector was trained on; all where it says nothing of them.

        They make the in-domain cell.
        """
        named = tuple(m for m in self.clips.methods if m in self.model.trained_on)
        return named or self.clips.methods

    @cached_property
    def declared_methods(self) -> bool:
        """Whether the model file says which of the data's methods the detector was trained on."""
        return any(m in self.model.trained_on for m in self.clips.methods)

    @cached_property
    def home(self) -> tuple[str, ...]:
        """Domains of the data that the model file says the detector was trained on; all where it says nothing."""
        named = tuple(d for d in self.clips.domains if d in self.model.trained_on)
        return named or self.clips.domains

    def of(self, *methods: str, domain: str | None = None) -> Clips:
        """The judged clips of these methods with the real ones of the same domains: a fake beside a real video of
        another data set or quality would be told by that alone.

        Args:
            domain: this one only; by default those among ``home`` in which there are such fakes, else all of these.
        """
        there = {c.domain for c in self.clips.clips if c.method in methods}
        wanted = {domain} if domain is not None else (there & set(self.home)) or there
        return self.clips.where(lambda c: c.method in (GENUINE, *methods) and c.domain in wanted & there)

    @cached_property
    def parts(self) -> tuple[Clips, Clips]:
        """(what generators are trained on, what they are tried on), with no source on both sides.

        Raises:
            DataError: fewer than two sources.
        """
        judged = {c.group for c in self.clips.clips}
        train = self.whole.where(lambda c: c.split in ("train", "val") and c.group not in judged)
        if len(train) and any(c.split == "test" for c in self.whole.clips):
            return self.sampled(train), self.clips
        return self.clips.split(self.session.profile.data.craft_share)

    @property
    def craft_count(self) -> int:
        """Clips that a generator of blur is trained on."""
        return len(self.parts[0]) if len({c.group for c in self.clips.clips}) > 1 else 0

    def side(self, clips: Clips, side: Side) -> Clips:
        """The clips of the seen methods, or the real ones."""
        domains = {c.domain for c in self.of(*self.seen).clips}

        def keep(clip: Clip) -> bool:
            return (clip.method in self.seen if side == "fake" else not clip.fake) and clip.domain in domains

        return clips.where(keep)

    def attacked(self, side: Side, *, held_out: bool = False) -> Labelled:
        """The faces that an attacker starts from; of clips on which no generator was trained, where ``held_out``."""
        return self.labelled(self.side(self.parts[1] if held_out else self.clips, side))

    def confounders(self, clips: Clips) -> Confounders:
        """Whether real and fake clips were compressed differently."""
        return confounders(clips, {c.id: self._compression[c.id] for c in clips.clips if c.id in self._compression})

    @cached_property
    def _compression(self) -> dict[str, Compression]:
        """How each judged clip was compressed; videos are decoded once for all processes and runs."""

        def build(folder: Path) -> None:
            found = {i: asdict(c) for i, c in compressions(self.clips, self.session_step).items()}
            (folder / "compression.json").write_text(json.dumps(found))

        folder = self.session.artifacts.folder("compression", {"clips": self.clips.digest}, build)
        found = json.loads((folder / "compression.json").read_text())
        return {i: Compression(**{**c, "size": tuple(c["size"])}) for i, c in found.items()}

    @cached_property
    def clean_auc(self) -> float | None:
        """AUC per frame on the clips of the seen methods as they are."""
        found = self.scored(self.model, self.of(*self.seen))
        return auc(found.scores, found.labels, found.groups, Resampling(seed=0, draws=100, cluster="sources")).value

    def why_not_attacked(self) -> str:
        """Why the detector is not attacked, as a sentence; empty where its clean performance is as it should be."""
        least = self.session.profile.preconditions.clean_auc_min
        look = "Check labels, cropping, pre-processing and the direction of the logit in the model file."
        return why_not_attacked(self.session, "auc", self.clean_auc, least, look, words="AUC per frame")
