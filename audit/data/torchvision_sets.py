"""Data sets that a user already has open in torchvision."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from audit.data.assemble import Progress
from audit.data.coco import from_tables
from audit.data.face_set import Pair, assemble_faces, described
from audit.data.faces import FacePairs
from audit.data.people import people_beside
from audit.data.scenes import Scenes
from audit.data.wider import read_wider
from audit.errors import DataError
from audit.landmarks import Finder


def from_wider_face(dataset: Any, *, progress: Progress | None = None) -> Scenes:
    """Scenes of a ``torchvision.datasets.WIDERFace`` of the train or val split, see ``read_wider``.

    The text behind the data set is read again: torchvision (0.26, say) names its columns in another order than WIDER's
    readme, so that ``annotations["invalid"]`` is in truth the pose, and an image without faces has one of zeros there.

    Raises:
        DataError: another object, or the test split, which has no boxes.
    """
    split = getattr(dataset, "split", None)
    if split not in {"train", "val"} or not hasattr(dataset, "img_info"):
        raise DataError(
            "WIDERFace data set",
            expected="torchvision.datasets.WIDERFace with split 'train' or 'val'",
            got=f"{type(dataset).__name__} with split {split!r}",
            mend="open the split 'val'",
        )
    root = Path(dataset.root)
    text = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    return read_wider(text, images=root / f"WIDER_{split}" / "images", progress=progress)


def from_coco_detection(dataset: Any, *, progress: Progress | None = None) -> Scenes:
    """Scenes of a ``torchvision.datasets.CocoDetection``, see ``read_coco``; where its ``ids`` were cut, of those.

    Raises:
        DataError: another object, or none usable.
    """
    tables = getattr(getattr(dataset, "coco", None), "dataset", None)
    if not isinstance(tables, dict):
        raise DataError(
            "CocoDetection data set",
            expected="torchvision.datasets.CocoDetection",
            got=type(dataset).__name__,
            mend="hand in the data set object itself",
        )
    cut = {i["id"] for i in tables["images"]} - set(dataset.ids)
    chosen = {
        **tables,
        "images": [i for i in tables["images"] if i["id"] not in cut],
        "annotations": [a for a in tables["annotations"] if a["image_id"] not in cut],
    }
    root = Path(dataset.root)
    return from_tables(chosen, root, name=root.name, source=f"torchvision CocoDetection in {root}", progress=progress)


def from_lfw_pairs(dataset: Any, *, finder: Finder | None = None, progress: Progress | None = None) -> FacePairs:
    """Pairs of a ``torchvision.datasets.LFWPairs``; ``faces.csv`` may lie beside the folders of its people.

    Its images are read from their files, without its transforms.

    Raises:
        DataError: another object, or no usable pair.
    """
    data, targets, folder = (getattr(dataset, name, None) for name in ("data", "targets", "images_dir"))
    if (
        not isinstance(data, list)
        or not isinstance(targets, list)
        or folder is None
        or getattr(dataset, "view", None) != "pairs"
    ):
        raise DataError(
            "LFWPairs data set",
            expected="torchvision.datasets.LFWPairs",
            got=type(dataset).__name__,
            mend="hand in the data set object itself",
        )
    root = Path(folder)
    people = people_beside(root, root.parent)
    names = [tuple(PurePath(p).relative_to(root).as_posix() for p in pair) for pair in data]
    pairs: list[Pair] = [(a, b, bool(t)) for (a, b), t in zip(names, targets, strict=True)]
    entries = [described(n, n.partition("/")[0], people) for n in dict.fromkeys(n for pair in names for n in pair)]
    return assemble_faces(entries, pairs, root, name="LFW", source=f"torchvision LFWPairs in {root}",
                          finder=finder or Finder(), progress=progress)  # fmt: skip
