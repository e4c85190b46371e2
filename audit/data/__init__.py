"""Data sets: readers that give Scenes, and the starter set."""

from audit.data.coco import read_coco
from audit.data.csv_boxes import read_csv
from audit.data.folder import read_folder, self_label
from audit.data.groups import group_by
from audit.data.open import FORMATS, open_scenes
from audit.data.scenes import Scene, Scenes, Unreadable
from audit.data.starter import starter
from audit.data.torchvision_sets import from_coco_detection, from_wider_face
from audit.data.voc import read_voc
from audit.data.wider import read_wider
from audit.data.yolo import read_yolo

__all__ = [
    "FORMATS",
    "Scene",
    "Scenes",
    "Unreadable",
    "from_coco_detection",
    "from_wider_face",
    "group_by",
    "open_scenes",
    "read_coco",
    "read_csv",
    "read_folder",
    "read_voc",
    "read_wider",
    "read_yolo",
    "self_label",
    "starter",
]
