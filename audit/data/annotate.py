"""A drive's areas in every frame from a few annotated ones, as its ``.drive.toml`` asks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from audit.data.areas import Marks, Points, Target, around, checked, ordered
from audit.data.assemble import printable
from audit.data.pinhole import corners, fit_pinhole, pinhole
from audit.data.polynomial import fit_polynomial
from audit.errors import DataError

Point = tuple[FiniteFloat, FiniteFloat]


class _Annotated(BaseModel):
    model_config = ConfigDict(extra="forbid")
    frame: int = Field(ge=0)
    area: tuple[Point, Point, Point, Point] | None = None
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    label: str | None = Field(default=None, alias="class")
    object: str = ""


class _Drive(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: Literal["pinhole", "polynomial"]
    label: str = Field(default="car", alias="class")
    vanishing_frame: FiniteFloat | None = None
    centre: Point | None = None
    degree: int | None = Field(default=None, ge=0, le=9)
    first: int = Field(default=0, ge=0)
    last: int | None = Field(default=None, ge=0)
    annotated: list[_Annotated] = []


@dataclass(frozen=True, slots=True)
class Drive:
    """What ``read_drive`` needs to know of the frames: how many, and (height, width) px."""

    count: int
    size: tuple[int, int]


def read_drive(path: Path, drive: Drive, annotated: Marks | None = None) -> Marks:
    """Marks of every frame by a model through a few annotated ones.

    The file is TOML::

        model = "pinhole"            # or "polynomial"
        class = "truck"              # of the objects that name none
        vanishing_frame = 269        # pinhole; left out: fitted to two annotated frames or more
        centre = [960, 540]          # pinhole; left out: the middle of the image, or fitted with the vanishing frame
        degree = 2                   # polynomial; left out: 2, or less where there are too few frames
        first = 0                    # frames that the model describes; left out: all
        last = 231

        [[annotated]]
        frame = 0
        area = [[900, 500], [1000, 500], [1000, 560], [900, 560]]     # upper left, upper right, lower right, lower left
        box = [890, 480, 1010, 600]  # the object; left out: the area's bounding box
        class = "truck"
        object = "first truck"       # where there are several, the same name through the frames

    Frames in which an object lies at or beyond its vanishing frame are left out: it may well be there, unknown where.

    Args:
        annotated: annotated frames of another sidecar, used where the file has none; an object is the same through the
            frames where its name is.

    Raises:
        DataError: unreadable, an unknown key or model, a frame beyond the end, annotations that do not fit, a vanishing
            frame among the annotated ones, or an object that is twice in a frame or changes its class.
    """
    path = Path(path)
    plan = _plan(path)
    subject = f"drive {printable(path.name)}"
    last = drive.count - 1 if plan.last is None else plan.last
    beyond = [f for f in (plan.first, last, *(a.frame for a in plan.annotated)) if f >= drive.count]
    if beyond or plan.first > last:
        raise _broken(path, f"frames from 0 to {drive.count - 1}", f"frame {beyond[0] if beyond else plan.first}")
    wanted = range(plan.first, last + 1)
    seen = _targets(plan, subject) if plan.annotated else _by_name(path, annotated)
    if not seen:
        raise _broken(path, "at least one annotated frame", "none")
    out = Marks(source=f"{plan.model} model {printable(path.name)}", frames={i: [] for i in wanted})
    beyond = []
    for name, targets in seen.items():
        _require_one_class(path, name, targets)
        for key, points in _tracks(path, plan, name, targets, wanted, drive.size).items():
            for i, p in zip(wanted, points, strict=True):
                if np.isfinite(p).all():
                    out.frames[i].append(_target(key, p, next(iter(targets.values())), name))
                else:
                    beyond.append(i)
    for i in set(beyond):
        del out.frames[i]
    out.hidden = {} if annotated is None else dict(annotated.hidden)
    out.notes.append(_told(path, plan, seen, sorted(out.frames), len(set(beyond))))
    return out


def _tracks(
    path: Path, plan: _Drive, name: str, targets: Mapping[int, Target], wanted: Sequence[int], size: tuple[int, int]
) -> dict[tuple[bool, bool], NDArray[np.float64]]:
    """(has an area, has a box) -> points (F, 4 or 8, 2): area and box move together, so they are fitted together."""
    kinds = {(t.area is not None, t.box is not None) for t in targets.values()}
    if len(kinds) != 1 or kinds == {(False, False)}:
        raise _broken(path, "the same of area and box in every annotated frame of an object", "now one, now the other")
    points = {f: _points(t) for f, t in targets.items()}
    frames, end = sorted(points), plan.vanishing_frame
    if plan.model == "pinhole" and end is not None and frames[0] <= end <= frames[-1]:
        got = f"vanishing_frame = {end:g} among those annotated, {frames[0]} to {frames[-1]}"
        raise _broken(path, "a vanishing frame before or after all annotated frames of an object", got)
    try:
        return {kinds.pop(): _moved(plan, points, wanted, size)}
    except DataError as e:
        few = plan.model == "pinhole" and len(points) < 2
        raise DataError(
            printable(f"drive {path.name}, {e.subject}{f' of object {name}' if name else ''}"),
            expected=e.expected,
            got=e.got,
            mend="annotate a second frame or write vanishing_frame" if few else e.mend,
        ) from e


def _moved(
    plan: _Drive, points: Mapping[int, Points], wanted: Sequence[int], size: tuple[int, int]
) -> NDArray[np.float64]:
    """(F, P, 2) px by the model; each frame from the nearest annotated one where the vanishing frame is known."""
    if plan.model == "polynomial":
        return fit_polynomial(points, wanted, min(2, len(points) - 1) if plan.degree is None else plan.degree)
    if plan.vanishing_frame is None:
        return fit_pinhole(points, plan.centre).at(wanted)
    frames, centre = sorted(points), plan.centre or (size[1] / 2, size[0] / 2)
    moved = [pinhole(points[f], f, plan.vanishing_frame, wanted, centre) for f in frames]
    nearest = np.abs(np.array(frames)[:, None] - np.array(wanted)).argmin(0)
    return np.stack([moved[k][i] for i, k in enumerate(nearest)])


def _points(target: Target) -> Points:
    parts = [] if target.area is None else [target.area]
    return np.concatenate(parts if target.box is None else [*parts, corners(target.box)])


def _target(kind: tuple[bool, bool], points: Points, like: Target, name: str) -> Target:
    area = points[:4] if kind[0] else None
    return Target(area, around(points[-4:]) if kind[1] else None, like.label, name)


def _targets(plan: _Drive, subject: str) -> dict[str, dict[int, Target]]:
    out: dict[str, dict[int, Target]] = {}
    for a in plan.annotated:
        where = f"frame {a.frame}"
        area = None if a.area is None else checked(np.array(a.area), subject, where)
        box = None if a.box is None else ordered(a.box, subject, where)
        targets = out.setdefault(a.object, {})
        if a.frame in targets:
            raise DataError(
                subject,
                expected="one [[annotated]] per frame and object",
                got=f"frame {a.frame} twice",
                mend="name the objects: object = ...",
            )
        targets[a.frame] = Target(area, box, plan.label if a.label is None else a.label, a.object)
    return out


def _by_name(path: Path, annotated: Marks | None) -> dict[str, dict[int, Target]]:
    out: dict[str, dict[int, Target]] = {}
    for frame, targets in ({} if annotated is None else annotated.frames).items():
        for t in targets:
            track = out.setdefault(t.name, {})
            if frame in track:
                raise _broken(path, "an object once in a frame", f"{t.name!r} twice in frame {frame}")
            track[frame] = t
    return out


def _require_one_class(path: Path, name: str, targets: Mapping[int, Target]) -> None:
    first = min(targets)
    for frame, target in sorted(targets.items()):
        if target.label != targets[first].label:
            kinds = f"{targets[first].label!r} in frame {first}, {target.label!r} in frame {frame}"
            raise DataError(
                printable(f"drive {path.name}"),
                expected="the same class in every annotated frame of an object",
                got=printable(f"{kinds} of object {name}" if name else kinds),
                mend="tell the objects apart by name: object = ..., the column 'object', or labelme's group_id",
            )


def _told(
    path: Path, plan: _Drive, seen: Mapping[str, Mapping[int, Target]], wanted: Sequence[int], beyond: int
) -> str:
    frames = sorted({f for targets in seen.values() for f in targets})
    outside = sum(not frames[0] <= i <= frames[-1] for i in wanted)
    text = (
        f"{printable(path.name)}: areas and boxes of {len(wanted)} frame(s) follow from "
        f"{len(frames)} annotated one(s) by the {plan.model} model"
    )
    if outside and len(frames) > 1:
        text += f"; {outside} of them lie outside the annotated ones"
    if beyond:
        text += f"; {beyond} more at or beyond the vanishing frame are left out"
    if sum(n.startswith("#") for n in seen) > 1 and len(frames) > 1:
        text += "; objects without a name are followed by their place in the file"
    return text


def _plan(path: Path) -> _Drive:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return _Drive.model_validate(table)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        keys = ", ".join(f.alias or n for n, f in _Drive.model_fields.items())
        raise _broken(path, f"the keys {keys}", f"at {place!r}: {first['msg']}") from e
    except (OSError, ValueError) as e:
        raise _broken(path, "TOML", f"something else ({str(e)[:80]})") from e


def _broken(path: Path, expected: str, got: str) -> DataError:
    return DataError(printable(f"drive {path.name}"), expected=expected, got=printable(got), mend="correct the file")
