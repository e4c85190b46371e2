"""Readers of forgery data, on small trees that are written here and on real videos."""

from __future__ import annotations

import json
import os
import pickle
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from audit.data.attribution_sets import split_attribution
from audit.data.clip_files import Found, files_below, sources
from audit.data.clip_set import by_person
from audit.data.clips import linked
from audit.data.forgery_sets import read_celebdf, read_dfd, read_dfdc, read_plain
from audit.data.forgery_tree import read_ffpp
from audit.data.open_clips import open_clips
from audit.errors import DataError
from tests.clip_trees import about, film, photo, stills
from tests.kit import kit


@pytest.fixture(scope="module")
def ffpp(tmp_path_factory):
    root = tmp_path_factory.mktemp("ffpp")
    for q in ("c0", "c23", "c40"):
        for n in ("004", "982", "519", "515", "634"):
            film(root / f"original_sequences/youtube/{q}/videos/{n}.mp4")
        film(root / f"manipulated_sequences/Deepfakes/{q}/videos/004_982.mp4")
    for method, name in (("Deepfakes", "982_004"), ("Deepfakes", "519_515"), ("FaceSwap", "634_660")):
        film(root / f"manipulated_sequences/{method}/c23/videos/{name}.mp4")
    film(root / "manipulated_sequences/Deepfakes/masks/videos/004_982.mp4")
    for n in ("01__hug", "01__podium", "02__hug"):
        film(root / f"original_sequences/actors/c23/videos/{n}.mp4")
    film(root / "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hug__YVGY8LOK.mp4")
    (root / "splits").mkdir()
    lists = {"train": [["004", "982"]], "val": [["519", "515"]], "test": [["634", "660"], ["003", "000"]]}
    for name, pairs in lists.items():
        (root / "splits" / f"{name}.json").write_text(json.dumps(pairs))
    return root


def test_a_tree_of_faceforensics_is_read(ffpp):
    clips = open_clips(ffpp)
    found = about(clips)
    assert clips.methods == ("DeepFakeDetection", "Deepfakes", "FaceSwap")
    assert clips.domains == ("DFD c23", "c23", "c40", "raw")
    assert len(clips) == 5 * 3 + 3 + 3 + 3 + 1
    assert found["manipulated_sequences/Deepfakes/c23/videos/982_004.mp4"] == ("Deepfakes", "004", "c23", "train")
    assert found["original_sequences/youtube/c0/videos/982.mp4"] == ("", "004", "raw", "train")
    assert found["original_sequences/youtube/c23/videos/515.mp4"] == ("", "515", "c23", "val")
    assert found["manipulated_sequences/FaceSwap/c23/videos/634_660.mp4"] == ("FaceSwap", "634", "c23", "test")
    swap = "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hug__YVGY8LOK.mp4"
    assert found[swap] == ("DeepFakeDetection", "DFD actor 01", "DFD c23", "")
    assert {g for n, (_, g, *_) in found.items() if "/actors/" in n} == {"DFD actor 01"}, "the swap joins two actors"
    assert not any(c.cropped for c in clips.clips)
    assert not clips.unreadable
    frame = clips.clips[0].footage.read([1])[0]
    assert (frame.shape, clips.clips[0].footage.count) == ((48, 64, 3), 3)


def test_the_pairs_of_the_official_lists_are_groups_even_without_their_fake(ffpp, tmp_path):
    only = read_ffpp(ffpp, quality="raw", methods=["Deepfakes"], splits=["train", "val"])
    groups = {c.id.rpartition("/")[2]: c.group for c in only.clips}
    assert groups == {"004.mp4": "004", "982.mp4": "004", "515.mp4": "515", "519.mp4": "515", "004_982.mp4": "004"}
    for name in ("original_sequences/youtube/c23/videos/001", "original_sequences/youtube/c23/videos/002",
                 "manipulated_sequences/FaceSwap/c23/videos/003_004"):  # fmt: skip
        film(tmp_path / f"{name}.mp4")
    assert [c.group for c in read_ffpp(tmp_path).clips] == ["001", "002", "003"]
    (tmp_path / "train.json").write_text('[["001", "002"]]')
    assert [c.group for c in read_ffpp(tmp_path).clips] == ["001", "001", "003"]


def test_groups_do_not_depend_on_what_is_chosen(ffpp):
    whole = about(read_ffpp(ffpp))
    for chosen in ({"quality": "c23"}, {"methods": ["FaceSwap"]}, {"quality": ["c0", "c40"]}, {"splits": ["train"]}):
        part = about(read_ffpp(ffpp, **chosen))
        assert 0 < len(part) < len(whole)
        assert part.items() <= whole.items()


