import importlib

import pytest

from audit import control as registry
from audit.control import REGISTRY, base, control, variant

TEXTS = {
    "title": "t",
    "failure": "f",
    "goal": "g",
    "refs": ["002 §4.1"],
    "threat": "nobody",
    "remediation": "nothing",
}


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", dict(REGISTRY))
    monkeypatch.setattr(registry, "_HOMES", dict(registry._HOMES))


@pytest.mark.usefixtures("clean_registry")
class TestControl:
    def test_holds_what_was_declared(self):
        @control("T-ONE", **TEXTS)
        def test_something(): ...

        assert registry.REGISTRY["T-ONE"].goal == "g"
        assert getattr(test_something, registry.ATTRIBUTE).refs == ("002 §4.1",)

    @pytest.mark.parametrize("empty", TEXTS)
    def test_refuses_an_empty_text(self, empty):
        with pytest.raises(ValueError, match=f"{empty} must not be empty"):
            control("T-TWO", **{**TEXTS, empty: [] if empty == "refs" else ""})

    def test_refuses_an_unknown_task(self):
        with pytest.raises(ValueError, match="task must be one of detector"):
            control("T-THREE", **TEXTS, task="detektor")

    def test_refuses_an_id_that_is_taken(self):
        @control("T-FOUR", **TEXTS)
        def one(): ...

        def two(): ...

        with pytest.raises(ValueError, match=r"'T-FOUR' is held by .*one already"):
            control("T-FOUR", **TEXTS)(two)


def test_full_ids_take_apart():
    assert (base("A-B/c"), variant("A-B/c")) == ("A-B", "c")
    assert (base("A-B"), variant("A-B")) == ("A-B", "")


def test_every_control_of_the_suites_cites_known_references():
    references = importlib.import_module("reports.references").known()
    importlib.import_module("suites.test_detection")
    unknown = {(c.id, r) for c in REGISTRY.values() for r in c.refs if r not in references}
    assert not unknown
    assert len(REGISTRY) >= 9
