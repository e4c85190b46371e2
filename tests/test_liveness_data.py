"""Readers of live faces and attacks, on small trees that are written here and on real photographs."""

from __future__ import annotations

import csv

import pytest

from audit.data.liveness_sets import read_liveness
from audit.data.open_clips import open_clips
from audit.errors import DataError
from tests.clip_trees import about, film, photo, stills
from tests.kit import kit


def test_a_folder_per_domain_class_and_species(tmp_path):
    film(tmp_path / "Oulu/train/live/1_1_20_1.avi")
    film(tmp_path / "Oulu/dev/Spoof/print/1_1_20_2.avi")
    photo(tmp_path / "CASIA/real/s1/a.png")
    stills(tmp_path / "CASIA/real/s2/HR_1")
    stills(tmp_path / "CASIA/attack/replay/s1/HR_4")
    stills(tmp_path / "CASIA/attack/replay/s3/day 1/HR_4")
    photo(tmp_path / "CASIA/attack/b.jpg")
    photo(tmp_path / "MSU/genuine/c_1.png")
    photo(tmp_path / "MSU/genuine/c_2.png")
    photo(tmp_path / "MSU/fake/mask/d.png")
    (tmp_path / "MSU/readme.csv").write_text("nothing")
    clips = open_clips(tmp_path, kind="liveness")
    assert (clips.genuine, clips.methods, clips.domains) == (
        "live",
        ("attack", "mask", "print", "replay"),
        ("CASIA", "MSU", "Oulu"),
    )
    assert about(clips) == {
        "Oulu/train/live/1_1_20_1.avi": ("", "Oulu/train/live/1_1_20_1.avi", "Oulu", "train"),
        "Oulu/dev/Spoof/print/1_1_20_2.avi": ("print", "Oulu/dev/Spoof/print/1_1_20_2.avi", "Oulu", "val"),
        "CASIA/real/s1": ("", "CASIA/s1", "CASIA", ""),
        "CASIA/real/s2/HR_1": ("", "CASIA/s2", "CASIA", ""),
        "CASIA/attack/replay/s1/HR_4": ("replay", "CASIA/s1", "CASIA", ""),
        "CASIA/attack/replay/s3/day 1/HR_4": ("replay", "CASIA/s3", "CASIA", ""),
        "CASIA/attack/b.jpg": ("attack", "CASIA/attack/b.jpg", "CASIA", ""),
        "MSU/genuine/c_1.png": ("", "MSU/genuine/c_1.png", "MSU", ""),
        "MSU/genuine/c_2.png": ("", "MSU/genuine/c_2.png", "MSU", ""),
        "MSU/fake/mask/d.png": ("mask", "MSU/fake/mask/d.png", "MSU", ""),
    }
    assert not any(c.cropped for c in clips.clips)
    assert all(c.cropped for c in open_clips(f"crops:liveness:{tmp_path}", "liveness").clips)


def test_one_domain_needs_no_folder(tmp_path):
    film(tmp_path / "live/1.mp4")
    film(tmp_path / "spoof/2.mp4")
    assert about(open_clips(f"liveness:{tmp_path}", "liveness")) == {
        "live/1.mp4": ("", "live/1.mp4", "", ""),
        "spoof/2.mp4": ("attack", "spoof/2.mp4", "", ""),
    }


def test_a_table_of_labels(tmp_path):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    film(tmp_path / "c.mp4")
    stills(tmp_path / "d")
    photo(tmp_path / "left.png")
    rows = [
        "a.png,0,live,X,ann",
        "b.png,1,print (as I see it),X,ann",
        "c.mp4,1,,Y,",
        "./d,1,print,Y,bob",
        "gone.png,1,x,Y,eve",
        "../e.png,0,,X,",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,spoof,kind,domain,subject", *rows]))
    clips = open_clips(tmp_path, "liveness")
    assert about(clips) == {
        "a.png": ("", "X/ann", "X", ""),
        "b.png": ("print", "X/ann", "X", ""),
        "c.mp4": ("attack", "c.mp4", "Y", ""),
        "d": ("print", "Y/bob", "Y", ""),
    }
    assert next(c for c in clips.clips if c.id == "d").footage.count == 3
    assert {u.name: u.reason for u in clips.unreadable}.keys() == {"gone.png", "../e.png"}
    assert any("1 file(s) that labels.csv does not name are left out, the first left.png" in n for n in clips.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,spoof,kind\na.png,2,x\n", "got spoof '2' in row 2"),
        ("file,kind\na.png,x\n", "got the header file,kind"),
        ("file,spoof,kind\na.png,0,x\n", "clips that are live and clips that are attacks, got 1 live and 0 attacks"),
        ("file,spoof,kind\na.png,1,x\n", "got 0 live and 1 attacks"),
        ("file,spoof,kind\n", "at least one usable clip"),
        ("file,spoof,kind\na.png,0,\na.png,1,\n", "got 1 live and 0 attacks, 1 unusable .*more than once"),
        ("file,spoof,kind\n\xff,1,\n", "UTF-8"),
        ("file,kind,spoof\na.png,worn, badly,1\n", "4 cells in row 2 under 3 columns"),
        ("file,spoof,kind,kind\na.png,1,x,y\n", "got the header file,spoof,kind,kind"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, text, says):
    photo(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=says):
        open_clips(tmp_path, "liveness")


def test_a_folder_of_something_else(tmp_path):
    photo(tmp_path / "somewhere/a.png")
    with pytest.raises(DataError, match=r"<domain>/live/ with <domain>/spoof/<species>/.* got a folder with neither"):
        open_clips(tmp_path, "liveness")
    with pytest.raises(DataError, match=r"or labels\.csv, got none"):
        read_liveness(tmp_path)
    photo(tmp_path / "live/a.png")
    with pytest.raises(DataError, match="got 1 live and 0 attacks"):
        open_clips(tmp_path, "liveness")


@pytest.mark.kit
def test_the_photographs_of_the_kit():
    folder = kit("spoof_images")
    clips = open_clips(folder, "liveness")
    with (folder / "labels.csv").open(newline="") as file:
        spoof = {r["file"]: r["spoof"] == "1" for r in csv.DictReader(file)}
    assert {c.id: c.fake for c in clips.clips} == spoof
    assert (len(clips), sum(spoof.values())) == (29, 11)
    assert {"phone screen", "printed photo", "paper mask worn"} <= set(clips.methods)
    assert about(clips)["recognito_5.jpg"][0] == "", "a comma in the last column, as it stands there"
    assert [c.id for c in clips.clips if c.method == "phone screen"] == ["minivision_F2.jpg", "recognito_3.jpg"]
    assert len({c.group for c in clips.clips}) == 29
    assert any("no column subject" in n for n in clips.notes)
