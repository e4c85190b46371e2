"""Videos and folders of frames, with what lies beside them, as Scenes: one per frame, decoded when it is wanted."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from audit.data.assemble import Progress, printable
from audit.data.drive_scenes import scenes_of
from audit.data.frames import pictures
from audit.data.labelme import is_labelme
from audit.data.scenes import Scenes
from audit.data.sidecars import beside
from audit.data.video_index import SUFFIXES
from audit.errors import DataError


def read_video(
    path: Path,
    *,
    areas: Path | None = None,
    patched: Path | None = None,
    hidden: Path | None = None,
    blocks: int | None = None,
    default_class: str = "car",
    progress: Progress | None = None,
) -> Scenes:
    """The frames of one video, see ``read_drives`` for what may lie beside it.

    Args:
        areas: sidecar, ``*.csv``, ``*.toml`` or a folder of labelme files, where it is not beside the video.
        patched: the same recording with the patch on, to find the areas by differencing.
        hidden: a picture, or a folder of pictures, white where something stands in front of the areas.
        blocks: stretches of neighbouring frames that are groups of their own; without it two, noted.
        default_class: what the objects are where nothing says so; noted.
        progress: called with the share done and a word on it.

    Raises:
        DataError: no video, no frame that decodes, PyAV missing, a sidecar that is unreadable or does not fit.
    """
    found = beside(Path(path)).overruled(areas, patched, hidden)
    return scenes_of([(Path(path), found)], Path(path), blocks, default_class, progress)


def read_frames(
    path: Path,
    *,
    areas: Path | None = None,
    patched: Path | None = None,
    hidden: Path | None = None,
    blocks: int | None = None,
    default_class: str = "car",
    progress: Progress | None = None,
) -> Scenes:
    """The images of one folder as the frames of one video, in the order of the numbers in their names.

    Arguments and errors as for ``read_video``; ``patched`` is a folder too.
    """
    return read_video(
        path,
        areas=areas,
        patched=patched,
        hidden=hidden,
        blocks=blocks,
        default_class=default_class,
        progress=progress,
    )


def read_drives(
    path: Path, *, blocks: int | None = None, default_class: str = "car", progress: Progress | None = None
) -> Scenes:
    """A video, a folder of frames, or a folder of several of those; each is a group of its own.

    Beside ``drive1.mp4``, or the folder ``drive1`` of frames, may lie

    - ``drive1.areas.csv``: a table of corners, see ``read_areas_csv``; or
    - labelme files: in the folder with the frames, or for a video in ``drive1/``, see ``read_labelme``;
    - ``drive1.drive.toml``: a few annotated frames and a model for all others, see ``read_drive``; it takes the frames
      of a table or of labelme files where it holds none itself;
    - ``drive1.patched.mp4`` (a folder ``drive1.patched``): the same frames with a patch on, see ``find_areas``; it
      gives the areas of objects that have none;
    - ``drive1.hidden.png``, ``hidden.png`` for all, or ``drive1.hidden/`` with a picture per frame, named by its number
      from 0 (where the frames' own names are numbers, by those) or as the frame is: white where something stands in
      front of the areas.

    Frames that nothing is said of are left out; where nothing at all lies beside any of them, all frames are to be
    labelled by the model. A frame that does not decode is named in ``unreadable``. Where there is one video only, its
    halves (or ``blocks``) are the groups; frames on both sides of a border may look alike, and the notes say so.

    Raises:
        DataError: nothing to read, or as ``read_video``.
    """
    path = Path(path)
    chosen = drives_in(path)
    if not chosen:
        raise DataError(
            printable(f"video data {path}"),
            expected="a video, a folder of frames, or a folder of those",
            got="none",
            mend="check the path",
        )
    return scenes_of([(p, beside(p)) for p in chosen], path, blocks, default_class, progress)


def drives_in(path: Path) -> list[Path]:
    """The videos and the folders of frames at a path; what belongs to one of them is not one itself."""
    if path.is_file():
        return [path]
    entries = sorted(f for f in path.iterdir() if not f.name.startswith(".")) if path.is_dir() else []
    videos = [f for f in entries if _is_video(f) and Path(f.stem).suffix != ".patched"]
    if not videos and _shows(path):
        return [path]
    stems = {f.stem for f in videos}
    folders = [f for f in entries if f.is_dir() and f.suffix not in {".hidden", ".patched"} and f.name not in stems]
    return videos + [f for f in folders if pictures(f)]


def looks_like_drives(path: Path) -> bool:
    """Whether a file or folder is meant for ``read_drives``: a video, or frames with areas; images with a stray video
    among them are not.
    """
    if path.is_file():
        return _is_video(path)
    entries = list(path.iterdir())
    found = beside(path)
    if found.table or found.model or any(f.name.endswith((".areas.csv", ".drive.toml")) for f in entries):
        return True
    if any(_is_video(f) for f in entries) and not _shows(path):
        return True
    return any(_has_labelme(f) for f in (path, *(e for e in entries if e.is_dir())))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _shows(path: Path) -> bool:
    """Whether pictures lie in a folder that are frames, not masks."""
    return path.is_dir() and any(f.name != "hidden.png" and not f.stem.endswith(".hidden") for f in pictures(path))


def _has_labelme(folder: Path) -> bool:
    return any(is_labelme(f) for f in islice(folder.glob("[!.]*.json"), 3))
