"""What the controls of a recognizer share: its comparison, the pairs, the operating point, its word on clean pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit import data as datasets
from audit.artifacts import code_digest
from audit.comparison import CHUNK, Comparison
from audit.data.faces import FacePairs, Portraits
from audit.errors import DataError, ModelError
from audit.examples import Attacked, Goal
from audit.face_surrogates import face_surrogates
from audit.landmarks import LandmarkCache
from audit.measures.intervals import Resampling
from audit.measures.pairwise import people_of
from audit.measures.verification import ScoredPairs, accuracy, cut_at, impostor_pairs
from audit.preconditions import why_not_attacked
from audit.record import Data, Precondition, Unreadable, digest
from audit.state import frozen, modules_of, state_digest

if TYPE_CHECKING:
    from audit.session import AuditSession


class FaceAudit:
    """Computed once and shared by all controls of a run."""

    task: ClassVar[str] = "recognizer"

    def __init__(self, session: AuditSession) -> None:
        self.session = session

    def surrogate_digests(self) -> dict[str, str]:
        """Name -> digest of every other recognizer."""
        return {name: s.digest for name, s in self.surrogates.items()}

    def prepare(self) -> None:
        """Find out what is wrong with data, surrogates and generator before anything long starts."""
        _ = self.pairs, self.surrogates, self.generator, self.comparison

    @cached_property
    def whole(self) -> FacePairs:
        """All of the data."""
        session, subject = self.session, self.session.subject
        if session.options.data is not None:
            landmarker = None if subject.landmarks_fn is None else subject.landmarks_fn()
            finders = modules_of(landmarker)
            own = [str(f) for f in getattr(landmarker, "files", ())]
            parts = [[f.sha256 for f in subject.files], session.state_before, state_digest(finders), own, code_digest()]
            cache = LandmarkCache(session.artifacts.root / "landmarks", digest([*parts, session.execution.device.type]))
            with frozen([*subject.modules, *finders]):
                return datasets.open_faces(
                    session.options.data, landmarker=landmarker, cache=cache, device=session.execution.device
                )
        if subject.data_fn is None:
            raise DataError(
                "--audit-data",
                expected="photographs of faces in pairs of the same and of different people",
                got="nothing",
                mend=f"give a data set with --audit-data PATH ({datasets.FACE_FORMATS})",
            )
        found = subject.data_fn(Path.cwd())
        if not isinstance(found, FacePairs):
            raise DataError(
                f"data(root) of {subject.path}",
                expected="audit.data.FacePairs",
                got=type(found).__name__,
                mend="return what audit.data.open_faces gives",
            )
        return found

    @cached_property
    def pairs(self) -> tuple[FacePairs, FacePairs]:
        """(craft, held out), with nobody on both sides; the held-out pairs cut to the budget."""
        craft, held_out = self.whole.split(self.session.profile.data.craft_share)
        held_out = held_out.sample(self.session.budget.images, self.session.options.seed)
        for same, words in ((True, "of one person"), (False, "of two people")):
            if not bool((held_out.same == same).any()):
                raise DataError(
                    f"data {self.whole.name}",
                    expected=f"held-out pairs {words}",
                    got=f"none among {len(held_out)}",
                    mend="add pairs, or change `craft_share` in the profile",
                )
        return craft, held_out

    @property
    def held_out(self) -> FacePairs:
        """The pairs that controls measure on."""
        return self.pairs[1]

    @cached_property
    def background(self) -> Portraits:
        """Photographs of people of the craft side: what universal patches and generators are made from."""
        craft = self.pairs[0]
        limit = min(len(craft.faces), max(32, self.session.budget.images))
        order = sorted(range(len(craft.faces)), key=lambda i: craft.faces[i].digest)
        return craft.portraits(order[:limit])

    @cached_property
    def comparison(self) -> Comparison:
        """The audited recognizer at its operating point."""
        subject = self.session.subject
        plain = Comparison(
            "the audited model", subject.tasks["recognizer"], subject.access["recognizer"] == "white-box"
        )
        rate = self.session.profile.data.operating_fmr
        if rate is None:
            return plain
        point = cut_at(self._calibration(plain), rate, self.resampling)
        found = point.cut.value
        self.session.fact(
            Precondition(
                name="recognizer: threshold at the declared false match rate",
                ok=found is not None and not point.note,
                value=found,
                expected=f"a score that lets at most {rate:g} of {point.fmr.n} impostors pass, of other people",
                meaning=point.note or "found on pairs of different people of the craft side of the split",
            )
        )
        if found is None:
            raise DataError(
                "operating_fmr of the profile",
                expected=f"at least {round(1 / rate)} impostor pairs on the craft side to find a rate of {rate:g}",
                got=f"{point.fmr.n}",
                mend="add faces, or declare a higher rate",
            )
        return plain.at(found)

    @property
    def resampling(self) -> Resampling:
        """How intervals are found that no control has a seed for."""
        return Resampling(seed=0, draws=self.session.budget.bootstrap, cluster="people")

    def _calibration(self, comparison: Comparison) -> ScoredPairs:
        """Scores of every craft face with those of everybody else; of the pairs that the data names, where the
        recognizer only compares.
        """
        craft = self.pairs[0]
        if comparison.embeds:
            return self._everybody(comparison, craft, range(len(craft.faces)))
        one, other = (craft.portraits(craft.pairs[:, side]) for side in (0, 1))
        with self.session.asking(comparison.model):
            scores = comparison.ask(one.images, one.landmarks, other.images, other.landmarks)
        return self._scored(scores.double().numpy(), craft, craft.pairs)

    def _everybody(self, comparison: Comparison, data: FacePairs, index: Sequence[int]) -> ScoredPairs:
        """Each of these faces with each one of somebody else, decoded and embedded a few at a time."""
        found = []
        with self.session.asking(comparison.model):
            for i in range(0, len(index), CHUNK):
                part = data.portraits(index[i : i + CHUNK])
                found.append(comparison.embeddings(part.images, part.landmarks))
        names = [data.faces[i].identity or data.faces[i].id for i in index]
        return impostor_pairs(torch.cat(found).double().numpy(), names, comparison.metric)

    def _scored(self, scores: NDArray[np.float64], data: FacePairs, pairs: Tensor) -> ScoredPairs:
        names = [f.identity or f.id for f in data.faces]
        people = people_of(*([names[i] for i in pairs[:, side].tolist()] for side in (0, 1)))
        return ScoredPairs(scores, people[:, 0] == people[:, 1], people)

    def scored(self, comparison: Comparison) -> ScoredPairs:
        """The held-out pairs with their clean scores."""
        return self._scored(self.clean(comparison), self.held_out, self.held_out.pairs)

    def strangers(self, comparison: Comparison) -> ScoredPairs | None:
        """Every face of the held-out pairs with every one of somebody else; ``None`` where there are no embeddings."""
        if not comparison.embeds:
            return None
        used = sorted({i for pair in self.held_out.pairs.tolist() for i in pair})
        return self._everybody(comparison, self.held_out, used)

    @cached_property
    def surrogates(self) -> dict[str, Comparison]:
        """Other recognizers that an attacker may hold, by name; maybe none."""
        return face_surrogates(self.session.subject, self.session.options.surrogates, self.session.execution.device)

    @cached_property
    def generator(self) -> Any:
        """The model file's face generator; ``None`` where it has none, and the built-in one is fitted."""
        make = self.session.subject.generator_fn
        made = None if make is None else make()
        if made is not None and not (callable(made) and isinstance(getattr(made, "latent", None), int)):
            raise ModelError(
                f"generator(device) of {self.session.subject.path}",
                expected="a callable with `latent`, codes (N, latent) to faces (N, 3, H, W) in [0, 1]",
                got=type(made).__name__,
                mend="set `latent` on it",
            )
        return made

    @property
    def liveness(self) -> Any:
        """The model file's liveness detector; ``None`` where it has none."""
        return self.session.subject.tasks.get("liveness")

    @property
    def liveness_by_gradients(self) -> bool:
        """Whether the liveness detector can be attacked through its gradients."""
        return self.session.subject.access.get("liveness") == "white-box"

    def clean(self, comparison: Comparison) -> NDArray[np.float64]:
        """(P,) scores of the held-out pairs as they are."""
        key = comparison.name
        if key not in self._clean:
            data, found = self.held_out, []
            with self.session.asking(comparison.model):
                for rows in torch.split(data.pairs, CHUNK):
                    a, b = data.portraits(rows[:, 0]), data.portraits(rows[:, 1])
                    found.append(comparison.ask(a.images, a.landmarks, b.images, b.landmarks))
            self._clean[key] = torch.cat(found).double().numpy()
        return self._clean[key]

    @cached_property
    def _clean(self) -> dict[str, NDArray[np.float64]]:
        return {}

    def accuracy(self, comparison: Comparison) -> float | None:
        """Share of the held-out pairs that a recognizer decides rightly."""
        return accuracy(self.scored(comparison), comparison.cut, self.resampling).value

    def why_not_attacked(self) -> str:
        """Why this recognizer is not attacked, as a sentence; empty where its clean performance is as it should be."""
        return why_not_attacked(
            self.session,
            "accuracy",
            self.accuracy(self.comparison),
            self.session.profile.preconditions.clean_accuracy_min,
            "Check pre-processing, template, metric and threshold in the model file, and the landmarks of the data.",
        )

    def under_attack(self, goal: Goal) -> Tensor:
        """(N,) indices of the held-out pairs that an attack may change: those that are decided rightly when clean."""
        same = self.held_out.same.numpy()
        accepted = self.clean(self.comparison) >= self.comparison.cut
        wanted = (same & accepted) if goal == "dodge" else (~same & ~accepted)
        return torch.from_numpy(np.flatnonzero(wanted))

    def attacked(self, goal: Goal) -> Attacked:
        """The pairs that a goal attacks, decoded, with photographs of other people beside."""
        if goal not in self._attacked:
            index = self.under_attack(goal)
            sources, targets = (self.held_out.portraits(self.held_out.pairs[index, side]) for side in (0, 1))
            self._attacked[goal] = Attacked(goal, sources, targets, self.background)
        return self._attacked[goal]

    @cached_property
    def _attacked(self) -> dict[str, Attacked]:
        return {}

    def groups_of(self, goal: Goal) -> list[dict[str, str]]:
        """What the data says of the source of each pair under attack."""
        rows = self.held_out.pairs[self.under_attack(goal), 0].tolist()
        return [dict(self.held_out.faces[i].groups) for i in rows]

    def pair_groups(self) -> dict[str, list[str]]:
        """Kind -> the group of each held-out pair; empty where its two people are of two groups, or nobody says."""
        faces = self.held_out.faces
        both = [(dict(faces[a].groups), dict(faces[b].groups)) for a, b in self.held_out.pairs.tolist()]
        kinds = sorted({k for pair in both for g in pair for k in g})
        return {k: [a.get(k, "") if a.get(k) == b.get(k) else "" for a, b in both] for k in kinds}

    def gallery(self, without: Sequence[str]) -> Portraits:
        """One photograph of everybody of the held-out side: those that the data enrols, else one by digest.

        Args:
            without: ids of faces that are searched for, and so are not enrolled themselves.
        """
        data, searched = self.held_out, set(without)
        rows = list(data.gallery) or sorted(range(len(data.faces)), key=lambda i: data.faces[i].digest)
        chosen: dict[str, int] = {}
        for i in rows:
            face = data.faces[i]
            if face.identity and face.id not in searched:
                chosen.setdefault(face.identity, i)
        return data.portraits(sorted(chosen.values()))

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        whole, (craft, held_out) = self.whole, self.pairs
        used = len({i for pair in held_out.pairs.tolist() for i in pair})
        pairs = f"{int(held_out.same.sum())} held-out pairs of one person and {int((~held_out.same).sum())} of two"
        return [
            Data(
                name=whole.name,
                source=whole.source,
                labelled_by="human",
                licence=whole.licence,
                digest=whole.digest,
                images=len(whole.faces),
                objects=len({f.identity or f.id for f in whole.faces}),
                craft_images=len(craft.faces),
                held_out_images=used,
                chosen=f"split by hash of the person, so that nobody is on both sides; {pairs}, at most "
                f"{self.session.budget.images} of each by seed {self.session.options.seed}",
                unreadable=[Unreadable(name=u.name, reason=u.reason) for u in whole.unreadable],
                notes=[*dict.fromkeys([*whole.notes, *held_out.notes]), f"Landmarks: {whole.landmarks_from}."],
            )
        ]