def test_originals_go_with_their_own_methods(ffpp):
    google = about(read_ffpp(ffpp, methods=["DeepFakeDetection"]))
    assert {n.split("/")[1] for n in google} == {"actors", "DeepFakeDetection"}
    assert google == about(read_dfd(ffpp)) == about(open_clips(f"dfd:{ffpp}"))
    others = about(read_ffpp(ffpp, methods=["FaceSwap"]))
    assert {n.split("/")[1] for n in others} == {"youtube", "FaceSwap"}


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"quality": "c35"}, "expected qualities c23, c40, raw, got 'c35'"),
        ({"methods": ["DeepFakes"]}, "expected methods DeepFakeDetection, Deepfakes, FaceSwap, got 'DeepFakes'"),
        ({"splits": ["dev"]}, "expected official lists test, train, val, got 'dev'"),
        (
            {"quality": "raw", "methods": ["FaceSwap"]},
            "clips that are real and clips that are fake, got 5 real and 0 fake",
        ),
    ],
)
def test_a_choice_that_is_not_there_is_refused(ffpp, chosen, says):
    with pytest.raises(DataError, match=says):
        read_ffpp(ffpp, **chosen)


@pytest.mark.parametrize("text", ["[", '{"a": 1}', '[["071"]]', '[["071", 54]]', "[[[]]]", "\xff", "[" * 100_000])
def test_a_broken_official_list_is_named(tmp_path, text):
    film(tmp_path / "original_sequences/youtube/c23/videos/001.mp4")
    film(tmp_path / "manipulated_sequences/FaceSwap/c23/videos/001_002.mp4")
    (tmp_path / "val.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"official list val\.json"):
        read_ffpp(tmp_path)
    (tmp_path / "val.json").write_text('[["001", "002"]]')
    (tmp_path / "test.json").write_text('[["003", "002"]]')
    with pytest.raises(DataError, match="002, which"):
        read_ffpp(tmp_path)


@pytest.mark.parametrize(("form", "cropped"), [("images", False), ("frames", True), ("faces", True), ("crops", True)])
def test_stills_may_stand_in_place_of_videos(tmp_path, form, cropped):
    stills(tmp_path / f"original_sequences/youtube/c23/{form}/004")
    stills(tmp_path / f"manipulated_sequences/NeuralTextures/c23/{form}/004_982", 11)
    clips = read_ffpp(tmp_path)
    assert [(c.group, c.cropped, c.footage.fps) for c in clips.clips] == [("004", cropped, 0)] * 2
    fake = next(c for c in clips.clips if c.fake)
    folder = tmp_path / fake.id
    for i in (2, 10):
        assert np.array_equal(fake.footage.read([i])[0], np.asarray(Image.open(folder / f"{i}.png"))), "10 after 9"
    assert all(c.cropped is not cropped for c in open_clips(f"{'whole' if cropped else 'crops'}:ffpp:{tmp_path}").clips)
    film(tmp_path / "original_sequences/youtube/c23/videos/004.mp4")
    assert [c.id.split("/")[3] for c in read_ffpp(tmp_path).clips] == ["videos", form], (
        "the video goes before its stills"
    )


NAMED = ["{}.png", "{}_0007.png", "{}_0007_0.png", "{}_frame7_face0.png", "{} 7 (0).png", "{}-7.png"]


@pytest.mark.parametrize("name", NAMED)
def test_stills_that_lie_beside_one_another_are_grouped_by_source(tmp_path, name):
    for number in ("004", "515", "982"):
        photo(tmp_path / "original_sequences/youtube/c23/faces" / name.format(number))
    photo(tmp_path / "manipulated_sequences/FaceSwap/c23/faces" / name.format("004_982"))
    assert [c.group for c in read_ffpp(tmp_path).clips] == ["004", "515", "004", "004"]


@pytest.mark.parametrize("name", ["{}_{:04d}.png", "{}_{:04d}_0.png", "{}_frame{}_face0.png", "{}_{}_1.png"])
@pytest.mark.parametrize("official", [False, True])
def test_frames_of_one_video_are_on_one_side_of_a_split(tmp_path, name, official):
    real, fake = ("real", "fake/DF") if not official else (
        "original_sequences/youtube/c23/faces", "manipulated_sequences/Deepfakes/c23/faces")  # fmt: skip
    pairs = [("519", "515"), ("004", "982"), ("634", "660")]
    for i in range(4):
        for a, b in pairs:
            for number in (a, b):
                photo(tmp_path / real / name.format(number, i), size=(4, 4))
            photo(tmp_path / fake / name.format(f"{a}_{b}", i), size=(4, 4))
    clips = open_clips(tmp_path)
    assert len(clips) == 36
    together = {}
    for c in clips.clips:
        together.setdefault(c.group, set()).add(c.id.rpartition("/")[2][:3])
    assert sorted(map(sorted, together.values())) == [["004", "982"], ["515", "519"], ["634", "660"]]
    assert not any("group by itself" in n for n in clips.notes)


def test_frames_of_one_actor_and_of_one_scene_go_together(tmp_path):
    for i in range(3):
        for name in ("01__hug", "02__hug", "03__exit"):
            photo(tmp_path / f"d/DFD_original/{name}_{i:04d}_0.png", size=(4, 4))
        photo(tmp_path / f"d/DFD_manipulated/01_02__hug__YVGY8LO8_{i:04d}_0.png", size=(4, 4))
        for name in ("Celeb-real/id0_0001", "Celeb-real/id1_0000", "Celeb-real/id7_0000", "YouTube-real/00170",
                     "Celeb-synthesis/id0_id1_0001"):  # fmt: skip
            photo(tmp_path / f"c/{name}_{i:04d}_0.png", size=(4, 4))
    groups = {c.id.rpartition("/")[2][:3]: c.group for c in open_clips(tmp_path / "d").clips}
    assert len({c.group for c in open_clips(tmp_path / "d").clips}) == 2
    assert groups["01_"] == groups["02_"] != groups["03_"]
    celeb = {c.id: c.group for c in open_clips(tmp_path / "c").clips}
    assert set(celeb.values()) == {"id0", "id7", "YouTube-real 00170"}
    assert celeb["Celeb-synthesis/id0_id1_0001_0002_0.png"] == celeb["Celeb-real/id1_0000_0000_0.png"] == "id0"


def test_photographs_that_nothing_joins_are_said(tmp_path):
    def note(clips):
        return [n for n in clips.notes if "group by itself" in n]

    for i in range(20):
        photo(tmp_path / f"real/frame of {'abcdefghijklmnopqrst'[i]}.png", size=(4, 4))
    film(tmp_path / "fake/1.mp4")
    assert note(read_plain(tmp_path)) == [], "20 are few, and videos do not count"
    photo(tmp_path / "fake/u.png", size=(4, 4))
    (said,) = note(read_plain(tmp_path))
    assert said.startswith(
        "21 of 21 photographs are each a group by itself: intervals and splits take each for a video"
    )
    assert "groups.csv can say so" in said
    for i in range(2):
        photo(tmp_path / f"fake/v_{i}.png", size=(4, 4))
    assert note(read_plain(tmp_path))[0].startswith("21 of 23"), "91 in a hundred"
    photo(tmp_path / "fake/v_2.png", size=(4, 4))
    assert note(read_plain(tmp_path)) == [], "88 in a hundred"
    (tmp_path / "fake/v_2.png").unlink()
    (tmp_path / "groups.csv").write_text("file,group\nfake/u.png,u\n")
    assert note(read_plain(tmp_path)) == [], "the owner has said"


def reached(start, pairs):
    """All keys that hang together with one, by walking."""
    by_source = {}
    for key, own in pairs.items():
        for s in own:
            by_source.setdefault(s, set()).add(key)
    seen, wait = {start}, deque([start])
    while wait:
        for s in pairs[wait.popleft()]:
            for other in by_source[s] - seen:
                seen.add(other)
                wait.append(other)
    return seen


CLIPS = st.integers(0, 40).map("clip {}".format)
SOURCES = st.lists(st.integers(0, 25).map(str), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(CLIPS, SOURCES, min_size=1, max_size=25))
def test_groups_are_the_connected_components(pairs):
    groups = linked(pairs)
    keys, names = list(pairs), sorted({s for own in pairs.values() for s in own})
    edges = [(i, len(keys) + names.index(s)) for i, k in enumerate(keys) for s in pairs[k]]
    rows, columns = np.array(edges).T
    size = len(keys) + len(names)
    _, part = connected_components(
        coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size)), directed=False
    )
    for i, a in enumerate(keys):
        assert {b for b in keys if groups[b] == groups[a]} == {b for j, b in enumerate(keys) if part[j] == part[i]}
        assert {b for b in keys if groups[b] == groups[a]} == reached(a, pairs)


