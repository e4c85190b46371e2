"""Files from strangers, in a folder or a zip: listed, held against limits, read one by one, never unpacked.

Nothing is written anywhere. A zip that means harm is refused as a whole, with the name of the entry; what is merely of
no use (a folder, a link in a folder, an odd name) is listed beside.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audit.errors import DataError

MOST_BYTES = 1 << 20
"""Of one file, unpacked: a 112 × 112 picture has 37 632."""

MOST_FILES = 100_000
MOST_PACKED = 4 << 30
MOST_DIRECTORY = 8 << 20
"""Of a zip's list of entries, each 46 bytes with its name and what a packer adds: some 80."""

MOST_RATIO = 200
"""Unpacked to packed bytes of an entry of more than 64 KiB; PNG files hardly shrink at all."""

_SMALL = 1 << 16
_LISTED = b"PK\1\2"
_SPECIAL = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class Unusable(Exception):
    """A file of a bundle cannot be read; the text says why."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """The files at the top of a folder or a zip.

    Attributes:
        path: as given. names: of what can be read. others: name -> why it cannot (a folder, a link).
    """

    path: Path
    names: frozenset[str]
    others: Mapping[str, str]
    _read: Callable[[str], bytes] = field(repr=False)

    def read(self, name: str) -> bytes:
        """The bytes of one of ``names``, at most ``MOST_BYTES``; safe to call from several threads.

        Raises:
            Unusable: it is larger, broken, or gone.
        """
        try:
            data = self._read(name)
        except Exception as error:  # zipfile and zlib raise many things on hostile bytes; each becomes a reason
            raise Unusable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if len(data) > MOST_BYTES:
            raise Unusable(f"more than {MOST_BYTES} bytes")
        return data


def open_bundle(path: Path, what: str) -> Bundle:
    """A folder or a zip.

    Args:
        what: what it is, for errors, such as "submission".

    Raises:
        DataError: nothing there, neither of both, too many files, or a zip with an entry that means harm: a path that
        leads out, is absolute or has a backslash, a link, a name twice, encryption, more bytes than ``MOST_BYTES``, a
        ratio above ``MOST_RATIO``, a compression that cannot be bounded.
    """
    subject = f"{what} {plain(str(path))}"
    try:
        if path.is_dir():
            return _folder(path, subject)
        if path.is_file():
            return _archive(path, subject)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _refused(subject, getattr(error, "strerror", None) or str(error), "correct the path") from error
    raise _refused(subject, "nothing there", "correct the path")


def plain(name: str) -> str:
    """A name that cannot move the cursor, ring a bell or turn the line round; long ones are cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _folder(path: Path, subject: str) -> Bundle:
    names: set[str] = set()
    others: dict[str, str] = {}
    with os.scandir(path) as entries:
        for entry in entries:
            if len(names) + len(others) >= MOST_FILES:
                raise _refused(subject, f"more than {MOST_FILES} files", "hand in the pictures alone")
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISREG(mode):
                names.add(entry.name)
            else:
                others[entry.name] = "a folder" if stat.S_ISDIR(mode) else _SPECIAL.get(stat.S_IFMT(mode), "no file")

    def read(name: str) -> bytes:
        # neither a link nor a pipe that was put there since
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path / name, flags), "rb") as file:
            return file.read(MOST_BYTES + 1)

    return Bundle(path, frozenset(names), others, read)


def _archive(path: Path, subject: str) -> Bundle:
    if path.stat().st_size > MOST_PACKED:
        raise _refused(subject, f"more than {MOST_PACKED} bytes", "hand in the pictures alone")
    try:
        archive = zipfile.ZipFile(_Guarded(io.FileIO(path)))
        entries = archive.infolist()
    except Unusable as error:
        raise _refused(subject, str(error), "hand in the pictures alone") from error
    except Exception as error:  # as in Bundle.read
        raise _refused(subject, f"no zip that can be read: {plain(str(error))}", "pack it again") from error
    found: dict[str, zipfile.ZipInfo] = {}
    others: dict[str, str] = {}
    for entry in entries:
        wrong = _harm(entry) or ("a name twice" if entry.filename in found or entry.filename in others else "")
        if wrong:
            raise _refused(
                subject, f"{plain(entry.orig_filename)}: {wrong}", "pack the pictures alone, and no other way"
            )
        if entry.is_dir():
            others[entry.filename] = "a folder"
        elif "/" in entry.filename:
            others[entry.filename] = "in a folder"
        else:
            found[entry.filename] = entry

    def read(name: str) -> bytes:
        with archive.open(found[name]) as file:
            return file.read(MOST_BYTES + 1)

    return Bundle(path, frozenset(found), others, read)


class _Guarded(io.BufferedReader):
    """A zip under the eyes of ``zipfile``, which asks for the whole list of entries in one piece and makes an object of
    each. The numbers at the end of the file are no guide: ``zipfile`` goes by the list's bytes, not by the count there.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_DIRECTORY:
            raise Unusable(f"a list of entries of more than {MOST_DIRECTORY} bytes")
        data = super().read(size)
        if data.count(_LISTED) > MOST_FILES:
            raise Unusable(f"more than {MOST_FILES} files")
        return data

    def __del__(self) -> None:
        self.close()  # ZipFile closes only what it opened itself


def _harm(entry: zipfile.ZipInfo) -> str:
    """Why an entry is refused; empty where it is not."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    for name in (entry.filename, entry.orig_filename):
        if name.startswith("/") or name[1:2] == ":" or "\\" in name or "\0" in name:
            return "no relative path"
        if ".." in name.split("/"):
            return "a path that leads out"
    if kind in _SPECIAL:
        return _SPECIAL[kind]
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "neither stored nor deflated"  # the other decoders of the standard library unpack without a bound
    if entry.file_size > MOST_BYTES:
        return f"{entry.file_size} bytes unpacked, at most {MOST_BYTES} are allowed"
    if entry.file_size > _SMALL and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        return f"{entry.file_size} bytes out of {entry.compress_size}"
    return ""


def _refused(subject: str, got: str, mend: str) -> DataError:
    return DataError(subject, expected="a folder, or a zip, of PNG files", got=got, mend=mend)
