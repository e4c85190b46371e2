"""Attacks on models that put images into classes: what is still decided rightly afterwards, counted by asking again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap
from audit.measures.rates import extreme, stricter
from audit.record import Diagnostic, Grid
from audit.state import frozen, modules_of
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.session import AuditSession

Bools = NDArray[np.bool_]
WEAKER = 0.05
"""By how much an unoptimised change may take away more right decisions than the attack before the attack counts as
failed."""
FEW_SOURCES = 2
Progress = Callable[[float, str], None]


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
        e = self._estimate(self.right(model, images), images)
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
        before = self.right(model, attacked)
        e = self.share(model, attacked, made, rules, before)
        self.trial.judge(e.measure("images still decided rightly"))
        self.trial.conditions += [
            self._estimate(before, attacked).condition("clean, of all images", "Decided rightly"),
            e.condition("under attack, of those right when clean", "Decided rightly"),
        ]
        self._compare(model, attacked, e, before, beside or {})
        self.tell(attacked, made, rules)
        self.trial.evidence += strips(self.session.evidence, model, attacked, made, before)
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
        before = {m: self.right(model, attacked) for m, model in models.items()}
        table: dict[str, dict[str, Estimate]] = {}
        rows: dict[str, tuple[Bools, Labelled]] = {}
        subject = next(iter(models))
        for i, (name, (give, rules)) in enumerate(made.items()):
            images = give()
            table[name], rows[name] = {}, self._kept(models[subject], attacked, images, rules, before[subject])
            for m, model in models.items():
                kept = rows[name] if m == subject else self._kept(model, attacked, images, rules, before[m])
                table[name][m] = self._estimate(*kept)
            if self.progress is not None:
                self.progress((i + 1) / len(made), f"{title}: {name}")
        known = {n: row[subject] for n, row in table.items() if row[subject].value is not None}
        known = {n: e for n, e in known.items() if judged is None or n in judged}
        if not known:
            self.trial.undecided = "Not measured: no image is decided rightly when clean."
            return
        worst = min(known, key=lambda n: (known[n].value or 0.0, n))
        again = {n: self._estimate(*rows[n], stricter(self.resampling, len(known))) for n in known}
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
        self._compare(models[subject], attacked, known[worst], before[subject], beside or {})
        give, rules = made[worst]
        images = give()
        self.tell(attacked, images, rules)
        self.trial.evidence += strips(self.session.evidence, models[subject], attacked, images, before[subject])
        self._stands(attacked, before[subject])

    def share(
        self, model: ImageModel, attacked: Labelled, made: Adversarial, rules: ImageRules | None, before: Bools
    ) -> Estimate:
        """Of the images decided rightly when clean, those still decided rightly, with the interval over sources.

        Raises:
            ConstraintViolated: a changed image breaks the rules; it is never counted.
        """
        return self._estimate(*self._kept(model, attacked, made, rules, before))

    def _kept(
        self, model: ImageModel, attacked: Labelled, made: Adversarial, rules: ImageRules | None, before: Bools
    ) -> tuple[Bools, Labelled]:
        """Whether each image that was right when clean still is, and these images."""
        broken = self.broken(attacked, made, rules)
        if broken:
            raise ConstraintViolated(
                "crafted images", expected="changes within the rules", got="; ".join(broken[:3]),
                mend="this is a defect of the probe, not of the model: mend the probe",
            )  # fmt: skip
        after = model.right(torch.from_numpy(self._ask(model, made.images)), attacked.labels).numpy()
        return after[before], attacked[torch.from_numpy(before)]

    def broken(self, attacked: Labelled, made: Adversarial, rules: ImageRules | None) -> list[str]:
        """One sentence per rule broken."""
        if made.images.shape != attacked.images.shape or made.images.dtype != torch.uint8:
            return [f"{tuple(made.images.shape)} {made.images.dtype} for {tuple(attacked.images.shape)} torch.uint8"]
        return [] if rules is None else rules.violations(attacked.images, made)

    def right(self, model: ImageModel, attacked: Labelled) -> Bools:
        """(N,) whether each clean image is decided rightly."""
        found: Bools = model.right(torch.from_numpy(self._ask(model, attacked.images)), attacked.labels).numpy()
        return found

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

    def _ask(self, model: ImageModel, images: torch.Tensor) -> NDArray[np.float64]:
        if tuple(images.shape[2:]) != model.size and len(images):
            raise ValueError(f"expected images of {model.size} px for {model.name}, got {tuple(images.shape[2:])}")
        with frozen([*self.session.subject.modules, *modules_of(model.model)]), self.session.execution.autocast():
            found = model.ask(images)
        self.session.require_unchanged()
        return found

    def _estimate(self, right: Bools, of: Labelled, resampling: Resampling | None = None) -> Estimate:
        names = sorted(set(of.groups))
        index = {g: i for i, g in enumerate(names)}
        at = np.array([index[g] for g in of.groups], dtype=np.int64)
        hits = np.bincount(at, weights=right, minlength=len(names))
        tries = np.bincount(at, minlength=len(names))
        r = resampling or self.resampling
        return cluster_bootstrap(hits, tries, level=r.level, draws=r.draws, seed=r.seed, cluster=r.cluster)

    def _compare(
        self,
        model: ImageModel,
        attacked: Labelled,
        attack: Estimate,
        before: Bools,
        beside: Mapping[str, tuple[Adversarial, ImageRules | None]],
    ) -> None:
        """Unoptimised changes beside the attack: none of them may beat it."""
        plain = {n: self.share(model, attacked, x, rules, before) for n, (x, rules) in beside.items()}
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