@pytest.mark.parametrize(
    ("name", "still", "expected"),
    [
        ("519.mp4", False, ("519",)),
        ("519_515.mp4", False, ("519", "515")),
        ("519_515", True, ("519", "515")),
        ("20210101_123456.mp4", False, ("20210101_123456",)),
        ("anna_1.mp4", False, ("anna_1",)),
        ("1_1_20_1.avi", False, ("1_1_20_1",)),
    ],
)
def test_sources_of_videos_and_folders(name, still, expected):
    assert sources(Found(f"real/{name}", (f"real/{name}/0.png",) if still else ())) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("519_515_0012.png", ("519", "515")),
        ("519_515.png", ("519", "515")),
        ("519_0012.png", ("519",)),
        ("0012.png", ("0012",)),
        ("anna_0012.jpg", ("anna",)),
        ("clip7 frame 12.jpg", ("clip7",)),
        ("anna.v2.png", ("anna.v",)),
        ("519_515_0012_0.png", ("519", "515")),
        ("519_515_frame12_face0.png", ("519", "515")),
        ("519_515_3.png", ("519", "515")),
        ("004_0012_0.png", ("004",)),
        ("004_frame12_face0.png", ("004",)),
        ("anna_0007_0.png", ("anna",)),
        ("anna_face_3.png", ("anna",)),
        ("surface_3.png", ("surface",)),
        ("frame12.png", ("frame12",)),
        ("0012_0.png", ("0012",)),
        ("00170_00012.png", ("00170",)),
        ("0004_0012_0.png", ("0004",)),
        ("0519_0515_0012_0.png", ("0519", "0515")),
        ("0519_05150_0012.png", ("0519",)),
    ],
)
def test_sources_of_photographs(name, expected):
    assert sources(Found(f"real/{name}", (f"real/{name}",))) == expected


