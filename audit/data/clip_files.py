"""Which files below a folder are clips: videos, photographs, folders of frames."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audit.data import images, video_index

FORMS = ("videos", "images", "frames", "faces", "crops")
"""Folders that say in what form their clips lie; the first is taken where there are several."""
CROPS = frozenset({"faces", "crops", "face", "cropped"})
"""Folders whose clips are faces cut out already."""
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "devel": "val", "development": "val", "test": "test", "testing": "test"}  # fmt: skip
"""What splits are called -> the three that clips know."""

_WORD = r"(?:(?<![a-z])(?:frame|face))?"
_NUMBER = re.compile(rf"(.*?)[ ._\-]*{_WORD}[ ._\-]*\d+", re.IGNORECASE | re.DOTALL)
_ANOTHER = re.compile(rf"(.*?)[ ._\-]+{_WORD}[ ._\-]*\d+", re.IGNORECASE | re.DOTALL)
_SWAP = re.compile(r"([0-9]{3})_([0-9]{3})(?![0-9])|([0-9]{4,})_([0-9]{4,})_[0-9]{3,}")
"""Two videos at the start of a still's name. Longer numbers need a frame's number after them: 00170_00012.png."""


@dataclass(frozen=True, slots=True)
class Found:
    """A clip by its files.

    Attributes:
        name: path below the root of the video, the photograph, or the folder of the frames. frames: paths below the
            root of its stills, in order; empty for a video.
    """

    name: str
    frames: tuple[str, ...] = ()

    @property
    def still(self) -> bool:
        """Whether it is a photograph or frames of one video."""
        return bool(self.frames)

    @property
    def photograph(self) -> bool:
        """Whether it is one file and not a video."""
        return self.frames == (self.name,)

    @property
    def stem(self) -> str:
        """Its name without folders and suffix."""
        path = PurePosixPath(self.name)
        suffixes = video_index.SUFFIXES | (images.SUFFIXES if self.photograph else frozenset())
        return path.stem if path.suffix.lower() in suffixes else path.name

    @property
    def in_crops(self) -> bool:
        """Whether it lies in a folder for faces that are cut out already."""
        return any(p.lower() in CROPS for p in PurePosixPath(self.name).parts[:-1])


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip and what the folders that it lies in say of it; ``below``: the folders between those and the clip."""

    found: Found
    method: str
    domain: str
    split: str
    below: tuple[str, ...]


def files_below(root: Path) -> list[str]:
    """Names of the videos and images in and below a folder, numbers in order; hidden files are left aside.

    Links are followed, since the owner laid them; each folder is entered once, however many links lead to it.

    Raises:
        OSError: a folder cannot be listed.
    """
    kinds = video_index.SUFFIXES | images.SUFFIXES
    found: list[str] = []
    entered: set[str] = set()
    own, linked = deque([(root, "")]), deque[tuple[Path, str]]()
    while own or linked:
        folder, prefix = own.popleft() if own else linked.popleft()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        with os.scandir(folder) as entries:
            seen = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for e in seen:
            if e.is_dir():
                (linked if e.is_symlink() else own).append((Path(e.path), f"{prefix}{e.name}/"))
            elif os.path.splitext(e.name)[1].lower() in kinds:  # noqa: PTH122  a Path per file is slow
                found.append(prefix + e.name)  # a link that leads nowhere too: it is reported as unreadable
    return sorted(found, key=natural)


def clips_among(names: Iterable[str], flat: Callable[[str], bool]) -> tuple[list[Found], int]:
    """The clips that these files are, and how many folders of frames were left aside for the video itself.

    Every video is a clip. Every image in a folder for which ``flat`` holds is one too; the images of another folder are
    the frames of one clip, unless a video of that name lies beside the folder.
    """
    videos: list[Found] = []
    photographs: list[Found] = []
    frames: dict[str, list[str]] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        if os.path.splitext(name)[1].lower() in video_index.SUFFIXES:  # noqa: PTH122
            videos.append(Found(name))
        elif flat(folder):
            photographs.append(Found(name, (name,)))
        else:
            frames.setdefault(folder, []).append(name)
    doubled = {f.name.rpartition(".")[0] for f in videos} & frames.keys()
    folders = [Found(n, tuple(f)) for n, f in frames.items() if n not in doubled]
    return [*videos, *photographs, *folders], len(doubled)


