"""The shipped references against a list that was typed by hand."""

from __future__ import annotations

import pytest

from reports import references


def words(text: str) -> list[str]:
    return text.split()


NIST = words("""
NISTAML.01 NISTAML.011 NISTAML.012 NISTAML.013 NISTAML.014 NISTAML.02 NISTAML.021 NISTAML.022 NISTAML.023 NISTAML.024
NISTAML.025 NISTAML.026 NISTAML.027 NISTAML.03 NISTAML.04 NISTAML.05 NISTAML.051
""")
ATLAS = words("""
AML.T0043 AML.T0043.000 AML.T0043.001 AML.T0043.002 AML.T0043.003 AML.T0043.004 AML.T0005 AML.T0005.000 AML.T0005.001
AML.T0005.002 AML.T0008.003 AML.T0041 AML.T0015 AML.T0042 AML.T0040 AML.T0044 AML.T0047 AML.T0088 AML.T0029 AML.T0031
AML.TA0001 AML.M0003 AML.M0006 AML.M0008 AML.M0009 AML.M0010 AML.M0015 AML.M0034
AML.CS0012 AML.CS0004 AML.CS0011 AML.CS0033 AML.CS0034
""")
ACT = words("15(1) 15(2) 15(3) 15(4) 15(5) AnnexIV(2)(g) AnnexIV(2)(h)")
ISO = words("""
ISO-TR-24029-1 ISO-24029-2-5.3 ISO-24029-2-5.4 ISO-24029-2-5.5 ISO-24029-2-5.6 ISO-DIS-24029-3 ISO-TS-4213
ISO-TS-4213-5.3 ISO-30107-3 CEN-TS-18099 ISO-25456 ISO-19795-1 ISO-19795-10 ISO-29120-1 ETSI-EN-304-223
prEN-18229-2 prEN-18282
""")
NAMES = {
    "NISTAML.022": "Evasion",
    "NISTAML.025": "Black-box Evasion",
    "AML.T0043.000": "White-Box Optimization",
    "AML.T0043.002": "Black-Box Transfer",
    "AML.T0005.002": "Use Pre-Trained Model",
    "AML.T0008.003": "Physical Countermeasures",
    "AML.T0015": "Evade AI Model",
    "AML.M0008": "Validate AI Model",
    "AML.M0034": "Deepfake Detection",
    "AML.CS0034": "ProKYC",
}


def clauses() -> set[str]:
    kinds = references.sources()
    return {key for key, ref in references.known().items() if kinds[ref.source].kind == "clause"}


def test_clauses_are_exactly_the_hand_written_ones():
    assert clauses() == {*NIST, *ATLAS, *(f"EU-AIA-{a}" for a in ACT), *ISO}


def test_names_are_those_of_the_catalogues():
    known = references.known()
    assert {key: known[key].title for key in NAMES} == NAMES


def test_sources_go_with_their_prefix():
    for key, ref in references.known().items():
        assert ref.id == key
        assert ref.title
        if key.startswith("NISTAML"):
            assert ref.source == "NIST AI 100-2 E2025"
        if key.startswith("AML."):
            assert ref.source == "MITRE ATLAS 5.6.0"
            kind = {"T": "techniques", "M": "mitigations", "C": "studies"}[key[4]]
            assert ref.url == f"https://atlas.mitre.org/{'tactics' if key[4:6] == 'TA' else kind}/{key}"
        if key.startswith("EU-AIA"):
            assert "2024/1689" in ref.source
        assert ref.url == "" or ref.url.startswith("https://")
        assert "{" not in ref.url


def test_unsure_sources_say_so():
    standing = {name: s.standing for name, s in references.sources().items()}
    assert "secondary sources" in standing["NIST AI 100-2 E2025"]
    assert "5.6.0" in standing["MITRE ATLAS 5.6.0"]
    assert "presumption of conformity" in standing["EU AI Act, Regulation (EU) 2024/1689"]
    assert all(s.standing for s in references.sources().values() if s.kind == "clause")


def test_resolve_gives_each_once_in_the_order_of_the_file():
    got = [ref.id for ref in references.resolve(["002 §4.2", "AML.T0015", "NISTAML.022", "AML.T0015"])]
    assert got == ["NISTAML.022", "AML.T0015", "002 §4.2"]
    assert references.resolve([]) == []


def test_unknown_id_is_an_error_that_names_it_and_its_neighbours():
    with pytest.raises(references.UnknownReference, match=r"'AML\.T9999'.*got unknown ones.*AML\.T0043") as caught:
        references.resolve(["NISTAML.022", "AML.T9999"])
    assert "\n" not in str(caught.value)


def test_known_cannot_be_changed_from_outside():
    references.known().clear()
    assert references.known()