def test_a_plain_folder_holds_videos_photographs_and_frames(tmp_path):
    film(tmp_path / "real/519.mp4")
    film(tmp_path / "real/634.mp4")
    stills(tmp_path / "real/700")
    photo(tmp_path / "real/anna_001.png")
    film(tmp_path / "fake/Deepfakes/519_515.mp4")
    stills(tmp_path / "fake/Face2Face/700_701")
    photo(tmp_path / "fake/GAN/anna_017.png")
    film(tmp_path / "fake/loose.mp4")
    (tmp_path / "fake/readme.txt").write_text("not a clip")
    clips = open_clips(tmp_path)
    assert about(clips) == {
        "real/519.mp4": ("", "515", "", ""),
        "real/634.mp4": ("", "634", "", ""),
        "real/700": ("", "700", "", ""),
        "real/anna_001.png": ("", "anna", "", ""),
        "fake/Deepfakes/519_515.mp4": ("Deepfakes", "515", "", ""),
        "fake/Face2Face/700_701": ("Face2Face", "700", "", ""),
        "fake/GAN/anna_017.png": ("GAN", "anna", "", ""),
        "fake/loose.mp4": ("fake", "loose", "", ""),
    }
    assert {c.id for c in clips.clips if c.cropped} == {"real/700", "real/anna_001.png", "fake/Face2Face/700_701",
                                                        "fake/GAN/anna_017.png"}  # fmt: skip
    assert any("4 of 8 clip(s) are taken for faces that are cut out" in n for n in clips.notes)
    (tmp_path / "groups.csv").write_text("file,group\nreal/634.mp4,loose\nreal/519.mp4,own\nreal/none.mp4,x\n")
    given_groups = open_clips(tmp_path)
    groups = {c.id: c.group for c in given_groups.clips}
    assert groups["real/634.mp4"] == groups["fake/loose.mp4"] == "loose"
    assert groups["real/519.mp4"] == "own" != groups["fake/Deepfakes/519_515.mp4"]
    assert any(
        "groups.csv names 1 file(s) that are no clip here, the first real/none.mp4" in n for n in given_groups.notes
    )
    assert given_groups.digest != clips.digest
    (tmp_path / "groups.csv").write_text("file,group\nreal/634.mp4,a\nreal/634.mp4,b\n")
    with pytest.raises(DataError, match=r"real/634\.mp4 twice"):
        open_clips(tmp_path)


def test_domains_splits_and_methods_beside_real(tmp_path):
    for d in ("c23", "c40"):
        film(tmp_path / f"{d}/train/real/001.mp4")
        film(tmp_path / f"{d}/test/Fake/DF/001_002.mp4")
    film(tmp_path / "c40/val/real/003.mp4")
    film(tmp_path / "wild/real/test/004.mp4")
    film(tmp_path / "wild/DFDC/004.mp4")
    film(tmp_path / "aside/005.mp4")
    assert about(read_plain(tmp_path)) == {
        "c23/train/real/001.mp4": ("", "001", "c23", "train"),
        "c40/train/real/001.mp4": ("", "001", "c40", "train"),
        "c40/val/real/003.mp4": ("", "003", "c40", "val"),
        "c23/test/Fake/DF/001_002.mp4": ("DF", "001", "c23", "test"),
        "c40/test/Fake/DF/001_002.mp4": ("DF", "001", "c40", "test"),
        "wild/real/test/004.mp4": ("", "004", "wild", "test"),
        "wild/DFDC/004.mp4": ("DFDC", "004", "wild", ""),
    }


def test_a_video_goes_before_the_frames_beside_it(tmp_path):
    film(tmp_path / "real/1.mp4")
    stills(tmp_path / "real/1")
    stills(tmp_path / "fake/X/2")
    clips = read_plain(tmp_path)
    assert {c.id: c.footage.fps for c in clips.clips} == {"real/1.mp4": 25, "fake/X/2": 0}
    assert any("1 folder(s) of frames lie beside their video" in n for n in clips.notes)