def class_tree(
    names: Iterable[str], genuine: Collection[str], fake: Collection[str], unnamed: str, methods: Collection[str] = ()
) -> tuple[list[Placed], int]:
    """The clips of folders such as ``real/`` and ``fake/<method>/``, and how many folders of frames were left aside.

    The first folder of a file's path that has such a name, in any case, says the class. Folders before it are the
    domain, but for one such as ``train``, which is the split (and may lie below instead). The folder after ``fake/`` is
    the method; what lies in ``fake/`` itself is of the method ``unnamed``. Files in no such folder are passed over.

    Args:
        methods: paths of folders that are a method themselves, without ``fake/`` above them.
    """
    about: dict[str, tuple[str, str, str, int]] = {}
    for name in names:
        folders = name.split("/")[:-1]
        kinds = ["real" if f.lower() in genuine else "fake" if f.lower() in fake else
                 "method" if "/".join(folders[: i + 1]) in methods else "" for i, f in enumerate(folders)]  # fmt: skip
        at = next((i for i, k in enumerate(kinds) if k), None)
        if at is not None:
            domain = "/".join(f for f in folders[:at] if f.lower() not in SPLITS)
            split, form, base = _words(folders, at + 1)
            method = {"real": "", "fake": unnamed, "method": folders[at]}[kinds[at]]
            if kinds[at] == "fake" and not form and base < len(folders):
                method = folders[base]
                later, _, base = _words(folders, base + 1)
                split = split or later
            splits = [*(SPLITS[f.lower()] for f in folders[:at] if f.lower() in SPLITS), split]
            about[name] = (method, domain, splits[0], base)
    bases = {"/".join(n.split("/")[: b[3]]) for n, b in about.items()}
    clips, doubled = clips_among(about, bases.__contains__)
    placed = []
    for c in clips:
        method, domain, split, base = about[c.frames[0] if c.still else c.name]
        placed.append(Placed(c, method, domain, split, tuple(c.name.split("/")[base:-1])))
    return placed, doubled


def _words(folders: Sequence[str], at: int) -> tuple[str, bool, int]:
    """The split that the folders from ``at`` on name, whether a form, and where they go on."""
    split, form = "", False
    while at < len(folders) and (folders[at].lower() in SPLITS or folders[at].lower() in FORMS):
        split = split or SPLITS.get(folders[at].lower(), "")
        form = form or folders[at].lower() in FORMS
        at += 1
    return split, form, at


def sources(found: Found) -> tuple[str, ...]:
    """The videos that a clip was made of, by its name as FaceForensics++ gives them.

    ``519`` is of 519 and ``519_515`` of 519 and 515: one number or two of as many digits. Another name is a source by
    itself. A photograph is a frame, maybe one face of it: what stands behind two numbers of three digits does not
    count, and other names lose the numbers at their end. ``519_515_0012_0.png`` is of 519 and 515, ``519_0012_0.png``
    of 519, ``anna_0007.png`` and ``anna_0008_1.png`` are of one source.
    """
    stem = found.stem
    pair = _SWAP.match(stem) if found.photograph else re.fullmatch(r"([0-9]+)_([0-9]+)", stem)
    if pair:
        one, two = (n for n in pair.groups() if n is not None)
        if len(one) == len(two):
            return one, two
    return (without_frame(stem) if found.photograph else stem,)


def without_frame(stem: str) -> str:
    """A name without the numbers at its end, of a frame and of a face in it, as far as something is left.

    The first may stand close to the name, the others stand apart: ``clip7 frame 12`` is of ``clip7``.
    """
    match = _NUMBER.fullmatch(stem)
    while match and match[1]:
        stem = match[1]
        match = _ANOTHER.fullmatch(stem)
    return stem


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key by which frame 9 comes before frame 10."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((1, int(p)) if i % 2 else (0, p) for i, p in enumerate(pieces))
