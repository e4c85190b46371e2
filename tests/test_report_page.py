"""The page as a file: it stands alone, nothing of a stranger acts in it, damage is named, and it stays small."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from audit import record as r
from reports import html
from tests import sample_pictures, sample_record
from tests.page import Node, parse

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def report(folder) -> r.Report:
    return sample_record.build(folder)


@pytest.fixture(scope="module")
def page(report, folder) -> Node:
    return parse(html.render(report, folder))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("hostile")
    report = sample_record.build(folder, hostile=True)
    report.profile.name = report.run.command = report.controls[1].refs[0] = sample_record.HOSTILE
    report.controls[1].id = report.controls[1].conditions[0].group = sample_record.HOSTILE
    report.controls[1].curves[0].series[0].name = report.controls[1].curves[0].mark_label = sample_record.HOSTILE
    report.environment[sample_record.HOSTILE] = {sample_record.HOSTILE: [sample_record.HOSTILE]}
    report.references = [r.Reference(id="NISTAML.022", title="t", source="s", url='javascript:alert(1)//"')]
    return html.render(report, folder)


# --- alone and inert ---------------------------------------------------------------------------------------------


def test_page_has_no_script_and_its_policy_allows_none(page):
    metas = [n for n in page.all("meta") if n.attrs.get("http-equiv") == "Content-Security-Policy"]
    assert [m.attrs["content"] for m in metas] == [CSP]
    forbidden = {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "video",
        "audio",
        "details",
        "foreignobject",
    }
    assert not {n.tag for n in page.walk()} & forbidden


def test_page_loads_nothing_from_anywhere(page, report):
    allowed = {ref.url for ref in html.reference_index(report).values()}
    for node in page.walk():
        for name, value in node.attrs.items():
            assert not name.startswith("on"), f"event handler {name}"
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            elif name == "href":
                assert value.startswith(("#", "evidence/")) or value in allowed
            else:
                assert "url(" not in value
    style = page.one("style")
    assert "url(" not in "".join(style.children)
    assert "@import" not in "".join(style.children)


def test_hostile_text_stays_text(hostile, report, page):
    text = hostile
    tree = parse(text)
    assert {n.tag for n in tree.walk()} <= {n.tag for n in page.walk()}
    assert len(tree.all("img")) == len(page.all("img"))
    for node in tree.walk():
        assert not [a for a in node.attrs if a.startswith("on")]
        assert not node.attrs.get("href", "").lower().startswith(("javascript", "http://", "https://evil"))
    shown = sample_record.HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b")
    assert shown in tree.one("h1").text
    assert tree.text.count(shown) >= 12
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_hostile_evidence_paths_are_neither_followed_nor_linked(tmp_path):
    out = tmp_path / "out"
    report = sample_record.build(out)
    secret = tmp_path / "secret.png"
    shutil.copy(out / "evidence" / "patch.png", secret)
    (out / "evidence" / "link.png").symlink_to(secret)
    digest = report.controls[1].evidence[0].sha256
    paths = ["../secret.png", str(secret), "javascript:alert(1)", "evidence/link.png", "evidence/../../secret.png"]
    plain = [r.Evidence(role="patch", path=p, sha256=digest, caption=f"number {i}") for i, p in enumerate(paths)]
    report.controls[1].evidence = plain
    tree = parse(html.render(report, out))
    figures = tree.by_id("control-1").all("figure")
    assert len(figures) == len(paths)
    for i, figure in enumerate(figures):
        assert f"number {i}" in figure.text
        assert not figure.all("img")
        assert all(a.attrs["href"] == "evidence/link.png" for a in figure.all("a"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "No such file"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "not the one that was recorded"),
    ],
    ids=["missing", "altered"],
)
def test_damaged_evidence_is_named_and_not_shown(tmp_path, damage, said):
    report = sample_record.build(tmp_path)
    damage(tmp_path / "evidence" / "worst-patched.png")
    tree = parse(html.render(report, tmp_path))
    (banner,) = tree.with_class("damaged")
    assert "evidence/worst-patched.png" in banner.text
    assert said in banner.text
    (figure,) = [f for f in tree.all("figure") if "worst-patched" in f.text]
    assert not figure.all("img")
    assert said in figure.text


def test_unreadable_picture_is_named(tmp_path):
    report = sample_record.build(tmp_path)
    (tmp_path / "evidence" / "x.png").write_bytes(b"not a picture")
    digest = hashlib.sha256(b"not a picture").hexdigest()
    report.controls[1].evidence.append(r.Evidence(role="patch", path="evidence/x.png", sha256=digest, caption="c"))
    tree = parse(html.render(report, tmp_path))
    assert any("cannot be read as a picture" in n.text for n in tree.with_class("missing"))


# --- size --------------------------------------------------------------------------------------------------------


def _images(tree: Node) -> list[tuple[Node, Image.Image]]:
    out = []
    for img in tree.all("img"):
        data = base64.b64decode(img.attrs["src"].partition("base64,")[2], validate=True)
        image = Image.open(io.BytesIO(data))
        image.load()
        out.append((img, image))
    return out


def test_scenes_are_at_most_256_wide_and_patches_keep_their_pixels(page, folder):
    images = _images(page)
    assert len(images) == 3 * 3 + 4 + 1 + 3
    for img, image in images:
        assert image.format == "PNG"
        assert (image.width, image.height) == (int(img.attrs["width"]), int(img.attrs["height"]))
        if "case" in img.attrs["alt"] or "survivor" in img.attrs["alt"]:
            assert image.width == 256
            assert image.height == round(256 * 360 / 480)
    patch = next(image for img, image in images if img.attrs["alt"] == "The trained patch")
    assert patch.convert("RGB").tobytes() == Image.open(folder / "evidence" / "patch.png").convert("RGB").tobytes()


@pytest.mark.parametrize("limit", [400_000, 500_000])
def test_page_stays_under_its_limit_and_says_what_it_left_out(tmp_path, monkeypatch, limit):
    assert html.SIZE_LIMIT == 5_000_000
    monkeypatch.setattr(html, "SIZE_LIMIT", limit)
    report = sample_record.build(tmp_path)
    for i, control in enumerate(report.controls):
        for k in range(3):
            name = f"noise{i}-{k}"
            pixels = sample_pictures.noise(130, 3 * i + k)
            control.evidence.append(
                sample_pictures.picture(tmp_path, name, pixels, role="clean", case="worst", caption="x")
            )
    text = html.render(report, tmp_path)
    assert len(text.encode()) <= limit
    tree = parse(text)
    embedded, missing = tree.all("img"), tree.with_class("missing")
    total = sum(len([e for e in c.evidence if e.role != "file"]) for c in report.controls)
    assert len(embedded) + len(missing) == total
    assert len(missing) > 5
    assert all("size limit" in m.text for m in missing)
    assert len([i for i in embedded if i.attrs["alt"] == "The trained patch"]) == 2
    assert "compressed to keep the page small" in tree.text
    hrefs = {a.attrs["href"] for a in tree.all("a", class_="file")}
    assert {e.path for c in report.controls for e in c.evidence} <= hrefs
    shown = [
        len([f for f in tree.by_id(f"control-{i}").all("figure") if "noise" in f.text and f.all("img")]) for i in (1, 8)
    ]
    assert shown[0] >= shown[1]
    assert len(text.encode()) > limit * 0.8, "pictures that would have fitted were left out"


def test_same_record_gives_same_page(report, folder):
    again = r.Report.model_validate_json(report.to_json())
    assert html.render(report, folder) == html.render(again, folder)


def test_pictures_are_compressed_before_one_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "SIZE_LIMIT", 900_000)
    report = sample_record.build(tmp_path)
    for i, control in enumerate(report.controls):
        for k in range(3):
            pixels = sample_pictures.noise(130, 3 * i + k)
            made = sample_pictures.picture(tmp_path, f"n{i}-{k}", pixels, role="clean", case="worst", caption="x")
            control.evidence.append(made)
    text = html.render(report, tmp_path)
    assert len(text.encode()) <= 900_000
    tree = parse(text)
    assert not tree.with_class("missing")
    kinds = {img.attrs["src"].partition(";")[0] for img in tree.all("img")}
    assert kinds == {"data:image/png", "data:image/jpeg"}, "patches keep every pixel, scenes are compressed"