def test_boxes_of_the_data(tmp_path):
    film(tmp_path / "real/1.mp4")
    photo(tmp_path / "real/a.png")
    stills(tmp_path / "fake/X/b", 4)
    (tmp_path / "fake/X/b/1.png").write_bytes(b"no picture")
    film(tmp_path / "fake/X/2.mp4")
    (tmp_path / "boxes.csv").write_text(
        "file,frame,x1,y1,x2,y2\nreal/1.mp4,2,1,2,30,40\nreal/1.mp4,2,1,2,3,4\nreal/a.png,,1,1,9,9.5\n"
        "fake/X/b,0,0,0,5,5\n./fake/X/b/2.png,,0,0,6,6\nfake/X/2.mp4,,0,0,7,7\nreal/zzz.mp4,1,0,0,1,1\n"
    )
    clips = {c.id: c for c in read_plain(tmp_path).clips}
    video, still, folder, always = (clips[n] for n in ("real/1.mp4", "real/a.png", "fake/X/b", "fake/X/2.mp4"))
    assert video.boxes(2).tolist() == [1, 2, 30, 40], "the largest of two counts"
    assert video.boxes(1) is None
    assert still.boxes(0).tolist() == [1, 1, 9, 9.5]
    assert folder.footage.count == 3
    assert folder.boxes(0).tolist() == [0, 0, 5, 5]
    assert folder.boxes(1).tolist() == [0, 0, 6, 6], "frame 2 is the second of those that decode"
    assert folder.boxes(2) is None
    assert always.boxes(77).tolist() == [0, 0, 7, 7]
    assert not any(c.cropped for c in clips.values()), "who gives boxes gives whole frames"
    assert any("boxes.csv names 1 file(s)" in n for n in read_plain(tmp_path).notes)
    before = read_plain(tmp_path).digest
    (tmp_path / "boxes.csv").write_text((tmp_path / "boxes.csv").read_text().replace("9.5", "9.6"))
    assert read_plain(tmp_path).digest != before, "another box is other data"
    assert pickle.loads(pickle.dumps(video)).boxes(2).tolist() == [1, 2, 30, 40]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("real/1.mp4,x,0,0,1,1", "the frame 'x' in row 2"),
        ("real/1.mp4,-1,0,0,1,1", "frame '-1'"),
        ("real/1.mp4,1,5,0,5,1", "no box in row 2"),
        ("real/1.mp4,1,nan,0,5,1", "no box"),
        ("real/1.mp4,1,0,0,inf,1", "no box"),
        ("real/1.mp4,1,0,0,1", "5 cells"),
    ],
)
def test_broken_boxes_are_refused(tmp_path, row, says):
    film(tmp_path / "real/1.mp4")
    film(tmp_path / "fake/2.mp4")
    (tmp_path / "boxes.csv").write_text(f"file,frame,x1,y1,x2,y2\n{row}\n")
    with pytest.raises(DataError, match=says):
        open_clips(tmp_path)


def test_celeb_df(tmp_path):
    for name in ("Celeb-real/id0_0000", "Celeb-real/id0_0001", "Celeb-real/id1_0000", "Celeb-real/id7_0000",
                 "YouTube-real/00170", "Celeb-synthesis/id0_id1_0000"):  # fmt: skip
        film(tmp_path / f"{name}.mp4")
    stills(tmp_path / "Celeb-synthesis/frames/id7_id8_0003")
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id7_id8_0003.mp4\n\n1 Celeb-real/id9_0000.mp4\n"
    )
    clips = open_clips(tmp_path)
    assert about(clips) == {
        "Celeb-real/id0_0000.mp4": ("", "id0", "", "train"),
        "Celeb-real/id0_0001.mp4": ("", "id0", "", "train"),
        "Celeb-real/id1_0000.mp4": ("", "id0", "", "train"),
        "Celeb-real/id7_0000.mp4": ("", "id7", "", "train"),
        "YouTube-real/00170.mp4": ("", "YouTube-real 00170", "", "test"),
        "Celeb-synthesis/id0_id1_0000.mp4": ("Celeb-DF", "id0", "", "train"),
        "Celeb-synthesis/frames/id7_id8_0003": ("Celeb-DF", "id7", "", "test"),
    }
    assert any("1 clip(s) that List_of_testing_videos.txt names are not there" in n for n in clips.notes)
    (tmp_path / "List_of_testing_videos.txt").write_text("0 YouTube-real/00170.mp4\n")
    with pytest.raises(DataError, match="in line 1"):
        read_celebdf(tmp_path)


def test_people_who_are_all_swapped_with_one_another_are_no_groups():
    people, videos, fakes = {}, {}, []
    for a in range(10):
        people[f"r{a}"], videos[f"r{a}"] = [f"id{a}"], [f"id{a}_0"]
        for b in ((a + 1) % 10, (a + 2) % 10):
            name = f"f{a}_{b}"
            people[name], videos[name] = [f"id{a}", f"id{b}"], [f"id{a}_0"]
            fakes.append(name)
    groups, note = by_person(people, videos, fakes)
    assert "20 of 20 fakes" in note
    assert len(set(groups.values())) == 10
    assert groups["f3_4"] == groups["f3_5"] == groups["r3"] != groups["r4"]
    few = {k: v for k, v in people.items() if k != "f9_1"}
    alone, quiet = by_person(few, videos, [f for f in fakes if f in few])
    assert (len(set(alone.values())), quiet) == (1, ""), "of 19 a chain is kept"
    others = {f"o{i}": [f"x{i}", f"y{i}"] for i in range(20)}
    kept, quiet = by_person(people | others, videos | others, [*fakes, *others])
    assert (kept["f3_4"], quiet) == (kept["f0_1"], ""), "half of the fakes, and not more"
    pairs = {f"p{i}": [f"x{i}", f"y{i}"] for i in range(100)}
    assert by_person(pairs, pairs, list(pairs)) == (linked(pairs), "")


