"""Folders of images per class, against Pillow and torchvision's own reader."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torchvision.datasets import ImageFolder

from audit.data.class_folders import fitted, read_classes
from audit.errors import DataError

PHOTO = data.astronaut()


def picture(seed, size=(20, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path):
    """Nine cats, five dogs (two of them below a folder), three eels, and what is no image."""
    for number, (name, count) in enumerate({"cat": 9, "dog": 3, "eel": 3}.items()):
        (tmp_path / name).mkdir()
        for i in range(count):
            picture(100 * number + i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "dog" / "small").mkdir()
    for i in range(2):
        picture(900 + i).save(tmp_path / "dog" / "small" / f"{i}.png")
    (tmp_path / "cat" / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "licence.txt").write_text("none")
    return tmp_path


def test_items_and_labels_are_those_of_image_folder(root):
    found = read_classes(root)
    (root / ".hidden").rmdir()  # which torchvision takes for a class
    theirs = ImageFolder(root)
    wanted = {path.removeprefix(f"{root}/"): label for path, label in theirs.samples}
    assert {i.id: i.label for i in found.items} == wanted
    assert list(found.classes) == theirs.classes
    assert (len(found), found.unreadable, found.name) == (17, (), root.name)
    for item, (path, _) in zip(sorted(found.items, key=lambda i: i.id), sorted(theirs.samples), strict=True):
        assert np.array_equal(item.load().permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
        assert item.size == (20, 30)


def test_labels_follow_the_models_classes(root):
    found = read_classes(root, ["fox", "eel", "cat", "dog"])
    assert Counter(i.label for i in found.items) == {1: 3, 2: 9, 3: 5}
    assert found.classes == ("fox", "eel", "cat", "dog")
    with pytest.raises(DataError, match="'dog'"):
        read_classes(root, ["cat", "eel"])
    with pytest.raises(DataError, match="twice"):
        read_classes(root, ["cat", "dog", "eel", "cat"])


def test_what_cannot_be_used_is_named(root):
    (root / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "eel" / "same.png").write_bytes((root / "cat" / "0.png").read_bytes())
    found = read_classes(root)
    reasons = {u.name: u.reason for u in found.unreadable}
    assert set(reasons) == {"cat/broken.jpg", "cat/empty.png", "cat/0.png", "eel/same.png"}
    assert reasons["cat/empty.png"] == "empty file"
    assert reasons["eel/same.png"] == "the same file lies in another class: cat/0.png"
    assert len(found) == 16


def test_photographs_are_turned_upright(root):
    turned = Image.fromarray(PHOTO[:40, :60])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "cat" / "turned.png", exif=exif)
    item = next(i for i in read_classes(root).items if i.id == "cat/turned.png")
    assert item.size == (60, 40)
    assert np.array_equal(item.load().permute(1, 2, 0).numpy(), np.rot90(PHOTO[:40, :60], -1))


def test_copies_stay_on_one_side_of_the_split(root):
    for i in range(3):
        (root / "cat" / f"copy{i}.png").write_bytes((root / "cat" / "1.png").read_bytes())
    whole = read_classes(root)
    craft, rest = whole.split(0.5)
    assert {i.id for i in craft.items} | {i.id for i in rest.items} == {i.id for i in whole.items}
    assert len(craft) + len(rest) == len(whole) == 20
    assert {i.group for i in craft.items}.isdisjoint({i.group for i in rest.items})
    assert len(craft)
    assert len(rest)
    assert craft.classes == rest.classes == whole.classes


def test_a_split_follows_content_and_not_names(root):
    before = {i.digest for i in read_classes(root).split(0.5)[0].items}
    for path in sorted((root / "cat").glob("*.png")):
        path.rename(path.with_name(f"renamed {path.name}"))
    assert {i.digest for i in read_classes(root).split(0.5)[0].items} == before


@pytest.mark.parametrize(
    ("limit", "counts"), [(0, []), (2, [1, 1]), (3, [1, 1, 1]), (9, [3, 3, 3]), (12, [3, 4, 5]), (99, [3, 5, 9])]
)
def test_samples_have_as_many_of_each_class_as_there_are(root, limit, counts):
    whole = read_classes(root)
    found = whole.sample(limit, seed=1)
    taken = sorted(Counter(i.label for i in found.items).values())
    assert taken == counts
    assert [i for i in whole.items if i in found.items] == list(found.items)
    assert whole.sample(limit, seed=1) == found


def test_another_seed_draws_another_sample(root):
    whole = read_classes(root)
    drawn = {tuple(i.id for i in whole.sample(2, seed).items) for seed in range(12)}
    assert len(drawn) > 6
    assert len({whole.items[0].label} | {i.label for s in range(12) for i in whole.sample(2, s).items}) == 3


def test_labelled_is_the_middle_of_pillows_resize(root):
    Image.fromarray(PHOTO).save(root / "cat" / "astronaut.png")
    whole = read_classes(root)
    found = whole.labelled((48, 40))
    assert found.images.shape == (18, 3, 48, 40)
    assert found.labels.tolist() == [i.label for i in whole.items]
    assert found.groups == tuple(i.group for i in whole.items)
    assert found.ids == found.clips == tuple(i.id for i in whole.items)
    at = found.ids.index("cat/astronaut.png")
    wanted = np.asarray(Image.fromarray(PHOTO).resize((48, 48), Image.Resampling.BILINEAR))[:, 4:44]
    assert np.abs(found.images[at].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 1
    assert whole.sample(0, 0).labelled((8, 8)).images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize("size", [(20, 30), (7, 30), (33, 5), (64, 64), (1, 1)])
@pytest.mark.parametrize("shape", [(20, 30), (31, 17), (1, 9)])
def test_fitted_covers_whatever_size_is_asked_for(size, shape):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8))
    found = fitted(image, size)
    assert (tuple(found.shape), found.dtype) == ((3, *size), torch.uint8)
    if size == shape:
        assert torch.equal(found, image)


def test_the_digest_tells_content_names_and_classes(root):
    first = read_classes(root)
    assert read_classes(root).digest == first.digest
    assert read_classes(root, ["eel", "dog", "cat"]).digest != first.digest
    (root / "cat" / "0.png").rename(root / "cat" / "zero.png")
    renamed = read_classes(root)
    assert renamed.digest != first.digest
    picture(5000).save(root / "cat" / "zero.png")
    assert read_classes(root).digest not in {first.digest, renamed.digest}


def test_progress_ends_at_one(root):
    seen = []
    read_classes(root, progress=lambda share, text: seen.append((share, text)))
    assert seen[-1][0] == 1
    assert len(seen) == 17


@pytest.mark.parametrize("folder", ["nowhere", "empty", "flat", "broken"])
def test_a_folder_without_classes_is_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    picture(0).save(tmp_path / "flat" / "0.png")
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no folder|no such folder|1 unusable .cat/0.png: not an image"):
        read_classes(tmp_path / folder)
