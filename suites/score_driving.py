"""Scoring a patch as the driving competition did: stuck on every frame in perspective, every detector asked.

``python -m audit score driving`` loads this by name. The formulas are in ``audit.measures.driving``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from audit.contracts import Detector
from audit.data.scenes import Scene, Scenes
from audit.data.submissions import Submission
from audit.errors import DataError, ModelError
from audit.execution import Execution
from audit.measures.driving import (
    ATTACKED,
    DrivingScore,
    Rule,
    SceneShare,
    area_term,
    comparable,
    frame_clear,
)
from audit.state import frozen, modules_of
from probes.perspective import quad_map

TEXELS = 4_000_000
"""Texels seen at once: what each pixel sees of each texel takes some 300 bytes a texel while it is worked out."""
FRAMES = 8


def score(
    task: str,
    submission: Submission,
    scenes: Scenes,
    detectors: Mapping[str, Detector],
    execution: Execution,
    *,
    canvas: tuple[int, int],
    clean: bool = True,
    progress: Callable[[float, str], None] | None = None,
) -> DrivingScore:
    """Eq. 5 for one submission. One that breaks a rule is void and is not shown to the detectors.

    Args:
        task: ``truck`` or ``person``. detectors: name -> detector. canvas: (width, height) px.
        clean: also count the frames in which nothing is found without the patch.

    Raises:
        DataError: no frame, or no object to stick the patch on. ModelError: a detector that knows no attacked class.
    """
    rules = list(submission.rules)
    area = None if submission.mask is None else area_term(submission.mask, canvas)
    labels = {name: attacked_labels(name, detector, task) for name, detector in detectors.items()}
    places = {s.id: places_of(s, scenes.classes, task) for s in scenes}
    bare = [id for id, quads in places.items() if not len(quads)]
    if len(bare) == len(places):
        raise DataError(
            f"data {scenes.name}",
            expected=f"frames with areas, or with boxes of a {' or '.join(ATTACKED[task])}, to stick the patch on",
            got=f"{len(places)} frames without any",
            mend="give the objects that wear the patch a box of that class, or name their areas",
        )
    frames: dict[str, int] = {}
    for s in scenes:
        frames[scene_of(s, scenes)] = frames.get(scene_of(s, scenes), 0) + 1
    rules += comparable(len(detectors), frames)
    rules.append(
        Rule(
            "patch in every frame", not bare, f"{len(places)} frames", f"{len(places) - len(bare)} frames", voids=False
        )
    )
    known = {name: f"{name}: {len(found)}" for name, found in labels.items()}
    complete = all(len(found) == len(ATTACKED[task]) for found in labels.values())
    wanted = f"{len(ATTACKED[task])} ({', '.join(ATTACKED[task])})"
    rules.append(Rule("attacked classes known", complete, wanted, ", ".join(known.values()), voids=False))
    shares: list[SceneShare] = []
    if submission.pixels is not None and submission.mask is not None and all(r.ok for r in rules if r.voids):
        patch = texture(submission).to(execution.device)
        counts: dict[tuple[str, str], list[int]] = {(d, s): [0, 0] for d in detectors for s in frames}
        done = 0
        modules = modules_of(*detectors.values())
        size = max(1, min(FRAMES, TEXELS // (canvas[0] * canvas[1])))
        for batch in execution.batches(scenes, size):
            hidden = [s.hidden().to(execution.device).float() / 255 if s.hidden else None for s in batch.scenes]
            changed = stick(batch.images, patch, [places[s.id] for s in batch.scenes], hidden)
            for name, detector in detectors.items():
                threshold = float(detector.score_threshold)
                for column, images in enumerate([changed, batch.images] if clean else [changed]):
                    with frozen(modules):  # a model file may forget eval()
                        answers = execution.detect(detector, images)
                    for scene, found in zip(batch.scenes, answers, strict=True):
                        is_clear = frame_clear(found, labels[name], threshold)
                        counts[name, scene_of(scene, scenes)][column] += is_clear
            done += len(batch.scenes)
            if progress is not None:
                progress(done / len(scenes), task)
        shares = [
            SceneShare(name, scene, frames[scene], clear, without if clean else None)
            for (name, scene), (clear, without) in sorted(counts.items())
        ]
    return DrivingScore(task, tuple(rules), tuple(shares), submission.regions, area)


def scene_of(frame: Scene, scenes: Scenes) -> str:
    """The competition's scene of a frame: its video; frames of no video are one scene of the data's name."""
    if frame.group.startswith("image:"):
        return scenes.name
    # Not the group: two drives that share a frame are one group, and two scenes all the same.
    return frame.id.rpartition("/")[0] or frame.group.partition("#")[0]


def attacked_labels(name: str, detector: Detector, task: str) -> set[int]:
    """Which of a detector's labels the task attacks, by name without regard to case.

    Raises:
        ModelError: none.
    """
    found = {i for i, c in enumerate(detector.classes) if c.strip().lower() in ATTACKED[task]}
    if not found:
        raise ModelError(
            f"detector {name}",
            expected=f"a class among {', '.join(ATTACKED[task])}",
            got=", ".join(list(detector.classes)[:5]),
            mend="give a detector that knows them: one that does not finds none in any frame",
        )
    return found


def places_of(scene: Scene, classes: Sequence[str], task: str) -> Tensor:
    """(K, 4, 2) px, where the patch is stuck: every area that the data names, or else the attacked objects' boxes.

    An area says where the patch belongs, so that its object needs no class and may be ignored.
    """
    if scene.areas is not None:
        return scene.areas[scene.areas.isfinite().all(2).all(1)].float()
    wanted = torch.tensor([c.strip().lower() in ATTACKED[task] for c in [*classes, ""]])
    x1, y1, x2, y2 = scene.boxes[~scene.ignore & wanted[scene.labels]].float().unbind(1)
    return torch.stack([torch.stack(corner, 1) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], 1)


def texture(submission: Submission) -> Tensor:
    """(4, H, W) in [0, 1]: the patch's colours times its mask, and the mask."""
    assert submission.pixels is not None
    assert submission.mask is not None
    opacity = torch.from_numpy(submission.mask).float() / 255
    return torch.cat([torch.from_numpy(submission.pixels).permute(2, 0, 1).float() / 255 * opacity, opacity[None]])


def stick(images: Tensor, patch: Tensor, quads: Sequence[Tensor], hidden: Sequence[Tensor | None]) -> Tensor:
    """Images (N, 3, H, W) with the patch (4, P, Q) in every quad, in perspective, behind what hides it.

    The patch is used at its full size: averaged to texels of a fifth of a pixel first, pixels at edges of its
    pattern already change by up to 17 of 255.
    """
    size = (images.shape[2], images.shape[3])
    where = quad_map([q.to(images.device) for q in quads], size, hidden=hidden, device=images.device)
    seen = where.read(patch)
    opacity = seen[:, 3].clamp(0, 1)
    colour = seen[:, :3] / opacity.clamp(min=1e-6)[:, None]
    return where.write(images, colour.clamp(0, 1), opacity).clamp(0, 1)
