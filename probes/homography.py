"""Quads seen in perspective: their homographies, and how much of every texel lies in every pixel.

The lines between texels are straight in the image too, so the part of a texel that lies in a pixel is a polygon, and
its area needs no sampling. It is the second difference of the areas A(i, j) that the pixel shares with the wedges
{u < i/Q, v < j/P}. The sides of a wedge run through its apex o; seen from there they enclose nothing, so that only the
pixel's own edges count:

    A = ½ Σ_edges (length of the edge inside the wedge) · (distance of the edge from o).

The sides are zeros of U − u·W and V − v·W, where (U, V, W) is linear in the image: nothing is divided by W, and
neither the edge of the patch nor the horizon needs a case of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A quad whose corners lie this near to one line, as a share of its longest side squared, has no homography.
_FLAT = 1e-9
# Where W is not above this the footprint of a pixel reaches the horizon and has no bounds.
_HORIZON = 1e-12
# An overlap below this share of a pixel is rounding.
_NOTHING = 1e-13
# Pieces worked on at once: few enough to stay in the cache of a CPU, on other devices to stay in memory.
_PIECES = {"cpu": 1 << 16}
_MANY_PIECES = 1 << 22


def is_convex(quads: Tensor) -> Tensor:
    """(K,) bool: whether each of quads (K, 4, 2) is strictly convex, in either sense of rotation.

    False for crossed, collinear and coinciding corners and for any that are not finite.
    """
    quads = quads.double() if quads.device.type != "mps" else quads
    along = quads.roll(-1, 1) - quads
    turn = _cross(along, along.roll(-1, 1))
    least = _FLAT * along.square().sum(2).amax(1, keepdim=True)
    same = ((turn > least).all(1)) | ((turn < -least).all(1))
    return same & quads.isfinite().all(2).all(1)


def homography(src: Tensor, dst: Tensor) -> Tensor:
    """The maps that take the corners src (K, 4, 2) to dst (K, 4, 2), in closed form.

    Returns:
        (K, 3, 3) float64 H with (x', y', w) = H·(x, y, 1) and the image of (x, y) at (x'/w, y'/w); scaled so that w is
        1 at the first corner, which for a first corner (0, 0) is the customary H[2, 2] = 1. NaN or infinite where
        three corners lie on one line.
    """
    both = from_square(dst) @ inverse(from_square(src))
    first = src[:, 0].to(both)
    return both / (both[:, 2, 0] * first[:, 0] + both[:, 2, 1] * first[:, 1] + both[:, 2, 2])[:, None, None]


def from_square(quads: Tensor) -> Tensor:
    """(K, 3, 3) maps of the corners (0, 0), (1, 0), (1, 1), (0, 1) to those of quads (K, 4, 2); H[2, 2] = 1."""
    quads = quads.double() if quads.device.type != "mps" else quads
    p, q, r, s = quads.unbind(1)
    right, left, bend = q - r, s - r, p - q + r - s
    area = _cross(right, left)
    g, h = _cross(bend, left) / area, _cross(right, bend) / area
    top = torch.stack([q - p + g[:, None] * q, s - p + h[:, None] * s, p], 2)
    return torch.cat([top, torch.stack([g, h, torch.ones_like(g)], 1)[:, None]], 1)


def inverse(maps: Tensor) -> Tensor:
    """(K, 3, 3) inverses of maps (K, 3, 3), by cofactors."""
    a, b, c = maps.unbind(2)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    return rows / (rows[:, 0] * a).sum(1)[:, None, None]


def seen_through(maps: Tensor, owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(3, M) homogeneous images of the points x, y (M,), each under the map owner (M,) of maps (K, 3, 3)."""
    h = maps.flatten(1).T
    rows = [
        _pick(h[k], owner).mul_(x).add_(_pick(h[k + 1], owner).mul_(y)).add_(_pick(h[k + 2], owner)) for k in (0, 3, 6)
    ]
    return torch.stack(rows)