def test_deepfakedetection_by_itself(tmp_path):
    film(tmp_path / "DFD_original sequences/03__exit.mp4")
    film(tmp_path / "DFD_manipulated_sequences/DFD_manipulated_sequences/03_05__exit__A1B2C3D4.mp4")
    film(tmp_path / "DFD_manipulated_sequences/DFD_manipulated_sequences/07_09__exit__A1B2C3D4.mp4")
    found = about(open_clips(tmp_path))
    assert {n.rpartition("/")[2]: v[:2] for n, v in found.items()} == {
        "03__exit.mp4": ("", "DFD actor 03"),
        "03_05__exit__A1B2C3D4.mp4": ("DeepFakeDetection", "DFD actor 03"),
        "07_09__exit__A1B2C3D4.mp4": ("DeepFakeDetection", "DFD actor 07"),
    }


def metadata(root, rows):
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.json").write_text(json.dumps(rows))


def test_dfdc(tmp_path):
    film(tmp_path / "part_0/aaa.mp4")
    film(tmp_path / "part_0/bbb.mp4")
    film(tmp_path / "part_0/orphan.mp4")
    stills(tmp_path / "part_1/ccc")
    rows = {"aaa.mp4": {"label": "REAL", "split": "train", "original": None},
            "bbb.mp4": {"label": "FAKE", "split": "validation", "original": "aaa.mp4"},
            "gone.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"},
            "../part_1/ccc": {"label": "FAKE", "split": "train", "original": "aaa.mp4"}}  # fmt: skip
    metadata(tmp_path / "part_0", rows)
    metadata(tmp_path / "part_1", {"ccc.mp4": {"label": "FAKE", "original": "zzz.mp4"}})
    clips = open_clips(tmp_path)
    assert about(clips) == {
        "part_0/aaa.mp4": ("", "part_0/aaa.mp4", "", "train"),
        "part_0/bbb.mp4": ("DFDC", "part_0/aaa.mp4", "", "val"),
        "part_1/ccc": ("DFDC", "part_1/ccc.mp4", "", ""),
    }
    assert [u.name for u in clips.unreadable] == ["../part_1/ccc"]
    assert any("1 clip(s) that metadata.json names are not there, the first part_0/gone.mp4" in n for n in clips.notes)
    assert any("1 clip(s) that no metadata.json names" in n for n in clips.notes)
    for broken in ([1], {"aaa.mp4": {"label": "maybe"}}, {"aaa.mp4": 3}):
        metadata(tmp_path / "part_0", broken)
        with pytest.raises(DataError, match=r"file metadata.json"):
            read_dfdc(tmp_path)


def test_whether_frames_are_cut_out_already_is_part_of_the_data(tmp_path):
    photo(tmp_path / "real/1.png")
    film(tmp_path / "fake/2.mp4")
    crops, whole, plain = (open_clips(f"{p}{tmp_path}") for p in ("crops:", "whole:", ""))
    assert [[c.digest for c in s.clips] for s in (crops, whole)] == [[c.digest for c in plain.clips]] * 2
    assert len({crops.digest, whole.digest, plain.digest}) == 3
    assert open_clips(f"crops:{tmp_path}").digest == crops.digest


