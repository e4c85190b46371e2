"""A patch that is really worn: put on a little askew, seen from a little aside, in other light, through a camera."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import CHIP, Alignment
from audit.examples import Attacked, Examples
from probes.draws import Draw
from probes.homography import homography
from probes.physical import EOT
from probes.probe import generator
from probes.recognition.ensemble import Aimed, Weights
from probes.recognition.face_patch import FacePatch
from probes.recognition.masks import FaceMask, Mask
from probes.recognition.placing import to_bytes, unit_grid
from probes.recognition.transforms import Pipeline

WORN = EOT(
    scale=0.05,
    rotation=4.0,
    shift=0.04,
    perspective=0.03,
    brightness=0.2,
    contrast=0.15,
    gamma=0.25,
    shadow=0.25,
    blur_before=0.0,
    blur_after=0.8,
    noise=0.02,
    jpeg=None,
    camera=0.0,
)
"""A patch put on by its wearer before a good camera indoors: some 3 px beside its place on an aligned face."""
LOOKS, JUDGED = 8, 4
_ALL_OF_IT = ("paper", "colours", "snap", "blur_before")
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Wearing:
    """N photographs and where the patch is worn in them; all but the photographs within the box of all faces.

    Attributes:
        box: rows and columns that hold all aligned faces and all masks. clean: (N, 3, h, w) in [0, 1].
        masks: (N, h, w) bool. faces: (N, h, w) bool, what an aligned face shows.
        places: (N, h, w, 2) where each pixel lies in the aligned face, as shares of its side.
    """

    box: tuple[slice, slice]
    clean: Tensor
    masks: Tensor
    faces: Tensor
    places: Tensor

    @classmethod
    def of(cls, clean: Tensor, landmarks: Tensor, masks: Tensor) -> Wearing:
        """Of photographs (N, 3, H, W) in [0, 1] with landmarks (N, 5, 2) px; all on one device."""
        size = (int(clean.shape[2]), int(clean.shape[3]))
        at = Alignment.by_landmarks(landmarks.to(clean.device), size, (CHIP, CHIP))
        faces = at.to_photo(torch.ones(CHIP, CHIP, dtype=torch.bool, device=clean.device))
        box = _box(faces | masks)
        places = torch.einsum("nij,hwj->nhwi", at.matrix, _pixels(box, clean.device)) / CHIP
        return cls(box, clean[:, :, *box], masks[:, *box], faces[:, *box], places.float())

    def __getitem__(self, index: Tensor) -> Wearing:
        return Wearing(self.box, self.clean[index], self.masks[index], self.faces[index], self.places[index])

    def seen(self, images: Tensor, draw: Draw) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the patches of photographs that wear them, as the draw has them seen.

        The patch is moved, turned, scaled and bent as the box around its mask is; then comes the light on the whole
        face, and the camera that takes it. What lies outside the aligned face stays as it is.

        Args:
            images: (N, 3, H, W) in [0, 1], differentiable. draw: for one object in one image, applied to all.
        """
        draw = _for_all(draw, len(images))
        boxes = self._boxes()
        maps = homography(draw.quads(boxes), boxes)
        part = images[:, :, *self.box]
        if bool(((maps - torch.eye(3).to(maps)).abs() > 1e-9).any()):
            part = self._moved(part, maps)
        image, y, x = self.faces.nonzero(as_tuple=True)
        colours = part[image, :, y, x]
        lit = draw.light(colours, image, self.places[image, y, x])
        if lit is not colours:
            channels = torch.arange(3, device=image.device)
            part = part.index_put((image[:, None], channels, y[:, None], x[:, None]), lit)
        out = images.clone()
        out[:, :, *self.box] = part
        # The camera's noise and blocks have their places in the photograph, not in the box.
        height, width = images.shape[2:]
        return draw.camera(out, (image * height + y + self.box[0].start) * width + x + self.box[1].start)

    def _moved(self, part: Tensor, maps: Tensor) -> Tensor:
        """The clean photographs with the patches of these ones at other places; maps (N, 3, 3): seen px to worn px."""
        height, width = part.shape[2:]
        at = torch.einsum("nij,hwj->nhwi", maps, _pixels((slice(0, height), slice(0, width)), part.device))
        grid = unit_grid(at[..., :2] / at[..., 2:], (height, width))
        cover = self.masks[:, None].to(part)
        read = F.grid_sample(torch.cat([part * cover, cover], 1), grid, align_corners=True)
        # Colours come multiplied by the share of the pixel that the patch covers.
        return self.clean * (1 - read[:, 3:]) + read[:, :3]

    def _boxes(self) -> Tensor:
        """(N, 4, 2) corners of the boxes around the masks, from the upper left on, clockwise; all of an empty mask."""
        out = []
        for along in (2, 1):  # columns, rows
            used = self.masks.any(3 - along).float()
            first = used.argmax(1)
            last = used.shape[1] - 1 - used.flip(1).argmax(1)
            out.append((first - 0.5, last + 0.5))
        (left, right), (top, bottom) = out
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return torch.stack([torch.stack(c, 1) for c in corners], 1).double()


