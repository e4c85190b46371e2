"""``python -m audit score faces``: attacked faces by the rules of the competition's face track."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.cli.scoring import SCORED, VOID, add_common, bar, execution_of, number, subjects_of, write
from audit.errors import AuditError

if TYPE_CHECKING:
    from audit.data.face_submissions import Entry, FaceSubmission
    from audit.measures.face_rules import FaceRules
    from audit.measures.face_score import FaceScore
    from audit.measures.intervals import Estimate
    from audit.subject import Subject

MOST_NAMED = 5
MOST_PAIRS = 100_000


def add_arguments(kinds: Any) -> None:
    """The scoring's own arguments, as one of ``kinds``."""
    text = (
        "The face track of the Artificial Intelligence Security Competition: patches on faces make them somebody else."
    )
    faces = kinds.add_parser("faces", help=text, description=text, allow_abbrev=False)
    faces.set_defaults(parser=faces)
    faces.add_argument("submission", metavar="SUBMISSION", help="folder or zip of attacked faces 0001.png …")
    faces.add_argument(
        "originals", metavar="ORIGINALS", help="folder or zip of 0001.png … and 0001_compare.png …, 112x112 aligned"
    )
    faces.add_argument("--model", action="append", required=True, help="model file of a recognizer; may be repeated")
    faces.add_argument("--pairs", type=int, metavar="N", help="score 0001 to N (all of ORIGINALS)")
    faces.add_argument(
        "--connectivity", type=int, choices=(8, 4), default=8, help="which neighbours join changed pixels (8)"
    )
    add_common(faces)


def run(options: argparse.Namespace) -> int:
    """Prints rules, rates and score; 0 where every pair keeps the rules, 1 where one breaks them.

    Raises:
        AuditError: an option, a submission or a model file cannot be used.
    """
    if options.pairs is not None and not 1 <= options.pairs <= MOST_PAIRS:
        raise AuditError("--pairs", expected=f"1 to {MOST_PAIRS}", got=str(options.pairs), mend="correct the number")
    execution = execution_of(options)

    from audit.comparison import Comparison
    from audit.data.face_submissions import FaceSubmission
    from audit.measures.face_rules import FaceRules
    from audit.measures.face_score import score_faces
    from audit.modelfile import beside
    from audit.state import frozen

    submission = FaceSubmission.open(Path(options.submission), Path(options.originals), options.pairs)
    subjects = subjects_of(options.model, "recognizer", execution.device)
    models = {name: Comparison(name, s.tasks["recognizer"], white_box=False) for name, s in subjects.items()}
    rules = FaceRules(connectivity=options.connectivity)
    with ExitStack() as held:
        for s in subjects.values():
            held.enter_context(beside(s.path.parent))
            held.enter_context(frozen(s.modules))
        progress = held.enter_context(bar("faces"))
        score = score_faces(submission, models, rules=rules, execution=execution, progress=progress)
    _show(submission, score, rules)
    if options.json is not None:
        write(Path(options.json), _record(options, submission, subjects, score, rules))
    return VOID if score.void else SCORED