@pytest.mark.parametrize("left", [None, b"", b"something else", "half"])
def test_a_file_that_is_gone_or_changed_since_is_named(tmp_path, left):
    files = film(tmp_path / "fake/2.mp4"), photo(tmp_path / "real/1.png")
    stills(tmp_path / "real/3", 2)
    clips = {c.id: c.footage for c in open_clips(tmp_path).clips}
    for file in (*files, tmp_path / "real/3/1.png"):
        whole = file.read_bytes()
        file.unlink()
        if left is not None:
            file.write_bytes(whole[: len(whole) // 2] if left == "half" else left)
    for name, file in (("fake/2.mp4", "2.mp4"), ("real/1.png", "1.png"), ("real/3", "1.png")):
        fresh = pickle.loads(pickle.dumps(clips[name]))
        with pytest.raises(DataError, match=file):
            fresh.read(list(range(2 if name == "real/3" else 1)))
        with pytest.raises(DataError, match=file):
            fresh.compression()
    with pytest.raises(DataError, match=r"2\.mp4"):
        _ = clips["fake/2.mp4"].count


def test_an_image_that_goes_between_two_looks_is_named(tmp_path, monkeypatch):
    import audit.data.footage as footage

    files = [photo(tmp_path / f"{i}.png") for i in range(2)]
    stills_ = footage.StillFootage.open(files)
    look = footage.inspect
    monkeypatch.setattr(footage, "inspect", lambda path: (look(path), path.unlink())[0])
    with pytest.raises(DataError, match=r"image 0\.png: .*FileNotFoundError"):
        stills_.compression()


def test_what_cannot_be_used_is_named_and_the_rest_is_read(tmp_path):
    good = film(tmp_path / "real/1.mp4")
    film(tmp_path / "fake/2.mp4")
    photo(tmp_path / "fake/3.png")
    stills(tmp_path / "fake/X/4", 3)
    (tmp_path / "fake/X/4/1.png").write_bytes(photo(tmp_path / "other.png").read_bytes()[:60])
    (tmp_path / "real/empty.mp4").touch()
    (tmp_path / "real/text.avi").write_text("no video at all " * 100)
    (tmp_path / "real/cut.mp4").write_bytes(good.read_bytes()[:700])
    (tmp_path / "real/.hidden.mp4").write_bytes(b"x")
    (tmp_path / "real/._2.mp4").write_bytes(b"x")
    (tmp_path / ".trash/real").mkdir(parents=True)
    film(tmp_path / ".trash/real/9.mp4")
    (tmp_path / "fake/broken.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "fake/X/5").mkdir()
    (tmp_path / "fake/X/5/0.png").write_bytes(b"")
    clips = read_plain(tmp_path)
    assert {c.id for c in clips.clips} == {"real/1.mp4", "fake/2.mp4", "fake/3.png", "fake/X/4"}
    reasons = {u.name: u.reason for u in clips.unreadable}
    lost = {"real/empty.mp4", "real/text.avi", "real/cut.mp4", "fake/broken.png", "fake/X/4/1.png", "fake/X/5"}
    assert reasons.keys() == lost
    assert reasons["fake/X/5"] == "none of its 1 frames decodes"
    assert all(reasons.values())
    assert next(c for c in clips.clips if c.id == "fake/X/4").footage.count == 2


def test_hostile_names_and_links(tmp_path):
    root = tmp_path / "data"
    film(root / "real/a\nb\x1b[31m.mp4")
    film(root / "fake/m\u202eethod/2.mp4")
    (root / "fake/X").mkdir()
    film(tmp_path / "outside.mp4").rename(root / "fake/X" / os.fsdecode(b"\xff.mp4"))
    film(tmp_path / "elsewhere/3.mp4")
    (root / "real/away").symlink_to(tmp_path / "elsewhere")
    (root / "real/loop").symlink_to(root)
    (root / "real/gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    clips = read_plain(root)
    assert {c.id for c in clips.clips} == {
        "real/a\\nb\\x1b[31m.mp4", "fake/m\\u202eethod/2.mp4", "fake/X/\\udcff.mp4", "real/away/3.mp4",
    }  # fmt: skip
    assert "m\\u202eethod" in clips.methods
    assert [u.name for u in clips.unreadable] == ["real/gone.mp4"]
    assert len(files_below(root)) == 5, "a loop ends"
    for text in (clips.name, clips.source, *clips.notes, *(c.id + c.group for c in clips.clips)):
        assert text.isprintable()


def test_many_photographs_of_one_name_are_one_group_and_it_is_said(tmp_path):
    for i in range(21):
        photo(tmp_path / f"real/portrait {i}.png", size=(4, 4))
    photo(tmp_path / "fake/a.png")
    clips = read_plain(tmp_path)
    assert {c.group for c in clips.clips} == {"portrait", "a"}
    assert any("21 of 22 clips are one group by their names, portrait" in n for n in clips.notes)
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"real/portrait {i}.png,{i}\n" for i in range(21)))
    clips = read_plain(tmp_path)
    assert len({c.group for c in clips.clips}) == 22
    assert not any("one group" in n for n in clips.notes)


def test_a_class_without_clips_is_no_data_set(tmp_path):
    (tmp_path / "real").mkdir()
    film(tmp_path / "fake/X/1.mp4")
    (tmp_path / "real/0.mp4").touch()
    with pytest.raises(
        DataError,
        match=r"clips that are real and clips that are fake, got 0 real and 1 fake, 1 unusable \(real/0.mp4: ",
    ):
        open_clips(tmp_path)
    (tmp_path / "fake/X/1.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="at least one usable clip, got none, 2 unusable"):
        open_clips(tmp_path)


def test_nothing_there(tmp_path):
    for path, says in (
        (tmp_path / "none", "nothing there"),
        ("", "nothing there"),
        ("a\0b", "nothing there"),
        ("plain:", "nothing there"),
        (tmp_path, "0 videos and images and no word"),
        (f"celebdf:{tmp_path}", "expected videos in Celeb-real"),
    ):
        with pytest.raises(DataError, match=says):
            open_clips(path)
    with pytest.raises(DataError, match="got a file"):
        open_clips(photo(tmp_path / "a.png"))
    for name in ("Celeb-real", "original_sequences"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"several of them \(ffpp, celebdf\)"):
        open_clips(tmp_path)


def test_copies_are_one_group_and_a_copy_in_two_classes_is_said(tmp_path):
    film(tmp_path / "real/1.mp4", seed=5)
    film(tmp_path / "fake/X/2.mp4", seed=5)
    film(tmp_path / "fake/X/3.mp4")
    clips = read_plain(tmp_path)
    assert {c.id: c.group for c in clips.clips} == {"real/1.mp4": "1", "fake/X/2.mp4": "1", "fake/X/3.mp4": "3"}
    assert any("1 clip(s) are exact copies" in n for n in clips.notes)
    assert any("the first real/1.mp4: one of the two labels is wrong" in n for n in clips.notes)


def test_opening_decodes_no_video_but_its_first_frame(tmp_path, monkeypatch):
    film(tmp_path / "real/1.mp4")
    film(tmp_path / "fake/2.mp4")
    import audit.data.footage as footage

    asked = []
    read = footage.VideoFootage.read
    monkeypatch.setattr(footage.VideoFootage, "read", lambda self, at: asked.append(list(at)) or read(self, at))
    monkeypatch.setattr(footage.VideoFootage, "_survey", property(lambda self: pytest.fail("decoded to the end")))
    assert len(open_clips(tmp_path)) == 2
    assert all(at == [0] for at in asked)


def test_attribution_by_folders(tmp_path):
    for side, method, names in (
        ("gallery", "StyleGAN", "abc"),
        ("gallery", "DDPM", "de"),
        ("probe", "StyleGAN", "fg"),
        ("probe", "new", "h"),
    ):
        for n in names:
            photo(tmp_path / side / method / f"{n}.png")
    found = open_clips(tmp_path, "attribution")
    assert ([len(found.gallery), len(found.probe)], found.novel, found.known) == (
        [5, 3],
        ("new",),
        ("DDPM", "StyleGAN"),
    )
    assert found.shifted
    assert found.shared == ()
    assert open_clips(tmp_path, "attribution", novel=["new"]).novel == ("new",)
    with pytest.raises(DataError, match="expected DDPM in probe/ only, since it is new, got the new methods new"):
        open_clips(tmp_path, "attribution", novel=["new", "DDPM"])
    photo(tmp_path / "probe/DDPM/d.png")
    copy = tmp_path / "probe/new/copy.png"
    copy.write_bytes((tmp_path / "gallery/StyleGAN/b.png").read_bytes())
    again = open_clips(f"gallery:{tmp_path}", "attribution")
    assert (again.shared, again.shifted) == (("b", "d"), False), "a name and a copy"
    photo(tmp_path / "probe/loose.png")
    with pytest.raises(DataError, match=r"clips in probe/<method>/, got probe/loose.png"):
        open_clips(tmp_path, "attribution")
    (tmp_path / "probe/loose.png").unlink()
    for name in ("DDPM", "StyleGAN"):
        (tmp_path / "probe" / name).rename(tmp_path / "probe" / f"{name}2")
    with pytest.raises(DataError, match="a method in gallery and probe both"):
        open_clips(tmp_path, "attribution")


def test_attribution_by_splitting_a_set(tmp_path):
    for i in range(8):
        photo(tmp_path / f"real/{i:03d}.png")
        for method in ("A", "B", "C"):
            photo(tmp_path / f"fake/{method}/{i:03d}_{i + 100}.png")
    clips = open_clips(tmp_path)
    found = split_attribution(clips, ["C"])
    assert (found.known, found.novel, found.shifted) == (("A", "B"), ("C",), True)
    assert {c.method for c in found.probe.clips} == {"A", "B", "C"}
    groups = [{c.group for c in half.clips} for half in (found.gallery, found.probe)]
    assert len(groups[0] | groups[1]) == 8
    assert groups[0].isdisjoint(groups[1])
    assert [c.id for c in open_clips(tmp_path, "attribution", novel=["C"]).gallery.clips] == [
        c.id for c in found.gallery.clips
    ]
    with pytest.raises(DataError, match="expected methods A, B, C, got 'D'"):
        split_attribution(clips, ["D"])
    with pytest.raises(DataError, match="no method that is not new"):
        split_attribution(clips, ["A", "B", "C"])


@pytest.mark.kit
def test_real_videos_of_faceforensics(tmp_path):
    folder = kit("ffpp_c23_videos")
    places = {"004_982": "NeuralTextures", "519_515": "Deepfakes", "634_660": "FaceSwap"}
    for file in folder.glob("*.mp4"):
        method = places.get(file.stem)
        inner = f"manipulated_sequences/{method}" if method else "original_sequences/youtube"
        place = tmp_path / inner / "c23/videos"
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).symlink_to(file)
    clips = open_clips(tmp_path)
    assert clips.methods == ("Deepfakes", "FaceSwap", "NeuralTextures")
    by_group = {}
    for c in clips.clips:
        by_group.setdefault(c.group, []).append(c.method)
    expected = {"004": ["", "NeuralTextures"], "515": ["", "Deepfakes"], "634": ["", "FaceSwap"]}
    assert {k: sorted(v) for k, v in by_group.items()} == expected
    craft, held_out = clips.split(0.5)
    assert {c.group for c in craft.clips}.isdisjoint({c.group for c in held_out.clips})
    assert len(craft) + len(held_out) == 6
    assert clips.clips[0].footage.read([0, 3])[1].ndim == 3


@pytest.mark.kit
def test_real_frames_of_dfdc():
    clips = open_clips(kit("deepfake_frames", "dfdc"))
    assert (clips.methods, len(clips), clips.clips[0].footage.count) == (("DFDC",), 4, 6)
    assert all(c.cropped for c in clips.clips)
    assert clips.clips[0].footage.read([0])[0].shape == (256, 256, 3)
