"""Which of the forgeries made from real faces real detectors see: LFW and four MesoNets.

The detectors know Deepfakes or Face2Face, not these faces: at their thresholds they call seven of ten real ones fake,
so what counts is whether forging raises the score. Nothing is claimed of forgeries that are not named here.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from audit.data.images import read_as
from probes.forgery.face_geometry import usual_place
from probes.forgery.forgers import FORGERS
from tests.kit import _lfw_landmarks, kit, mesonet_model
from tests.lfw import FACE

PEOPLE = 200
SEEN = ("warped face", "up-sampled, bilinear", "up-sampled, transposed")
"""By Meso4 trained on Deepfakes."""

pytestmark = [pytest.mark.kit, pytest.mark.slow]


@pytest.fixture(scope="module")
def lfw():
    """Faces of different people cut out at 1.3 times the box, 256 × 256, with landmarks, and their names."""
    root = kit("lfw_fold1", "images")
    names = [min(p.glob("*.jpg")).relative_to(root).as_posix() for p in sorted(root.iterdir()) if p.is_dir()]
    names = names[:PEOPLE]
    left, top, right, bottom = FACE
    side = round(1.3 * max(right - left, bottom - top))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    faces = []
    for name in names:
        whole = read_as(root / name, (250, 250)).permute(1, 2, 0).numpy()
        faces.append(cv2.resize(whole[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_LINEAR))
    found = _lfw_landmarks(root, names)
    there = np.stack([found[n] for n in names])
    there = (there - [x, y] + 0.5) * 256 / side - 0.5
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(there), names


def scores(model, faces):
    return np.concatenate([model.ask(part) for part in faces.split(32)])


def test_the_usual_place_is_where_the_landmarks_of_real_faces_are(lfw):
    _, landmarks, names = lfw
    assert len(names) == PEOPLE
    away = np.abs(landmarks.nanmedian(0).values.numpy() - usual_place((256, 256)))
    assert away.max() < 8, "px of 256"


@pytest.fixture(scope="module")
def meso4(lfw):
    model = mesonet_model("Meso4_DF")
    return model, scores(model, lfw[0])


@pytest.mark.parametrize("name", SEEN)
def test_a_real_detector_sees_it_far_above_chance(lfw, meso4, name):
    faces, landmarks, names = lfw
    model, clean = meso4
    before = faces.clone()
    found = scores(model, FORGERS[name]().forge(faces, landmarks, ids=names, seed=0))
    assert torch.equal(faces, before)
    test = mannwhitneyu(found, clean, alternative="greater")
    auc = np.mean((found[:, None] > clean) + 0.5 * (found[:, None] == clean))
    assert auc == pytest.approx(test.statistic / PEOPLE**2)
    assert test.pvalue < 0.001, f"AUC {auc:.3f}"