@dataclass(frozen=True, eq=False)
class WornAimed(Aimed):
    """Recognizers that see a patch worn: each step under conditions of its own, judged by the mean of a few others."""

    wearing: Wearing = field(kw_only=True)
    eot: EOT = field(kw_only=True)
    seed: int = field(kw_only=True)

    def __getitem__(self, index: Tensor) -> WornAimed:
        inner = super().__getitem__(index)
        assert isinstance(inner, WornAimed)
        return replace(inner, wearing=self.wearing[index])

    def margins(self, images: Tensor) -> Tensor:
        """(K, N) mean over the looks that judge."""
        stream = generator("worn patch, judged", self.seed)
        with torch.inference_mode():
            looks = [self.wearing.seen(images, self.eot.draw(stream, 1, 1)) for _ in range(JUDGED)]
        return torch.stack([super(WornAimed, self).margins(look) for look in looks]).mean(0)

    def gradient(
        self, images: Tensor, pipeline: Pipeline, stream: torch.Generator, weights: Weights
    ) -> tuple[Tensor, Tensor | None]:
        """As for ``Aimed``, through one look; no margins, for what this look shows judges nothing."""
        leaf = images.detach().requires_grad_()
        with torch.enable_grad():
            seen = self.wearing.seen(leaf, self.eot.draw(stream, 1, 1))
        pull, _ = super().gradient(seen, pipeline, stream, weights)
        (back,) = torch.autograd.grad(seen, leaf, pull)
        return back, None


@dataclass(frozen=True, kw_only=True, repr=False)
class WornPatch(FacePatch):
    """A patch per pair by gradients through the conditions under which it is worn (EOT; Athalye et al. 2018).

    Args:
        eot: what may happen to it. Each step draws anew, one draw for all pairs; the best patch is the one with the
            best mean margin over ``JUDGED`` draws of its own.
    """

    mask: Mask = field(default_factory=FaceMask, kw_only=False)
    eot: EOT = WORN

    goal: ClassVar[str] = "somebody who really wears a patch is taken for another, or no longer for themselves"
    threat: ClassVar[str] = (
        "Somebody who has the recognizer, prints a patch and wears it: pose, light, camera and how it is put on vary."
    )

    def __repr__(self) -> str:
        return f"{super().__repr__()} worn"

    @property
    def name(self) -> str:
        return f"worn patch per pair ({self!r})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        return {**super().spec(), "probe": "worn face patch", "eot": self.eot.spec()}

    def aim(self, aimed: Aimed, attacked: Attacked, masks: Tensor, seed: int) -> Aimed:
        clean = attacked.sources.images.to(masks.device).float() / 255
        inner = {f.name: getattr(aimed, f.name) for f in fields(Aimed)}
        return WornAimed(**inner, wearing=Wearing.of(clean, attacked.sources.landmarks, masks), eot=self.eot, seed=seed)


def worn_looks(
    examples: Examples, attacked: Attacked, n: int = LOOKS, seed: int = 0, eot: EOT = WORN
) -> dict[str, Examples]:
    """The same patches seen under ``n`` drawn conditions, each the same for all pairs: ``look 1`` and so on.

    Their photographs are no proposals under the rules: light and camera change the whole face. Details: ``draw``.
    """
    stream = generator("worn looks", seed)
    out = {}
    for look in range(n):
        draw = eot.draw(stream, 1, 1)
        seen = [
            to_bytes(_wearing(examples, attacked, slice(i, i + _CHUNK), draw))
            for i in range(0, len(examples.images), _CHUNK)
        ]
        images = torch.cat(seen) if seen else examples.images.clone()
        out[f"look {look + 1}"] = Examples(images, examples.masks, details={"draw": draw.to_json()})
    return out


def _wearing(examples: Examples, attacked: Attacked, part: slice, draw: Draw) -> Tensor:
    clean = attacked.sources.images[part].float() / 255
    wearing = Wearing.of(clean, attacked.sources.landmarks[part], examples.masks[part])
    with torch.inference_mode():
        return wearing.seen(examples.images[part].float() / 255, draw)


def _box(masks: Tensor) -> tuple[slice, slice]:
    """The rows and columns that hold all masks (N, H, W); one of each where nothing is masked."""
    used = [torch.nonzero(masks.any(0).any(axis))[:, 0].tolist() or [0] for axis in (1, 0)]
    return slice(used[0][0], used[0][-1] + 1), slice(used[1][0], used[1][-1] + 1)


def _pixels(box: tuple[slice, slice], device: torch.device) -> Tensor:
    """(h, w, 3) float64: (x, y, 1) of each pixel of the box."""
    y, x = torch.meshgrid(*(torch.arange(s.start, s.stop, device=device) for s in box), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).double()


def _for_all(draw: Draw, n: int) -> Draw:
    """A draw for one object in one image as one for n of both."""
    values = {f.name: getattr(draw, f.name) for f in fields(draw)}
    return Draw(**{
        name: v if v is None or name in _ALL_OF_IT else v.expand(n, *v.shape[1:]) for name, v in values.items()
    })  # fmt: skip
