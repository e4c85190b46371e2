"""What the controls of a classifier share: images by class, and the classifier's word on clean ones."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from audit.data.class_folders import ClassImages, read_classes
from audit.errors import DataError
from audit.image_model import ImageModel
from audit.labelled import Labelled
from audit.other_models import audited_image_model, other_image_models
from audit.preconditions import why_not_attacked
from audit.record import Data, Unreadable
from audit.tasks import told

if TYPE_CHECKING:
    from audit.session import AuditSession


class ClassAudit:
    """Computed once and shared by all controls of a run."""

    task: ClassVar[str] = "classifier"

    def __init__(self, session: AuditSession) -> None:
        self.session = session

    def prepare(self) -> None:
        """Find out what is wrong with data and models before anything long starts."""
        _ = self.images, self.model, self.surrogates
        outputs = self.model.ask(torch.zeros(1, 3, *self.model.size, dtype=torch.uint8)).shape[1]
        if outputs != len(self.whole.classes):
            raise DataError(
                f"data {self.whole.name}", expected=f"{outputs} classes, as many as the model has logits",
                got=f"{len(self.whole.classes)} ({', '.join(self.whole.classes[:4])} …)",
                mend="name all folders after the model's classes, or set `classes` on the model, in its order",
            )  # fmt: skip

    @cached_property
    def whole(self) -> ClassImages:
        """All of the data."""
        session, subject = self.session, self.session.subject
        classes = getattr(subject.tasks[self.task], "classes", None)
        if session.options.data is not None:
            return read_classes(Path(session.options.data), classes=classes)
        if subject.data_fn is None:
            raise DataError("--audit-data", expected="images in a folder per class", got="nothing",
                            mend="give a folder with --audit-data PATH")  # fmt: skip
        found = subject.data_fn(Path.cwd())
        if not isinstance(found, ClassImages):
            raise DataError(f"data(root) of {subject.path}", expected="audit.data.ClassImages", got=told(found),
                            mend="return what audit.data.read_classes gives")  # fmt: skip
        return found

    @cached_property
    def images(self) -> Labelled:
        """The images that are judged, as many of each class, decoded at the model's size."""
        most = self.session.budget.images * len(self.whole.classes)
        return self.whole.sample(most, self.session.options.seed).labelled(self.model.size)

    @cached_property
    def model(self) -> ImageModel:
        """The audited classifier."""
        return audited_image_model(self.session, self.task)

    @cached_property
    def surrogates(self) -> dict[str, ImageModel]:
        """Every other classifier that is given, by name; maybe none."""
        return other_image_models(self.session, self.task, "return classifiers of the same classes in the same order")

    def surrogate_digests(self) -> dict[str, str]:
        """Name -> digest of every other classifier."""
        return {name: s.digest for name, s in self.surrogates.items()}

    @cached_property
    def accuracy(self) -> float | None:
        """Share of the clean images that the classifier decides rightly."""
        if not len(self.images):
            return None
        with self.session.asking(self.model.model):
            outputs = torch.from_numpy(self.model.ask(self.images.images))
        return float(np.mean(self.model.right(outputs, self.images.labels).numpy()))

    def why_not_attacked(self) -> str:
        """Why the classifier is not attacked, as a sentence; empty where its clean accuracy is as it should be."""
        least = self.session.profile.preconditions.clean_accuracy_min
        look = "Check the order of the classes and pre-processing in the model file."
        return why_not_attacked(self.session, "accuracy", self.accuracy, least, look)

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        whole, used = self.whole, self.images
        return [
            Data(
                name=whole.name,
                source=whole.source,
                labelled_by="human",
                licence="as stated by the owner of the data",
                digest=whole.digest,
                images=len(whole.items),
                objects=len(whole.classes),
                craft_images=0,
                held_out_images=len(used),
                chosen=f"at most {self.session.budget.images} per class by seed {self.session.options.seed}",
                unreadable=[Unreadable(name=u.name, reason=u.reason) for u in whole.unreadable],
            )
        ]
