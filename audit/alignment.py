"""From a photograph to the face that a recognizer asks for, by five landmarks, differentiable in the photograph.

Coordinates are (x, y) px with whole numbers in the middle of pixels, as OpenCV's warpAffine has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import DataError

CHIP = 112
ARCFACE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""(5, 2) where the usual alignment to 112 × 112 puts eyes, nose and corners of the mouth (Deng et al. 2019)."""

_SAME = 1e-4


def template_for(face_size: tuple[int, int], template: object = None) -> Tensor:
    """(5, 2) float32 px: the model's own template, else ``ARCFACE`` stretched to its face size (height, width)."""
    if template is None:
        return ARCFACE * torch.tensor([face_size[1] / CHIP, face_size[0] / CHIP])
    own = torch.as_tensor(template, dtype=torch.float32)
    if own.shape != (5, 2) or not bool(own.isfinite().all()):
        raise DataError(
            "template of a recognizer",
            expected="(5, 2) finite (x, y) px: eyes, nose, corners of the mouth",
            got=f"shape {tuple(own.shape)}",
            mend="write five points",
        )
    return own


def similarity_transform(points: Tensor, onto: Tensor) -> Tensor:
    """(N, 2, 3) float64 A with A·(x, y, 1) nearest to ``onto`` in least squares.

    A turn, one scale and a shift, no mirroring (Umeyama 1991).

    Args:
        points: (N, 5, 2) px. onto: (5, 2) px.

    Raises:
        DataError: points that are not finite, or all in one place.
    """
    source, target = points.double(), onto.double().to(points.device)
    mean, middle = source.mean(1, keepdim=True), target.mean(0)
    a, b = source - mean, target - middle
    spread = (a**2).sum((1, 2))
    if not bool(source.isfinite().all()) or bool((spread < 1e-6).any()):
        raise DataError(
            "landmarks",
            expected="five finite points apart from each other for every face",
            got="points that are not finite or all in one place",
            mend="mend or leave out those faces",
        )
    # In the plane the best turn and scale is one complex number.
    real = (a * b).sum((1, 2)) / spread
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / spread
    turn = torch.stack([torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)], 1)
    shift = middle - (turn @ mean.transpose(1, 2))[..., 0]
    return torch.cat([turn, shift[..., None]], 2)


@dataclass(frozen=True, eq=False)
class Alignment:
    """How N photographs of one size are turned into faces for one model.

    Attributes:
        matrix: (N, 2, 3) float64, photograph px to face px. photo, face: (height, width) of both.
    """

    matrix: Tensor
    photo: tuple[int, int]
    face: tuple[int, int]

    @classmethod
    def by_landmarks(
        cls, landmarks: Tensor, photo: tuple[int, int], face: tuple[int, int], template: Tensor | None = None
    ) -> Alignment:
        """From landmarks (N, 5, 2) px of photographs of size ``photo``."""
        onto = template_for(face) if template is None else template
        return cls(similarity_transform(landmarks, onto), photo, face)

    def __getitem__(self, index: Tensor | slice | list[int]) -> Alignment:
        return Alignment(self.matrix[index], self.photo, self.face)

    def __len__(self) -> int:
        return len(self.matrix)

    @cached_property
    def scale(self) -> Tensor:
        """(N,) face px per photograph px."""
        area: Tensor = torch.linalg.det(self.matrix[:, :, :2]).abs()
        return area.sqrt()

    @cached_property
    def _parts(self) -> list[tuple[Tensor, int, Tensor | None]]:
        """(which photographs, s, where grid_sample reads them (n, h·s, w·s, 2)) for each s; s = 0: as they are.

        What is read of one photograph must not depend on the others of its batch.
        """
        eye = torch.eye(2, 3, dtype=torch.float64, device=self.matrix.device)
        finer = (1 / self.scale.clamp(min=1e-3)).round().clamp(min=1).long()
        if self.photo == self.face:
            finer[(self.matrix - eye).abs().amax((1, 2)) < _SAME] = 0
        steps = sorted(set(finer.tolist()))
        each = [(torch.nonzero(finer == s)[:, 0], s) for s in steps]
        return [(at, s, self._grid(self.matrix[at], s) if s else None) for at, s in each]

    def _grid(self, matrix: Tensor, s: int) -> Tensor:
        """Each pixel of a face is s × s readings spread evenly: a photograph that shrinks must not alias."""
        h, w = self.face
        along = (torch.arange(max(h, w) * s, dtype=torch.float64, device=matrix.device) + 0.5) / s - 0.5
        y, x = torch.meshgrid(along[: h * s], along[: w * s], indexing="ij")
        inverse = torch.linalg.inv(matrix[:, :, :2])
        target = torch.stack([x, y], -1)[None] - matrix[:, None, None, :, 2]
        source = torch.einsum("nij,nhwj->nhwi", inverse, target)
        size = source.new_tensor([self.photo[1] - 1, self.photo[0] - 1]).clamp(min=1)
        grid: Tensor = (2 * source / size - 1).float()
        return grid

    def faces(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) of photographs (N, 3, H, W) in [0, 1]; what lies outside a photograph is black."""
        if tuple(images.shape[2:]) != self.photo or len(images) != len(self.matrix):
            raise ValueError(f"expected {len(self.matrix)} photographs of {self.photo}, got {tuple(images.shape)}")
        read = [_read(images if len(at) == len(images) else images[at], s, grid) for at, s, grid in self._parts]
        if len(read) < 2:
            return read[0] if read else images.new_zeros(0, 3, *self.face)
        return torch.cat(read)[torch.cat([at for at, _, _ in self._parts]).argsort()]

    def to_photo(self, mask: Tensor) -> Tensor:
        """Bool (N, H, W): pixels of the photographs whose middle lies in the mask, (h, w) or (N, h, w) of the face."""
        h, w = self.photo
        device = self.matrix.device
        y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], -1).double()
        at = torch.einsum("nij,hwj->nhwi", self.matrix, points).round().long()
        inside = (at >= 0).all(-1) & (at[..., 0] < self.face[1]) & (at[..., 1] < self.face[0])
        of = mask.to(device).bool().expand(len(self.matrix), *self.face)
        n = torch.arange(len(self.matrix), device=device)[:, None, None]
        read = of[n, at[..., 1].clamp(0, self.face[0] - 1), at[..., 0].clamp(0, self.face[1] - 1)]
        out: Tensor = read & inside
        return out


def _read(images: Tensor, s: int, grid: Tensor | None) -> Tensor:
    if grid is None:
        return images
    seen = F.grid_sample(images, grid.to(images), mode="bilinear", padding_mode="zeros", align_corners=True)
    return seen if s == 1 else F.avg_pool2d(seen, s)
