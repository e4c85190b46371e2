"""Errors that a user can act on: what was expected, what came, how to mend it, in one sentence."""

from __future__ import annotations


class AuditError(Exception):
    """A problem that the user can mend.

    Args:
        subject: what the sentence is about, e.g. ``"model file mymodel.py"``.
        expected: what had to be there.
        got: what came instead.
        mend: what to do about it.

    The message is one sentence: ``{subject}: expected {expected}, got {got}; {mend}``.
    """

    def __init__(self, subject: str, *, expected: str, got: str, mend: str) -> None:
        self.subject, self.expected, self.got, self.mend = subject, expected, got, mend
        text = f"{subject}: expected {expected}, got {got}; {mend}"
        super().__init__(" ".join(text.split()))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.subject, self.expected, self.got, self.mend))


class ModelError(AuditError):
    """The model file, or the model in it, breaks its contract."""


class DataError(AuditError):
    """The data cannot be used for this audit."""


class ProfileError(AuditError):
    """The profile is not valid."""


class ConstraintViolated(AuditError):
    """A crafted input left its constraint set: a defect of the probe, never a result."""


def _rebuild(kind: type[AuditError], subject: str, expected: str, got: str, mend: str) -> AuditError:
    return kind(subject, expected=expected, got=got, mend=mend)
