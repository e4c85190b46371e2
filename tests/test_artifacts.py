import multiprocessing
import time

import pytest

from audit.artifacts import Artifacts, code_digest
from audit.errors import AuditError


def write(text):
    def build(folder):
        (folder / "value").write_text(text)

    return build


def test_a_result_is_built_once_per_key_and_context(tmp_path):
    store = Artifacts(tmp_path, {"model": "a"})
    first = store.folder("patches", {"seed": 1}, write("one"))
    again = store.folder("patches", {"seed": 1}, write("two"))
    assert first == again
    assert (again / "value").read_text() == "one"
    assert store.folder("patches", {"seed": 2}, write("x")) != first
    assert Artifacts(tmp_path, {"model": "b"}).folder("patches", {"seed": 1}, write("x")) != first
    assert store.folder("detections", {"seed": 1}, write("x")) != first


def test_a_build_that_raises_leaves_nothing_and_is_tried_again(tmp_path):
    store = Artifacts(tmp_path, {})

    def broken(folder):
        (folder / "value").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.folder("patches", {}, broken)
    assert [p for p in (tmp_path / "patches").iterdir() if p.is_dir()] == []
    assert (store.folder("patches", {}, write("whole")) / "value").read_text() == "whole"


def _slow(folder):
    (folder / "value").write_text(str(time.time_ns()))
    time.sleep(0.5)


def _ask(root, out):
    out.put((Artifacts(root, {}).folder("patches", {}, _slow) / "value").read_text())


def test_two_processes_share_one_build(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    workers = [context.Process(target=_ask, args=(tmp_path, out)) for _ in range(2)]
    for w in workers:
        w.start()
    values = {out.get(timeout=30) for _ in workers}
    for w in workers:
        w.join()
    assert len(values) == 1


def test_a_cache_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match=r"expected a folder that can be written.*--audit-cache"):
        Artifacts(tmp_path / "file", {})


def test_the_code_digest_is_of_this_code():
    assert len(code_digest()) == 64
    assert code_digest() == code_digest()
