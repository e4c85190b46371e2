"""Attacks on models that put images into classes: what is still decided rightly afterwards, counted by asking again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from audit.clip_audit import ClipAudit
from audit.errors import ConstraintViolated
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from audit.measures.faces import course, summary
from audit.measures.image_pictures import strips
from audit.measures.imperceptibility import Distance, imperceptibility
from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import extreme, numbered, rate, stricter
from audit.measures.scored import FEW_SOURCES
from audit.record import Diagnostic, Grid
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.session import AuditSession

Bools = NDArray[np.bool_]
WEAKER = 0.05
"""By how much an unoptimised change may take away more right decisions than the attack before the attack counts as
failed."""
Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model makes of N images: whether it is right, and by what margin."""

    right: Bools
    margin: NDArray[np.float64]


class ImageAttackMeasure:
    """Writes into the record of one control.

    Args:
        sources: the plural noun for what is resampled together.
    """

    def __init__(
        self, trial: Trial, session: AuditSession, progress: Progress | None = None, *, sources: str = "sources"
    ) -> None:
        self.trial, self.session, self.progress = trial, session, progress
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster=sources)

    def clean(self, model: ImageModel, images: Labelled) -> None:
        """Judge the share of images that are decided rightly when nobody attacks."""
        e = self._estimate(self._judged(model, images.images, images.labels).right, images)
        self.trial.judge(e.measure("images decided rightly"))
        self.trial.access = "none"

    def kept(
        self,
        model: ImageModel,
        attacked: Labelled,
        made: Adversarial,
        rules: ImageRules | None,
        beside: Mapping[str, tuple[Adversarial, ImageRules | None]] | None = None,
    ) -> Estimate:
        """Judge the share of images, of those decided rightly when clean, that are still decided rightly.

        Args:
            beside: unoptimised changes of the same size, to tell what the change does from what the attack does.
        """
        clean = self._judged(model, attacked.images, attacked.labels)
        before = clean.right
        self._require(attacked, made, rules)
        after = self._judged(model, made.images, attacked.labels)
        e = self._estimate(after.right[before], attacked[torch.from_numpy(before)])
        self.trial.judge(e.measure("images still decided rightly"))
        self.trial.conditions += [
            self._estimate(before, attacked).condition("clean, of all images", "Decided rightly"),
            e.condition("under attack, of those right when clean", "Decided rightly"),
        ]
        self._compare(model, attacked, e, before, beside or {})
        self.tell(attacked, made, rules)
        self.trial.evidence += strips(self.session.evidence, attacked, made, before, clean.margin, after.margin)
        self._stands(attacked, before)
        return e

    def worst(
        self,
        models: Mapping[str, ImageModel],
        attacked: Labelled,
        made: Mapping[str, tuple[Callable[[], Adversarial], ImageRules | None]],
        *,
        title: str,
        row_label: str,
        beside: Mapping[str, tuple[Adversarial, ImageRules | None]] | None = None,
        judged: Collection[str] | None = None,
    ) -> None:
        """Judge the attack that leaves least on the first model, and tabulate attack × model.

        Args:
            made: name -> what gives its images, and its rules; called in turn, so that few are held at once.
            judged: names of the attacks that may decide; all of them by default.
        """
        clean = {m: self._judged(model, attacked.images, attacked.labels) for m, model in models.items()}
        rest = {m: attacked[torch.from_numpy(c.right)] for m, c in clean.items()}
        table: dict[str, dict[str, Estimate]] = {}
        after: dict[str, Judged] = {}
        subject = next(iter(models))
        for i, (name, (give, rules)) in enumerate(made.items()):
            images = give()
            self._require(attacked, images, rules)
            found = {m: self._judged(model, images.images, attacked.labels) for m, model in models.items()}
            table[name] = {m: self._estimate(f.right[clean[m].right], rest[m]) for m, f in found.items()}
            after[name] = found[subject]
            if self.progress is not None:
                self.progress((i + 1) / len(made), f"{title}: {name}")
        known = {n: row[subject] for n, row in table.items() if row[subject].value is not None}
        known = {n: e for n, e in known.items() if judged is None or n in judged}
        if not known:
            self.trial.undecided = "Not measured: no image is decided rightly when clean."
            return
        worst = min(known, key=lambda n: (known[n].value or 0.0, n))
        before = clean[subject].right
        wide = stricter(self.resampling, len(known))
        again = {n: self._estimate(after[n].right[before], rest[subject], wide) for n in known}
        judged_of = extreme(known, again, highest=False)
        self.trial.judge(judged_of.measure("images still decided rightly, worst attack"))
        self.trial.details["worst attack"] = worst
        for name, e in known.items():
            self.trial.conditions.append(e.condition(name, "Images still decided rightly, per attack"))
        self.trial.grids.append(
            Grid(
                title=title, row_label=row_label, column_label="tested on", rows=list(table), columns=list(models),
                values=[[row[m].value for m in models] for row in table.values()], higher_is_better=True,
                note="Images that the model of the column decides wrongly when clean are left out of its cells.",
            )
        )  # fmt: skip
        self._compare(models[subject], attacked, known[worst], before, beside or {})
        give, rules = made[worst]
        images = give()
        self.tell(attacked, images, rules)
        margins = clean[subject].margin, after[worst].margin
        self.trial.evidence += strips(self.session.evidence, attacked, images, before, *margins)
        self._stands(attacked, before)

    def _require(self, attacked: Labelled, made: Adversarial, rules: ImageRules | None) -> None:
        """Raises:
        ConstraintViolated: a changed image breaks the rules; it is never counted.
        """
        broken = [] if rules is None else rules.violations(attacked.images, made)
        if made.images.shape != attacked.images.shape or made.images.dtype != torch.uint8:
            broken = [f"{tuple(made.images.shape)} {made.images.dtype} for {tuple(attacked.images.shape)} torch.uint8"]
        if broken:
            raise ConstraintViolated(
                "crafted images", expected="changes within the rules", got="; ".join(broken[:3]),
                mend="this is a defect of the probe, not of the model: mend the probe",
            )  # fmt: skip

    def _judged(self, model: ImageModel, images: torch.Tensor, labels: torch.Tensor) -> Judged:
        """What the model makes of images, asked once."""
        if tuple(images.shape[2:]) != model.size and len(images):
            raise ValueError(f"expected images of {model.size} px for {model.name}, got {tuple(images.shape[2:])}")
        with self.session.asking(model.model):
            outputs = torch.from_numpy(model.ask(images))
        self.session.require_unchanged()
        return Judged(model.right(outputs, labels).numpy(), model.margin(outputs, labels).numpy())

    def tell(self, attacked: Labelled, made: Adversarial, rules: ImageRules | None) -> None:
        """Rules, course of the attack, and how much can be seen of it."""
        if rules is not None:
            self.trial.constraint = rules.describe()
        told = {k: summary(v) for k, v in made.details.items()}
        self.trial.details |= {k: v for k, v in told.items() if k not in self.trial.details}
        seen = imperceptibility(
            attacked.images, made.images, attacked.groups, resampling=self.resampling, lpips=self._lpips
        )
        self.trial.conditions += seen.rows
        self.trial.curves += course(made)

    def _stands(self, attacked: Labelled, before: Bools) -> None:
        """No verdict stands on the frames of one video, however many; what was left out is told."""
        sources = {g for g, right in zip(attacked.groups, before, strict=True) if right}
        if len(sources) < FEW_SOURCES:
            self.trial.undecided = (
                f"The images that are decided rightly when clean are of {len(sources)} source(s): frames of one video "
                "tell nothing of others, however many."
            )
        if isinstance(self.session.material, ClipAudit):
            self.session.material.tell_of(self.trial, attacked)

    @cached_property
    def _lpips(self) -> Distance | None:
        """The model file's perceptual distance; ``None`` where it gives none."""
        maker = self.session.subject.lpips_fn
        if maker is None:
            return None
        found, device = maker(), self.session.execution.device
        return lambda a, b: found(a.to(device), b.to(device))

    def _estimate(self, right: Bools, of: Labelled, resampling: Resampling | None = None) -> Estimate:
        return rate(right, numbered(of.groups)[0], resampling or self.resampling)

    def _compare(
        self,
        model: ImageModel,
        attacked: Labelled,
        attack: Estimate,
        before: Bools,
        beside: Mapping[str, tuple[Adversarial, ImageRules | None]],
    ) -> None:
        """Unoptimised changes beside the attack: none of them may beat it."""
        plain: dict[str, Estimate] = {}
        for name, (images, rules) in beside.items():
            self._require(attacked, images, rules)
            found = self._judged(model, images.images, attacked.labels)
            plain[name] = self._estimate(found.right[before], attacked[torch.from_numpy(before)])
        for name, e in plain.items():
            self.trial.conditions.append(e.condition(name, "Images still decided rightly under unoptimised changes"))
        known = {n: e.value for n, e in plain.items() if e.value is not None}
        if attack.value is None or not known:
            return
        best = min(known, key=lambda n: (known[n], n))
        gap = attack.value - known[best]
        self.trial.diagnostics.append(
            Diagnostic(
                name="unoptimised change beats the attack", value=round(gap, 6), limit=WEAKER, raised=gap > WEAKER,
                meaning=f"The share that the attack leaves, less what the best unoptimised change, '{best}', leaves: "
                "above the limit, the attack has not worked",
            )
        )  # fmt: skip