def _show(submission: FaceSubmission, score: FaceScore, rules: FaceRules) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from audit.data.face_submissions import broken_by_rule
    from audit.measures.face_score import comparable

    console = Console(highlight=False)
    pairs = len(score.entries)
    table = Table("", "rule", "files", title=f"Rules, {pairs} pairs", title_justify="left")
    table.columns[2].justify = "right"
    for rule, files in broken_by_rule(score.entries).items():
        table.add_row("ok" if not files else "VOID", Text(_meaning(rule, rules)), str(files) if files else "–")
    strange = len(submission.strange)
    table.add_row("!!" if strange else "ok", "no other files", str(strange) if strange else "–")
    for r in comparable(pairs, len(score.success)):
        table.add_row("ok" if r.ok else "!!", f"{r.name} of the competition: {r.expected}", r.got)
    console.print(table)
    rates = Table("recognizer", title="Pairs taken for one person", title_justify="left")
    for column in ("pairs", "successful", "share", "95 % interval"):
        rates.add_column(column, justify="right")
    for name in score.success:
        e = score.rate(name)
        rates.add_row(Text(name), str(e.n), str(e.k), number(e.value), _interval(e))
    console.print(rates)
    void = [e for e in score.entries if e.void]
    lines = [f"{e.number}.png void: {_reasons(e)}" for e in void[:MOST_NAMED]]
    lines += [f"{len(void) - MOST_NAMED} more void, named in --json"] * (len(void) > MOST_NAMED)
    lines += [f"left aside: {text}" for text in submission.strange[:MOST_NAMED]]
    lines += [f"{strange - MOST_NAMED} more left aside, named in --json"] * (strange > MOST_NAMED)
    aside = [r.name for r in comparable(pairs, len(score.success)) if not r.ok]
    if aside:
        lines.append(f"not comparable with the competition's own scores ({', '.join(aside)})")
    overall = score.overall(_resampling())
    lines.append(
        f"a pair that breaks a rule counts as not successful; regions are joined over {rules.connectivity} neighbours"
    )
    lines.append(f"score = {number(score.score)} ({_interval(overall)}), {len(void)} of {pairs} pairs void")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _meaning(rule: str, rules: FaceRules) -> str:
    words = {
        "name": "0001.png … is there",
        "PNG": "a PNG that decodes",
        "regions": f"at most {rules.regions} connected regions changed",
        "area": f"at most {int(rules.pixels)} px changed",
    }
    return words.get(rule, rule)


def _reasons(entry: Entry) -> str:
    return ", ".join(f"{rule} ({got})" for rule, got in entry.broken)


def _interval(e: Estimate) -> str:
    return "–" if e.low is None or e.high is None else f"{e.low:.4f} to {e.high:.4f}"


def _resampling() -> Any:
    from audit.measures.intervals import Resampling

    return Resampling(seed=0, cluster="pairs")


def _record(
    options: argparse.Namespace,
    submission: FaceSubmission,
    subjects: dict[str, Subject],
    score: FaceScore,
    rules: FaceRules,
) -> dict[str, Any]:
    from dataclasses import asdict

    from audit import __version__
    from audit.data.bundles import plain
    from audit.data.face_submissions import broken_by_rule
    from audit.measures.face_score import comparable

    return {
        "scoring": "AISC faces, eq. 16",
        "tool": f"assay-audit {__version__}",
        "submission": plain(options.submission),
        "originals": plain(options.originals),
        "rules": rules.spec(),
        "pairs": len(score.entries),
        "void": score.void,
        "broken": broken_by_rule(score.entries),
        "left_aside": list(submission.strange),
        "comparable": [asdict(r) for r in comparable(len(score.entries), len(subjects))],
        "recognizers": {
            name: {
                "threshold": float(s.tasks["recognizer"].threshold),
                "metric": str(getattr(s.tasks["recognizer"], "metric", "cosine")),
                "files": [f.model_dump(mode="json") for f in s.files],
                "state_sha256": s.state_digest(),
                "rate": asdict(score.rate(name)),
            }
            for name, s in subjects.items()
        },
        "score": score.score,
        "interval": asdict(score.overall(_resampling())),
        "files": [_file(e, i, score) for i, e in enumerate(score.entries)],
    }


def _file(entry: Entry, i: int, score: FaceScore) -> dict[str, Any]:
    from audit.data.face_submissions import outcome

    return {
        "file": f"{entry.number}.png",
        "sha256": entry.sha256 or None,
        "void": entry.void,
        "rules": outcome(entry),
        "broken": [{"rule": rule, "got": got} for rule, got in entry.broken],
        "regions": None if entry.count is None else entry.count.regions,
        "area": None if entry.count is None else int(entry.count.area),
        "scores": {name: None if entry.void else float(s[i]) for name, s in score.scores.items()},
        "success": {name: bool(s[i]) for name, s in score.success.items()},
    }
