"""Profiles: what they hold, and one sentence for everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import profile
from audit.budget import Budget
from audit.errors import ProfileError

SMALL = """
name = "small"
version = "1"

[budgets]
smoke = { steps = 1, batch = 1, queries = 1, images = 2, bootstrap = 100, indicative = true }
standard = { steps = 2, batch = 1, queries = 1, images = 2, bootstrap = 100 }
certify = { steps = 3, batch = 1, queries = 1, images = 2, bootstrap = 100 }

[controls.A]
min = 0.7
rationale = "because"

[controls.B]
variants = ["x", "y"]
max = 0.1
rationale = "because"
"""
TODAY = date(2026, 11, 20)


def load(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    return profile.load(path, today=TODAY)


def refusal(tmp_path, text):
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "p.toml") in message
    return message


def test_built_in_profile_holds_what_its_file_says():
    p = profile.load("detection", today=TODAY)
    raw = p.path.read_bytes()
    assert p.sha256 == hashlib.sha256(raw).hexdigest()
    tables = tomllib.loads(raw.decode())
    ids = []
    for control, table in tables["controls"].items():
        ids += [f"{control}/{v}" for v in table["variants"]] if "variants" in table else [control]
    assert list(p.controls) == ids
    for full, row in p.controls.items():
        table = tables["controls"][row.control]
        table = table.get("variant", {}).get(row.variant, table)
        assert p.limit(full).op in table
        assert p.limit(full).value == table[p.limit(full).op]
        assert len(p.limit(full).rationale) > 80, "a limit needs a reason that its owner can defend"
    for name in ("smoke", "standard", "certify"):
        numbers = {k: v for k, v in tables["budgets"][name].items() if k != "indicative"}
        assert p.budget(name) == Budget(name, **numbers)
    assert [p.indicative(n) for n in ("smoke", "standard", "certify")] == [True, False, False]
    assert [p.rule(n) for n in ("smoke", "standard", "certify")] == ["point", "interval", "interval"]
    assert p.not_tested


def test_built_in_limits_are_consistent():
    """A smaller patch, a weaker attacker or none is never allowed to cost more than a full trained patch."""
    p = profile.load("detection", today=TODAY)
    trained = p.limit("DET-PATCH-WB/patch-iou").value
    for full, row in p.controls.items():
        if row.limit.op == "min":
            assert row.limit.value >= trained, full
    assert p.limit("DET-CONSTRAINT").value == 1


def test_variants_and_their_own_limits(tmp_path):
    p = load(tmp_path, SMALL + '\n[controls.B.variant."y"]\nmin = 0.9\nrationale = """of\n its own"""\n')
    assert list(p.controls) == ["A", "B/x", "B/y"]
    assert p.variants("B") == ("x", "y")
    assert p.variants("A") == ()
    assert (p.limit("B/x").op, p.limit("B/x").value) == ("max", 0.1)
    assert (p.limit("B/y").op, p.limit("B/y").value, p.limit("B/y").rationale) == ("min", 0.9, "of its own")
    with pytest.raises(ProfileError, match=r"none for 'B/z'; write 'B/"):
        p.limit("B/z")


def test_known_controls(tmp_path):
    p = load(tmp_path, SMALL)
    p.require_known(["A", "B", "C"])
    with pytest.raises(ProfileError, match=r"controls among A, C, got 'B'"):
        p.require_known(["A", "C"])


WRONG = {
    "not TOML": ("[verdict\n", "top", ["valid TOML", "line 1"]),
    "unknown key at the top": ("nmae = 'x'\n", "top", ["'nmae' (line 1)", "write 'name', perhaps"]),
    "unknown table": ("[prequel]\n", "", ["'prequel'", "preconditions"]),
    "unknown key in a table": ("[data]\ncraft_shar = 0.5\n", "", ["[data]", "'craft_shar'", "write 'craft_share'"]),
    "unknown key of a control": ("[controls.C]\nmim = 0.5\n", "", ["[controls.C]", "'mim'", "write 'min'"]),
    "unknown budget": ("[budgets.smoky]\n", "", ["smoke, standard, certify", "'smoky'", "write 'smoke'"]),
    "unknown rule": ("[verdict]\nrule = 'mean'\n", "", ["'interval' or 'point'", "'mean'"]),
    "share above 1": (
        "[controls.C]\nmin = 70\nrationale = 'x'\n",
        "",
        ["controls.C.min", "less than or equal to 1", "70"],
    ),
    "share below 0": ("[controls.C]\nmax = -0.1\nrationale = 'x'\n", "", ["controls.C.max", "-0.1"]),
    "not a number": ("[controls.C]\nmin = nan\nrationale = 'x'\n", "", ["controls.C.min", "nan"]),
    "a word": ("[controls.C]\nmin = 'half'\nrationale = 'x'\n", "", ["controls.C.min", "number", "'half'"]),
    "true is no number": ("[controls.C]\nmin = true\nrationale = 'x'\n", "", ["controls.C.min", "True"]),
    "both limits": ("[controls.C]\nmin = 0.1\nmax = 0.2\nrationale = 'x'\n", "", ["`min` or `max`", "both"]),
    "no limit": ("[controls.C]\nrationale = 'x'\n", "", ["one limit for C", "none"]),
    "no rationale": ("[controls.C]\nmin = 0.1\n", "", ["`rationale`", "limit of C"]),
    "blank rationale": ("[controls.C]\nmin = 0.1\nrationale = '  '\n", "", ["`rationale`", "limit of C"]),
    "variant without": (
        "[controls.C]\nmin = 0.1\nrationale = 'x'\nvariant.y = {min = 0.2, rationale = 'x'}\n",
        "",
        ["'y'"],
    ),
    "variant near": ("[controls.B.variant.xx]\nmin = 0.2\nrationale = 'x'\n", "", ["'xx'", "write 'x', perhaps"]),
    "variant's rationale": ("[controls.B.variant.x]\nmin = 0.2\n", "", ["`rationale`", "B/x"]),
    "variant twice": (
        "[controls.C]\nvariants = ['x', 'x']\nmin = 0.1\nrationale = 'x'\n",
        "",
        ["each variant", "'x' twice"],
    ),
    "slash in an id": ("[controls.'C/x']\nmin = 0.1\nrationale = 'x'\n", "", ["'C/x'", "variants"]),
    "waiver without approver": ("[[waivers]]\ncontrol = 'A'\n", "", ["`waivers.0.approver`", "add it"]),
    "no share to craft on": ("[data]\ncraft_share = 0\n", "", ["data.craft_share", "greater than 0"]),
}


@pytest.mark.parametrize(("extra", "where", "says"), WRONG.values(), ids=WRONG)
def test_wrong(tmp_path, extra, where, says):
    message = refusal(tmp_path, extra + SMALL if where == "top" else SMALL + extra)
    for part in says:
        assert part in message


def test_missing_parts(tmp_path):
    assert "`budgets.certify`" in refusal(tmp_path, SMALL.replace("certify", "#"))
    assert "`controls`" in refusal(tmp_path, SMALL.partition("[controls")[0])
    assert "at least one control" in refusal(tmp_path, SMALL.partition("[controls")[0] + "[controls]\n")


def test_not_text(tmp_path):
    (tmp_path / "p.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ProfileError, match="valid TOML"):
        profile.load(tmp_path / "p.toml")


@pytest.mark.parametrize("name", ["detecton", "no/such/file.toml"])
def test_no_such_profile(name):
    with pytest.raises(ProfileError, match=r"--audit-profile: expected a built-in profile \(.*detection"):
        profile.load(name)


def test_no_such_budget(tmp_path):
    with pytest.raises(ProfileError, match="got 'smok'; write 'smoke', perhaps"):
        load(tmp_path, SMALL).budget("smok")


WAIVER = "\n[[waivers]]\ncontrol = '{}'\napprover = 'A. Person'\nreason = 'until the retraining'\nexpires = {}\n"


def test_waivers(tmp_path):
    p = load(tmp_path, SMALL + WAIVER.format("B", "2026-12-01") + WAIVER.format("A", "2026-11-20"))
    assert p.waiver("B/x", TODAY).approver == "A. Person"
    assert p.waiver("B/y", date(2026, 12, 1)).expires == "2026-12-01"
    assert p.waiver("B/y", date(2026, 12, 2)) is None
    assert p.waiver("A", TODAY) is not None, "a waiver holds on its last day"
    one = load(tmp_path, SMALL + WAIVER.format("B/x", "2027-01-01"))
    assert one.waiver("B/x", TODAY) is not None
    assert one.waiver("B/y", TODAY) is None


def test_wrong_waivers(tmp_path):
    message = refusal(tmp_path, SMALL + WAIVER.format("A", "2026-11-19"))
    assert "expired on 2026-11-19" in message
    assert "holds on 2026-11-20" in message
    assert "'B/z'" in refusal(tmp_path, SMALL + WAIVER.format("B/z", "2027-01-01"))
    assert "waivers.0.expires" in refusal(tmp_path, SMALL + WAIVER.format("A", "'soon'"))


@given(value=st.floats(allow_nan=False), op=st.sampled_from(["min", "max"]))
def test_a_limit_is_a_share_and_nothing_else(tmp_path_factory, value, op):
    text = f"{SMALL}\n[controls.C]\n{op} = {value!r}\nrationale = 'x'\n"
    folder = tmp_path_factory.getbasetemp()
    if 0 <= value <= 1:
        assert load(folder, text).limit("C").value == value
    else:
        assert f"controls.C.{op}" in refusal(folder, text)


class TestExtends:
    """A profile that only says what it changes."""

    def test_what_it_does_not_say_is_the_others(self, tmp_path):
        own = tmp_path / "own.toml"
        own.write_text(
            'extends = "driving"\nname = "own"\n[data]\nmin_side = 20\n'
            '[controls."DRV-MASK"]\nmax = 0.4\nrationale = "Another reason."\n'
        )
        mine, base = profile.load(own), profile.load("driving")
        assert (mine.name, mine.data.min_side) == ("own", 20)
        assert mine.data.targets == base.data.targets
        assert mine.suites == base.suites
        assert list(mine.controls) == list(base.controls)
        assert mine.limit("DRV-MASK").op == "max", "the other kind of limit is replaced"
        assert mine.limit("DRV-CLEAN") == base.limit("DRV-CLEAN")

    def test_its_digest_follows_the_one_it_extends(self, tmp_path):
        base, own = tmp_path / "base.toml", tmp_path / "own.toml"
        text = profile.built_in()["detection"].read_text()
        base.write_text(text)
        own.write_text('extends = "base.toml"\nname = "own"\n')
        first = profile.load(own).sha256
        base.write_text(text + "# changed")
        assert profile.load(own).sha256 != first

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ('extends = "nowhere"', "a built-in profile"),
            ("extends = 3", "to be the name or path of a profile"),
            ('extends = "own.toml"', "does not extend itself"),
            ('extends = "driving"\n[data]\nminside = 3', "min_side"),
        ],
    )
    def test_what_cannot_be_is_told_in_a_sentence(self, tmp_path, said, told):
        own = tmp_path / "own.toml"
        own.write_text(said + "\n")
        with pytest.raises(ProfileError) as error:
            profile.load(own)
        assert told in str(error.value)

    def test_a_new_limit_needs_a_reason_of_its_own(self, tmp_path):
        own = tmp_path / "own.toml"
        own.write_text('extends = "driving"\n[controls."DRV-MASK"]\nmin = 0.05\n')
        with pytest.raises(ProfileError, match="rationale"):
            profile.load(own)

    def test_the_person_profile_asks_for_persons(self):
        assert profile.load("person").data.targets == ["person"]
        assert list(profile.load("person").controls) == list(profile.load("driving").controls)
