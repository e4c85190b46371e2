"""Is compression a shortcut in the data: does how a file was compressed tell fake from real, without a look at it?

A detector may learn, and a test may reward, the traces of an encoder instead of those of a manipulation. Compared are
four properties of a clip's file: bits per pixel, size in pixels, codec, and quantiser (among clips of one codec, since
each has a scale of its own).

The rule, for all fakes together and for each method against all genuine clips:

- AUC of telling the one from the other by that number alone: the share of pairs of a fake and a genuine clip in which
  the fake's number is the larger, equal numbers half; in whichever direction tells better, max(AUC, 1 - AUC). Raised
  from 0.8 on, where both classes have at least four clips.
- With fewer clips of a class an AUC is easily 1, so the medians have to differ too: raised where the AUC is 0.8 or more
  and one median is at least twice the other. A codec then has to tell without an error.
- Each fake beside its own originals, the genuine clips of its group: raised where the median over the fakes of
  fake / original is at least 2, or at most 1/2.

A quantiser of H.264 or H.265 is compared by the step that it stands for, 2^(QP / 6): twice the step is six more.
It is the data at hand that is described: a number that tells by chance in few clips tells in those clips all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

from audit.data.assemble import Progress, printable
from audit.data.clips import Clip, Clips, Compression
from audit.errors import DataError
from audit.record import Diagnostic, Grid

TOLD = 0.8
"""AUC from which a property of the file tells fake from real."""
ENOUGH = 4
"""Clips of each class from which the AUC is the rule."""
TWOFOLD = 2.0
"""Ratio of medians, and of a fake to its own original, from which they differ."""
ALL = "all fakes"

LOSSLESS = ("png", "bmp", "tiff")
"""What their bits per pixel say is said of the picture itself, not of how it was stored."""

_STEP = 6.0
_LOGARITHMIC = ("h264", "h265")


@dataclass(frozen=True, slots=True)
class Contrast:
    """One property of the files, fakes of one method (or all) against genuine clips.

    Attributes:
        quantity: such as ``bits per pixel``. method: or ``ALL``. fakes, genuine: clips that have the number.
        auc: max(AUC, 1 - AUC), in [0.5, 1]. fake, real: medians, as the file has them (of a codec, shares).
        ratio: of the medians, the larger to the smaller, at least 1; ``None`` where one is 0. raised: by the rule.
    """

    quantity: str
    method: str
    fakes: int
    genuine: int
    auc: float
    fake: float
    real: float
    ratio: float | None
    raised: bool

    @property
    def sentence(self) -> str:
        """Such as ``Bits per pixel tell NeuralTextures from genuine clips ...``."""
        told = "tells" if self.raised else "does not tell"
        what = "shares" if self.quantity.startswith("codec") else "medians"
        return (f"{self.quantity} {told} {printable(self.method)} from genuine clips: AUC {self.auc:.2f}, {what} "
                f"{self.fake:.3g} and {self.real:.3g}, {self.fakes} and {self.genuine} clip(s)")  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnOriginal:
    """One property of the files, each fake against the genuine clips of its group.

    Attributes:
        pairs: fakes whose group has a genuine clip. ratio: median of fake / original (its geometric mean over several).
        twofold: fakes that differ at least twofold from their originals. worst, worst_ratio: the one furthest off.
    """

    quantity: str
    method: str
    pairs: int
    ratio: float
    twofold: int
    worst: str
    worst_ratio: float
    raised: bool

    @property
    def sentence(self) -> str:
        """Such as ``bits per pixel: 1 of 3 fakes differ at least twofold from their own originals ...``."""
        return (f"{self.quantity}, {printable(self.method)}: {self.twofold} of {self.pairs} fake(s) differ at least "
                f"twofold from their own originals, the median is {self.ratio:.2f} times the original"
                f"{' (its step)' if _logarithmic(self.quantity) else ''}, furthest off is {printable(self.worst)} with "
                f"{self.worst_ratio:.2f} times")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Confounders:
    """How compression and class go together in a data set.

    Attributes:
        contrasts: each property and method; none where a class has no clip. originals: the same within groups.
        codecs: codec -> (share of the fakes, share of the genuine clips). unknown: clips whose file says nothing.
    """

    contrasts: tuple[Contrast, ...]
    originals: tuple[OwnOriginal, ...]
    codecs: Mapping[str, tuple[float, float]]
    unknown: int

    @property
    def raised(self) -> bool:
        """Whether any property of the files tells fake from real."""
        return any(c.raised for c in self.contrasts) or any(o.raised for o in self.originals)

    @property
    def sentences(self) -> tuple[str, ...]:
        """For the report: what is raised, and fakes far from their originals; else that nothing is."""
        found = [c.sentence for c in self.contrasts if c.raised]
        found += [o.sentence for o in self.originals if o.raised or (o.twofold and o.method == ALL)]
        if not self.contrasts:
            found.append("compression of fake and genuine clips was not compared: one class has no clip that is known")
        elif not found:
            found.append("neither bit rate nor size, codec or quantiser tells fake from genuine clips")
        if self.unknown:
            found.append(f"of {self.unknown} clip(s) the file could not be read for its compression")
        return tuple(found)

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """One per property, of the worst method; raised ones turn a pass into inconclusive."""
        out = []
        for quantity in dict.fromkeys(c.quantity for c in self.contrasts):
            of = max((c for c in self.contrasts if c.quantity == quantity), key=lambda c: (c.raised, c.auc))
            few = min(of.fakes, of.genuine) < ENOUGH
            value, limit = of.auc, 1.0 if few and quantity.startswith("codec") else TOLD
            if few and of.ratio is not None and of.auc >= TOLD:
                value, limit = of.ratio, TWOFOLD
            out.append(_diagnostic(quantity, value, limit, of.sentence, raised=of.raised))
        for quantity in dict.fromkeys(o.quantity for o in self.originals):
            own = max((o for o in self.originals if o.quantity == quantity), key=lambda o: (o.raised, _fold(o.ratio)))
            out.append(_diagnostic(f"{quantity} beside the own original", _fold(own.ratio), TWOFOLD, own.sentence,
                                   raised=own.raised))  # fmt: skip
        return out

    def grid(self) -> Grid | None:
        """AUC by property and method; ``None`` where nothing was compared."""
        rows = list(dict.fromkeys(c.quantity for c in self.contrasts))
        columns = list(dict.fromkeys(c.method for c in self.contrasts))
        if not rows:
            return None
        known = {(c.quantity, c.method): c for c in self.contrasts}
        cells = [[known.get((r, c)) for c in columns] for r in rows]
        return Grid(
            title="Telling fake from real by the file alone",
            row_label="property of the file",
            column_label="method",
            rows=rows,
            columns=columns,
            values=[[None if c is None else c.auc for c in row] for row in cells],
            unit="AUC",
            higher_is_better=False,
            marks=[(i, j) for i, row in enumerate(cells) for j, c in enumerate(row) if c is not None and c.raised],
            mark_label="raised",
            note="0.5 is chance, in either direction; a detector that reads only compression reaches this.",
        )


def compressions(clips: Clips, progress: Progress | None = None) -> dict[str, Compression]:
    """Clip id -> its compression; clips whose files cannot be read are left out. Videos are decoded once, whole."""
    out: dict[str, Compression] = {}
    for i, clip in enumerate(clips.clips):
        try:
            out[clip.id] = clip.footage.compression()
        except DataError:
            continue
        finally:
            if progress is not None:
                progress((i + 1) / len(clips), f"compression of {printable(clip.id)}")
    return out


def confounders(
    clips: Clips, known: Mapping[str, Compression] | None = None, progress: Progress | None = None
) -> Confounders:
    """How far the files alone tell fake from real, by the rule of this module.

    Args:
        known: clip id -> compression, where it was read before; a clip that is missing there is not compared.
    """
    known = compressions(clips, progress) if known is None else known
    compared = [c for c in clips.clips if c.id in known]
    unknown = len(clips) - len(compared)
    fakes, genuine = [c for c in compared if c.fake], [c for c in compared if not c.fake]
    if not fakes or not genuine:
        return Confounders((), (), {}, unknown)
    numbers = _numbers(compared, known)
    contrasts, originals = [], []
    for quantity, number in numbers.items():
        for method in (ALL, *clips.methods):
            of = [c for c in fakes if method in (ALL, c.method)]
            up, down = ([number[c.id] for c in side if c.id in number] for side in (of, genuine))
            if up and down:
                contrasts.append(_contrast(quantity, method, up, down))
            if not quantity.startswith("codec"):
                originals += _beside(quantity, method, of, genuine, number)
    codecs = {name: (_share(fakes, known, name), _share(genuine, known, name))
              for name in sorted({known[c.id].codec for c in compared})}  # fmt: skip
    return Confounders(tuple(contrasts), tuple(originals), codecs, unknown)


def _numbers(clips: Iterable[Clip], known: Mapping[str, Compression]) -> dict[str, dict[str, float]]:
    """Property -> clip id -> its number. A quantiser is compared within its codec; a codec is a 1 or a 0."""
    rows = [(c.id, known[c.id]) for c in clips]
    codecs = sorted({f.codec for _, f in rows})
    out = {
        "bits per pixel": {
            i: f.bits_per_pixel for i, f in rows if f.bits_per_pixel is not None and f.codec not in LOSSLESS
        },
        "size in pixels": {i: float(f.size[0] * f.size[1]) for i, f in rows},
    }
    for codec in codecs:
        if len(codecs) > 1:
            out[f"codec {printable(codec)}"] = {i: float(f.codec == codec) for i, f in rows}
        same = {i: f.quantiser for i, f in rows if f.codec == codec and f.quantiser is not None}
        if same:
            out[f"quantiser of {printable(codec)}"] = same
    return out


def _contrast(quantity: str, method: str, up: list[float], down: list[float]) -> Contrast:
    n, m = len(up), len(down)
    wins = stats.rankdata([*up, *down])[:n].sum() - n * (n + 1) / 2  # equal numbers are half a win
    told = max(float(wins / (n * m)), 1 - float(wins / (n * m)))
    few = min(n, m) < ENOUGH
    if quantity.startswith("codec"):
        fake, real, ratio = float(np.mean(up)), float(np.mean(down)), None
        raised = told >= (1 if few else TOLD)
    else:
        fake, real = float(median(up)), float(median(down))
        small, large = sorted((_plain(quantity, fake), _plain(quantity, real)))
        ratio = large / small if small > 0 else None
        raised = told >= TOLD and not (few and (ratio is None or ratio < TWOFOLD))
    return Contrast(quantity, method, n, m, told, fake, real, ratio, raised)


def _beside(
    quantity: str, method: str, fakes: list[Clip], genuine: list[Clip], number: Mapping[str, float]
) -> list[OwnOriginal]:
    own: dict[str, list[float]] = {}
    for c in genuine:
        if number.get(c.id, 0) > 0:
            own.setdefault(c.group, []).append(float(np.log(_plain(quantity, number[c.id]))))
    ratios = {
        c.id: float(np.exp(np.log(_plain(quantity, number[c.id])) - np.mean(own[c.group])))
        for c in fakes
        if c.group in own and number.get(c.id, 0) > 0
    }
    if not ratios:
        return []
    worst = max(ratios, key=lambda i: (_fold(ratios[i]), i))
    middle = float(median(ratios.values()))
    twofold = sum(_fold(r) >= TWOFOLD for r in ratios.values())
    return [OwnOriginal(quantity, method, len(ratios), middle, twofold, worst, ratios[worst],
                        raised=_fold(middle) >= TWOFOLD)]  # fmt: skip


def _plain(quantity: str, value: float) -> float:
    """The number on a scale of ratios: of a logarithmic quantiser the step."""
    return float(2 ** (value / _STEP)) if _logarithmic(quantity) else value


def _logarithmic(quantity: str) -> bool:
    return quantity in {f"quantiser of {codec}" for codec in _LOGARITHMIC}


def _fold(ratio: float) -> float:
    return max(ratio, 1 / ratio)


def _share(clips: list[Clip], known: Mapping[str, Compression], codec: str) -> float:
    return sum(known[c.id].codec == codec for c in clips) / len(clips)


def _diagnostic(quantity: str, value: float, limit: float, sentence: str, *, raised: bool) -> Diagnostic:
    return Diagnostic(
        name=f"compression tells fake from real: {quantity}",
        value=value,
        limit=limit,
        raised=raised,
        meaning=f"{sentence[0].upper()}{sentence[1:]}; from the limit on a detector may pass for the traces of an "
        "encoder instead of those of a manipulation, and results on this data do not tell the two apart.",
    )
