"""What a run stands in: output folder, published pictures, versions, and what a report says of subject and profile."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.errors import AuditError, DataError

if TYPE_CHECKING:
    from audit.session import AuditSession

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def pictures_of(paths: Sequence[str]) -> dict[str, Path]:
    """Name -> file of the pictures named, and of those in the folders named.

    Raises:
        DataError: nothing there, or no picture in it.
    """
    found: dict[str, Path] = {}
    for text in paths:
        place = Path(text)
        files = sorted(f for f in place.rglob("*") if f.suffix.lower() in PICTURES) if place.is_dir() else [place]
        if not files or not all(f.is_file() for f in files):
            raise DataError(
                f"--audit-patches {text}",
                expected=f"a picture or a folder of pictures ({', '.join(PICTURES)})",
                got="no picture" if place.is_dir() else "nothing there",
                mend="check the path",
            )
        for file in files:
            name = file.relative_to(place).with_suffix("").as_posix() if place.is_dir() else file.stem
            again = sum(n == name or n.startswith(f"{name} #") for n in found)
            found[name if not again else f"{name} #{again + 1}"] = file
    return found


def output_folder(name: str) -> Path:
    """The output folder, made and tried.

    Raises:
        AuditError: it cannot be written.
    """
    folder = Path(name)
    try:
        (folder / "evidence").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise AuditError(
            f"report folder {name}",
            expected="a folder that can be written",
            got=e.strerror or type(e).__name__,
            mend="give another with --audit-report",
        ) from e
    return folder


PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "pillow",
    "onnxruntime",
    "onnx2torch",
    "scipy",
    "av",
    "httpx",
    "transformers",
    "ultralytics",
)


def versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions; by default of what may have a say in a number."""
    found = {}
    for name in names:
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def context_of(session: AuditSession) -> dict[str, Any]:
    """What a report says of the subject and the profile."""
    s, p = session.subject, session.profile
    return {
        "subject": {
            "name": s.name,
            "tasks": sorted(s.tasks),
            "access": s.access,
            "files": [f.model_dump() for f in s.files],
            "state_sha256": session.state_before,
            "declared": s.declared,
        },
        "profile": {
            "name": p.name,
            "version": p.version,
            "sha256": p.sha256,
            "budget": session.options.budget,
            "indicative": session.indicative,
            "description": p.description,
            "not_tested": list(p.not_tested),
        },
    }