def overlaps(
    forward: Tensor, owner: Tensor, x: Tensor, y: Tensor, texels: tuple[int, int], *, moments: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """How much of which texel lies in which pixel, exactly.

    Args:
        forward: (K, 3, 3) maps of the unit square to the quads, see :func:`from_square`.
        owner: (M,) which of them each pixel is seen through. x, y: (M,) the pixels' upper left corners.
        texels: (P, Q) rows and columns of the texture.
        moments: also ∫x and ∫y over the overlap, from the pixel's upper left corner.

    Returns:
        (pixel, texel, value), ordered by pixel: pixel (L,) int64 in 0..M−1, texel (L,) int64 row·Q + column, value
        (1, L) share of the pixel, or (3, L) with the two moments. Overlaps that are none are left out.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    most = _PIECES.get(x.device.type, _MANY_PIECES)
    # Scaled to texels: U/W from 0 to Q, V/W from 0 to P.
    back = inverse(forward) * forward.new_tensor([texels[1], texels[0], 1])[:, None]
    step_x, step_y = back[:, :, 0].T, back[:, :, 1].T
    # The corners of the texels, from the quad's origin: (2, K, P + 1, Q + 1).
    u, v = (torch.arange(n + 1, device=x.device).to(x.dtype) / n for n in reversed(texels))
    apex = forward.permute(1, 2, 0)[:, :, :, None, None]
    apex = apex[:, 0] * u + apex[:, 1] * v[:, None] + apex[:, 2]
    apex = (apex[:2] / apex[2]).flatten(1)
    for first in range(0, len(x), most // 4):
        part = slice(first, first + most // 4)
        start = seen_through(back, owner[part], x[part], y[part])
        right, below = start + _pick(step_x, owner[part]), _pick(step_y, owner[part])
        plane = torch.stack([start, right, right + below, start + below], 1)
        near = plane[2].amin(0) <= _HORIZON
        across, down = (_between(plane[k] / plane[2], near, n) for k, n in enumerate(reversed(texels)))
        cuts = torch.stack([*across, *down])
        pieces = ((cuts[1] + 1) * (cuts[3] + 1)).cumsum(0)
        full = torch.arange(most, int(pieces[-1]) + most, most, device=x.device)
        begin = 0
        for end in [*torch.searchsorted(pieces, full, right=True).tolist(), len(pieces)]:
            if end > begin:
                few = slice(begin, end)
                at = owner[part][few], x[part][few], y[part][few]
                pixel, texel, value = _pieces(plane[:, :, few], apex, at, cuts[:, few], texels, moments)
                found.append((pixel + (first + begin), texel, value))
                begin = end
    if not found:
        none = torch.zeros(0, dtype=torch.long, device=x.device)
        return none, none, x.new_zeros(3 if moments else 1, 0)
    pixels, seen, values = zip(*found, strict=True)
    return torch.cat(pixels), torch.cat(seen), torch.cat(values, 1)


def _between(where: Tensor, near: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First line, and number of lines, of 0..count that may run through each pixel; its corners lie at (4, M)."""
    low = where.amin(0).masked_fill(near, -1).clamp(-0.5, count + 0.5)
    high = where.amax(0).masked_fill(near, count + 1).clamp(-0.5, count + 0.5)
    first = low.floor().long() + 1
    return first, (high.ceil().long() - first).clamp(min=0)


def _pieces(
    plane: Tensor,
    apex: Tensor,
    at: tuple[Tensor, Tensor, Tensor],
    cuts: Tensor,
    texels: tuple[int, int],
    moments: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The overlaps of one lot of pixels: every pixel is cut by its lines into a grid of pieces, some of them empty."""
    (rows, columns), (first_u, cuts_u, first_v, cuts_v) = texels, cuts.unbind(0)
    width = cuts_u + 1
    sizes = width * (cuts_v + 1)
    pixel = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    local = torch.arange(len(pixel), device=pixel.device) - _pick(sizes.cumsum(0) - sizes, pixel)
    stride = _pick(width, pixel)
    t = torch.div(local, stride, rounding_mode="floor")
    s = local - t * stride
    column, row = _pick(first_u, pixel) + s, _pick(first_v, pixel) + t  # the line to the right and below
    left, above = s + 1 < stride, t < _pick(cuts_v, pixel)

    # What of the pixel lies left of and above the lines that bound a piece.
    value = plane.new_full((3 if moments else 1, len(pixel)), 0.5)
    value[0] = 1
    sides = []
    for k, line, mine, other in ((0, column, left, above), (1, row, above, left)):
        entries = (mine & ~other).nonzero()[:, 0]
        p = _pick(pixel, entries)
        side = _pick(plane[k], p).sub_(_pick(plane[2], p).mul_(_pick(line, entries)))
        low, high = _inside(side)
        gx, gy = side[1] - side[0], side[3] - side[0]
        far = (side[0] + side[2]) / (gx.square() + gy.square()).mul_(2)
        value[:, entries] = _shared(low, high, 0.5 - far * gx, 0.5 - far * gy, moments)
        sides.append((low, high))
    both = (left & above).nonzero()[:, 0]
    if len(both):
        p, (owner, x, y) = _pick(pixel, both), at
        of_u = _pick(cuts_u.cumsum(0) - cuts_u, p) + _pick(s, both)
        of_v = _pick(cuts_v.cumsum(0) - cuts_v, p) + _pick(t, both)
        low = torch.maximum(_pick(sides[0][0], of_u), _pick(sides[1][0], of_v))
        high = torch.minimum(_pick(sides[0][1], of_u), _pick(sides[1][1], of_v))
        node = (_pick(owner, p) * (rows + 1) + _pick(row, both)) * (columns + 1) + _pick(column, both)
        ox, oy = _pick(apex[0], node) - _pick(x, p), _pick(apex[1], node) - _pick(y, p)
        value[:, both] = _shared(low, high, ox, oy, moments)

    value[:, 1:] -= value[:, :-1] * (s[1:] > 0).to(value)
    # The piece above lies one row of the grid back.
    back = (t > 0).nonzero()[:, 0]
    value[:, back] = _pick(value, back) - _pick(value, back - _pick(stride, back))
    keep = value[0] > _NOTHING
    keep &= (column > 0) & (column <= columns) & (row > 0) & (row <= rows)
    kept = keep.nonzero()[:, 0]
    return _pick(pixel, kept), _pick((row - 1) * columns + column - 1, kept), _pick(value, kept)


def _inside(side: Tensor) -> tuple[Tensor, Tensor]:
    """From where to where, 0 to 1, each edge of a pixel has side < 0; side (4, n) at the corners in turn.

    Along a falling edge it begins at side/fall, along a rising one it ends the like share before the end. A fall that
    is none is taken for a tiny one: the share is then all or nothing.
    """
    end, tiny = side.roll(-1, 0), torch.finfo(side.dtype).tiny
    fall = side - end
    low = side.div(fall.clamp(min=tiny)).clamp_(0, 1)
    return low, end.div_(fall.neg_().clamp_(min=tiny)).clamp_(0, 1).neg_().add_(1)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """values[..., index] for values (n,) or (k, n); faster than the brackets on a CPU."""
    return values.index_select(0, index) if values.ndim == 1 else values.gather(1, index.expand(len(values), -1))


def _shared(low: Tensor, high: Tensor, x: Tensor, y: Tensor, moments: bool) -> Tensor:
    """(1 or 3, n) area, and moments, of the cones from the apex (x, y) over the stretches low..high (4, n) of edges."""
    length = (high - low).clamp_(min=0)
    if not moments:
        area = length[0] * y + length[1] * (1 - x) + length[2] * (1 - y) + length[3] * x
        return area.mul_(0.5)[None]
    cone, ends = length * torch.stack([y, 1 - x, 1 - y, x]) / 2, low + high
    across = torch.stack([ends[0], torch.full_like(x, 2), 2 - ends[2], torch.zeros_like(x)])
    down = torch.stack([torch.zeros_like(x), ends[1], torch.full_like(x, 2), 2 - ends[3]])
    return torch.stack([cone.sum(0), (cone * (x + across) / 3).sum(0), (cone * (y + down) / 3).sum(0)])


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
