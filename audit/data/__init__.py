"""Data sets: readers that give Scenes, FacePairs, Clips or ClassImages, and the starter set."""

from audit.data.areas import read_areas_csv
from audit.data.attribution_sets import Attribution, split_attribution
from audit.data.class_folders import ClassImages, read_classes
from audit.data.clips import Clip, Clips
from audit.data.coco import read_coco
from audit.data.csv_boxes import read_csv
from audit.data.differencing import find_areas
from audit.data.drives import read_drives, read_frames, read_video
from audit.data.face_pairs import read_lfw_pairs, read_pairs_csv
from audit.data.faces import Face, FacePairs, Portraits
from audit.data.folder import read_folder, self_label
from audit.data.groups import group_by
from audit.data.identities import read_competition, read_gallery, read_identities
from audit.data.labelme import read_labelme
from audit.data.open import FORMATS, open_scenes
from audit.data.open_clips import CLIP_FORMATS, open_clips
from audit.data.open_faces import FACE_FORMATS, open_faces
from audit.data.people import read_people
from audit.data.pinhole import PinholeFit, fit_pinhole, pinhole
from audit.data.polynomial import fit_polynomial
from audit.data.scenes import Scene, Scenes, Unreadable
from audit.data.starter import starter
from audit.data.torchvision_sets import from_coco_detection, from_lfw_pairs, from_wider_face
from audit.data.voc import read_voc
from audit.data.wider import read_wider
from audit.data.yolo import read_yolo

__all__ = [
    "CLIP_FORMATS",
    "FACE_FORMATS",
    "FORMATS",
    "Attribution",
    "ClassImages",
    "Clip",
    "Clips",
    "Face",
    "FacePairs",
    "PinholeFit",
    "Portraits",
    "Scene",
    "Scenes",
    "Unreadable",
    "find_areas",
    "fit_pinhole",
    "fit_polynomial",
    "from_coco_detection",
    "from_lfw_pairs",
    "from_wider_face",
    "group_by",
    "open_clips",
    "open_faces",
    "open_scenes",
    "pinhole",
    "read_areas_csv",
    "read_classes",
    "read_coco",
    "read_competition",
    "read_csv",
    "read_drives",
    "read_folder",
    "read_frames",
    "read_gallery",
    "read_identities",
    "read_labelme",
    "read_lfw_pairs",
    "read_pairs_csv",
    "read_people",
    "read_video",
    "read_voc",
    "read_wider",
    "read_yolo",
    "self_label",
    "split_attribution",
    "starter",
]
