"""A remote detector: sound answers, recorded troubles, politeness, and credentials that show nowhere."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.adapters import http_detector
from audit.adapters.http_retry import Pace, Retry, Trouble, retry_after
from audit.adapters.http_secrets import Credentials, Secret
from audit.cli import main
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from tests.http_server import Play, body_of, dripping, red, serving
from tests.planted import scenes
from tests.test_adapters_examples import load

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "tk-Zx81.cabbage~purple/77"
KEY = "qk4477aabbccdd"
LONG = "".join(f"{i * i:x}-Q{i:02d};" for i in range(40))[:124]
NOTHING = {"boxes": [], "scores": [], "labels": []}


def squares(count=2):
    return torch.stack([s.load() for s in scenes(count)]).float() / 255


def detector(server, **options):
    quick = {"backoff": 0.001, "timeout": 5, "connect_timeout": 5}
    return http_detector(server.url, ["square"], 0.5, **(quick | options))


def refusal(call) -> ModelError:
    with pytest.raises(ModelError) as told:
        call()
    assert "\n" not in str(told.value)
    return told.value


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the adapter would have waited between tries."""
    slept = []
    monkeypatch.setattr("audit.adapters.http_remote.time", SimpleNamespace(sleep=slept.append))
    return slept


# what is sent and what comes back


@pytest.mark.parametrize("encode", ["multipart", "json"])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_detections_are_the_services_on_the_very_pictures(encode, batch):
    images = squares(3) * 0.99 + 0.003  # between the steps of eight bits
    shown = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    with serving() as server:
        remote = detector(server, encode=encode, batch=batch)
        found = remote(images)
    assert isinstance(remote, Detector)
    assert not isinstance(remote, WhiteBoxDetector)
    sent = [p for asked in server.asked for p in asked.pictures]
    assert [len(a.pictures) for a in server.asked] == {1: [1, 1, 1], 2: [2, 1], 8: [3]}[batch]
    assert all(np.array_equal(a, b) for a, b in zip(sent, shown, strict=True))
    assert (remote.queries, remote.requests) == (3, len(server.asked))
    for one, other in zip(found, red(list(shown)), strict=True):
        assert len(one.boxes) >= 1
        torch.testing.assert_close(one.boxes, torch.tensor(other["boxes"]))
        torch.testing.assert_close(one.scores, torch.tensor(other["scores"]))
        assert one.labels.tolist() == other["labels"]


def test_labels_may_be_names_and_images_may_be_empty():
    answers = [
        {"boxes": [[1, 2, 30, 40], [-5, 0, 999, 9]], "scores": [1, 0.25], "labels": ["dog", 0], "more": None},
        NOTHING,
    ]
    with serving() as server:
        server.answer = lambda pictures: answers[: len(pictures)]
        first, second = http_detector(server.url, ["cat", "dog"], 0.5, batch=2)(torch.zeros(2, 3, 50, 60))
    assert first.labels.tolist() == [1, 0]
    assert first.boxes.tolist() == [[1, 2, 30, 40], [0, 0, 60, 9]], "cut off at the image's edge"
    assert first.scores.tolist() == [1, 0.25]
    assert second.boxes.shape == (0, 4)


def test_hooks_for_another_wire_format():
    def encode(pictures):
        return {"content": pictures[0].tobytes(), "headers": {"Content-Type": "application/octet-stream"}}

    def decode(answer):
        (size,) = answer.sizes
        return [(torch.tensor(answer.json()["b"]) * torch.tensor(size[::-1] * 2), [0.7], [0])]

    with serving(always=Play(body=b'{"b": [[0.25, 0.5, 0.5, 1.0]]}')) as server:
        (found,) = detector(server, encode=encode, decode=decode)(torch.zeros(1, 3, 40, 80))
        assert server.asked[0].headers["Content-Type"] == "application/octet-stream"
        assert found.boxes.tolist() == [[20, 20, 40, 40]]
        broken = detector(server, decode=lambda answer: answer.json()["boxes"])
        error = refusal(lambda: broken(torch.zeros(1, 3, 40, 80)))
        assert "decode" in str(error)
        assert "KeyError: 'boxes'" in str(error)
        error = refusal(lambda: detector(server, encode=lambda p: {"url": "x"})(torch.zeros(1, 3, 40, 80)))
        assert "['url']" in str(error)


# troubles


def test_five_hundred_twice_then_an_answer(waits):
    with serving(Play(500), Play(503)) as server:
        remote = detector(server, backoff=1.0)
        assert len(remote(squares(1))[0].boxes) >= 1
    assert (remote.queries, remote.requests, len(server.asked)) == (3, 3, 3)
    stream = random.Random(0)
    assert waits == [stream.uniform(0.5, 1), 2 * stream.uniform(0.5, 1)]


def test_five_hundred_for_good_is_named(waits):
    with serving(always=Play(502, b"x" * 1000)) as server:
        error = refusal(lambda: detector(server, retries=3)(squares(1)))
    assert len(server.asked) == 4
    assert "got HTTP 502 (4 tries)" in str(error)
    assert len(waits) == 3


def test_retry_after_is_honoured_up_to_the_longest_wait(waits):
    script = [Play(429, headers=(("Retry-After", "7"),)), Play(503, headers=(("Retry-After", "0"),))]
    with serving(*script) as server:
        detector(server)(squares(1))
        assert waits[0] == 7
        assert waits[1] < 1
        server.script = [Play(429, headers=(("Retry-After", "3600"),))]
        error = refusal(lambda: detector(server)(squares(1)))
    assert "429" in str(error)
    assert "3600 s" in str(error)
    assert "rate_limit" in str(error)
    assert len(server.asked) == 4


def test_silence_ends_with_the_time_out():
    with serving(always=Play(before=3)) as server:
        error = refusal(lambda: detector(server, timeout=0.15, retries=1)(squares(1)))
        assert "an answer within 0.15 s" in str(error)
        assert "(2 tries)" in str(error)
        server.always, server.script = None, [Play(before=3)]
        assert len(detector(server, timeout=0.4)(squares(1))) == 1, "one slow answer is survived"


def test_a_body_that_drips_ends_with_the_time_out():
    with serving(always=Play(body=b" " * 1000, drip=0.02)) as server:
        error = refusal(lambda: detector(server, timeout=0.3, retries=0)(squares(1)))
    assert "an answer within 0.3 s" in str(error)


DRIPS = {
    "a header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n" + body_of([NOTHING]), b" "),
}


@pytest.mark.parametrize("name", DRIPS)
def test_the_time_out_bounds_the_whole_request(name):
    with dripping(*DRIPS[name], every=0.04, longest=4) as url:
        remote = http_detector(url, ["square"], 0.5, timeout=0.4, connect_timeout=9, retries=1, backoff=0.001)
        begun = time.monotonic()
        error = refusal(lambda: remote(squares(1)))
        took = time.monotonic() - begun
    assert "an answer within 0.4 s, got none (2 tries)" in str(error)
    assert 0.8 <= took < 5


def test_a_connection_is_not_waited_for_beyond_the_time_out():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        place = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # nobody accepts: the queue is full, and the next one hangs
            filler.setblocking(False)
            filler.connect_ex(place)
        url = f"http://127.0.0.1:{place[1]}/"
        remote = http_detector(url, ["square"], 0.5, timeout=0.3, connect_timeout=5, retries=0)
        begun = time.monotonic()
        assert "an answer within 0.3 s" in str(refusal(lambda: remote(squares(1))))
        assert time.monotonic() - begun < 4
        remote = http_detector(url, ["square"], 0.5, timeout=5, connect_timeout=0.3, retries=0)
        assert "a connection within 0.3 s" in str(refusal(lambda: remote(squares(1))))
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("cut", [-1, 0, 10])
def test_a_cut_connection_is_survived_or_named(cut, waits):
    play = Play(body=body_of([NOTHING]), cut=cut)
    with serving(play) as server:
        assert len(detector(server)(squares(1))[0].boxes) >= 1
        server.always = play
        error = refusal(lambda: detector(server, retries=2)(squares(1)))
    assert "cut connection" in str(error)
    assert "(3 tries)" in str(error)


def test_nobody_there_is_named(waits):
    with serving() as server:
        pass
    error = refusal(lambda: detector(server, retries=2)(squares(1)))
    assert "expected a connection" in str(error)
    assert "refused" in str(error)
    assert len(waits) == 2


def entry(**parts):
    return body_of([{"boxes": [[1, 2, 3, 4]], "scores": [0.5], "labels": [0]} | parts])


GARBAGE = {
    "no JSON": (b"<html>busy</html>", "expected JSON, got 17 bytes of application/json"),
    "cut JSON": (entry()[:-3], "expected JSON"),
    "empty": (b"", "0 bytes"),
    "nested": (b"[" * 100_000, "expected JSON"),
    "bytes": (b"\xff\xfe\x00", "expected JSON"),
    "another schema": (b'{"predictions": []}', '"detections"'),
    "a list": (b"[]", '"detections"'),
    "no boxes": (body_of([{"scores": [], "labels": []}]), "`boxes`"),
    "boxes null": (entry(boxes=None), "`boxes`"),
    "three numbers": (entry(boxes=[[1, 2, 3]]), "four numbers"),
    "words": (entry(boxes=[["a", 2, 3, 4]]), "as numbers"),
    "NaN box": (entry(boxes=[[1, float("nan"), 3, 4]]), "finite"),
    "NaN score": (entry(scores=[float("nan")]), "finite"),
    "infinite": (b'{"detections": [{"boxes": [[1, 2, 3, 1e999]], "scores": [1], "labels": [0]}]}', "finite"),
    "score in percent": (entry(scores=[97.0]), "scores in [0, 1], got 97 to 97"),
    "negative score": (entry(scores=[-0.1]), "scores in [0, 1]"),
    "x2 before x1": (entry(boxes=[[9, 2, 3, 4]]), "x1 <= x2"),
    "more scores": (entry(scores=[0.5, 0.6]), "scores (K,)"),
    "a class too many": (entry(labels=[1]), "indices into the 1 classes"),
    "an unknown name": (entry(labels=["circle"]), "'circle'"),
    "half a class": (entry(labels=[0.5]), "0.5"),
    "a huge class": (entry(labels=[10**30]), "as numbers"),
    "fewer images": (body_of([]), "detections for 1 images, got 0"),
    "more images": (body_of([NOTHING] * 2), "detections for 1 images, got 2"),
    "huge": (b" " * 5000, "at most 4000 bytes"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_survived_once_and_then_named(name, waits):
    body, part = GARBAGE[name]
    with serving(Play(body=body)) as server:
        remote = detector(server, max_bytes=4000 if name == "huge" else 200_000)
        assert len(remote(squares(1))[0].boxes) >= 1
        server.always = Play(body=body)
        server.asked.clear()
        error = refusal(lambda: remote(squares(1)))
    assert len(server.asked) == 2, "a second answer of that kind is no accident"
    assert part in str(error)
    assert "(2 tries)" in str(error)


def test_an_answer_compressed_unasked_is_refused(waits):
    with serving(always=Play(body=b"x", headers=(("Content-Encoding", "gzip"),))) as server:
        assert "compressed" in str(refusal(lambda: detector(server)(squares(1))))
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 405, 413, 415, 422, 418, 501])
def test_other_statuses_are_named_at_once_and_echo_nothing(status, monkeypatch):
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    elsewhere = ("Location", f"http://127.0.0.2:9/?{TOKEN}")
    with serving(always=Play(status, f"bad token {TOKEN}".encode(), (elsewhere,))) as server:
        error = refusal(lambda: detector(server, auth_env="MYAPI_TOKEN")(squares(2)))
    assert len(server.asked) == 1, "neither asked again nor sent elsewhere"
    assert f"HTTP {status}" in str(error)
    assert TOKEN not in str(error)


def test_an_interrupt_goes_on_and_shows_no_credential(monkeypatch):
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    here = os.getpid()
    with serving(always=Play(before=5, act=lambda: os.kill(here, signal.SIGINT))) as server:
        server.url += f"?key={KEY}"
        remote = detector(server, auth_env="MYAPI_TOKEN")
        with pytest.raises(KeyboardInterrupt) as stopped:
            remote(squares(1))
    assert len(server.asked) == 1
    hidden(traced(stopped.value))


# politeness


@settings(max_examples=50, deadline=None)
@given(
    first=st.floats(0.01, 10),
    longest=st.floats(0.1, 100),
    before=st.integers(0, 99),
    asked=st.none() | st.floats(0, 50),
    seed=st.integers(0, 9),
)
def test_waits_grow_twofold_with_jitter_up_to_the_longest(first, longest, before, asked, seed):
    retry, trouble = Retry(100, first, longest), Trouble("", "", "", wait=asked)
    wait = retry.wait(trouble, [trouble] * before, random.Random(seed))
    usual = min(longest, first * 2**before)
    assert max(usual / 2, asked or 0) <= wait <= max(usual, asked or 0)
    assert wait == retry.wait(trouble, [trouble] * before, random.Random(seed)), "the seed decides"


def test_who_is_asked_again():
    always, once, never = (Trouble("", "", "", again) for again in ("always", "once", "never"))
    retry = Retry(3)
    assert [retry.allows(always, [always] * n) for n in range(5)] == [True, True, True, False, False]
    assert retry.allows(once, [always])
    assert not retry.allows(once, [always, once])
    assert not retry.allows(never, [])
    assert not Retry(0).allows(always, [])
    assert not retry.allows(Trouble("", "", "", wait=61), [])


def test_retry_after_as_number_date_or_nonsense():
    assert retry_after("12") == 12
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert 28 <= retry_after(formatdate(time.time() + 30, usegmt=True)) <= 31
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.5, 50), burst=st.integers(1, 5), works=st.lists(st.floats(0, 2), min_size=2, max_size=20))
def test_no_window_has_more_requests_than_the_bucket_allows(rate, burst, works):
    now = 100.0

    def sleep(wait):
        nonlocal now
        now += wait

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.adapters.http_retry.time", clock)
        pace, times = Pace(rate, burst), []
        for work in works:
            pace()
            times.append(now)
            now += work
    for i in range(len(times)):
        for j in range(i, len(times)):
            assert j - i + 1 <= burst + rate * (times[j] - times[i]) + 1e-6
    lazy = [works[i] for i in range(len(works) - 1)]
    assert all(b - a <= w + 1 / rate + 1e-9 for a, b, w in zip(times, times[1:], lazy, strict=False)), "no idle wait"


def test_rate_limit_slows_the_requests():
    with serving() as server:
        server.answer = lambda pictures: [NOTHING] * len(pictures)
        remote = detector(server, rate_limit=20)
        begun = time.monotonic()
        remote(torch.zeros(5, 3, 16, 16))
        assert time.monotonic() - begun >= 4 / 20


def test_queries_are_counted_bounded_and_priced():
    with serving(Play(500)) as server:
        server.answer = lambda pictures: [NOTHING] * len(pictures)
        remote = detector(server, max_queries=7, batch=2, price=0.25)
        remote(torch.zeros(4, 3, 16, 16))
        assert (remote.queries, remote.requests) == (6, 3), "what is sent again is paid for again"
        assert remote.cost() == 1.5
        assert remote.cost(100) == 25
        error = refusal(lambda: remote(torch.zeros(2, 3, 16, 16)))
        assert "at most 7 queries" in str(error)
        assert "6 sent and 2 more" in str(error)
        assert remote.requests == len(server.asked) == 3
        assert detector(server, price=lambda n: 5 + n // 10).cost(100) == 15
        assert detector(server).cost() is None
        remarks = " ".join(remote.remarks())
    for part in (server.url, "6 queries in 3 requests", "1.5", "of 1000 queries 250", "at most 7"):
        assert part in remarks


# credentials


def traced(error) -> str:
    """All that a traceback with local variables can show, beyond the frames of this file."""
    below = error.__traceback__
    while below is not None and below.tb_frame.f_code.co_filename == __file__:
        below = below.tb_next
    return "".join(traceback.TracebackException(type(error), error, below, capture_locals=True).format())


def hidden(*texts):
    for secret in (TOKEN, KEY):
        plain = base64.b64encode(secret.encode()).decode()
        for form in (secret, plain, plain.rstrip("="), base64.b64encode(f"Bearer {secret}".encode()).decode()):
            assert not any(form in text for text in texts), form


def test_credentials_are_sent_and_show_nowhere(monkeypatch, caplog):
    caplog.set_level(0)
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    monkeypatch.setenv("MYAPI_KEY", KEY)
    with serving(Play(headers=(("X-Echo", TOKEN),))) as server:
        plain = server.url
        server.url += f"?key={KEY}"
        remote = detector(server, auth_env="MYAPI_TOKEN", header_env={"X-Api-Key": "MYAPI_KEY"}, retries=1)
        remote(squares(1))
        sent = server.asked[-1]
        assert sent.headers["Authorization"] == f"Bearer {TOKEN}"
        assert sent.headers["X-Api-Key"] == KEY
        assert sent.path.endswith(f"?key={KEY}")
        server.always = Play(body=entry(labels=[f"no {TOKEN}"]))
        with pytest.raises(ModelError) as told:
            remote(squares(1))
        deep = detector(server, auth_env="MYAPI_TOKEN", decode=lambda a: {}[f"{KEY} {TOKEN}"], retries=0)
        with pytest.raises(ModelError) as raised:
            deep(squares(1))
    assert remote.url == plain
    shown = [repr(remote), " ".join(remote.remarks()), caplog.text, repr(vars(remote)), repr(vars(remote._channel))]
    shown += [repr(vars(remote._credentials)), traced(told.value), traced(raised.value), str(told.value)]
    hidden(*shown)
    assert "MYAPI_TOKEN" in shown[1]
    assert "<hidden>" in str(told.value)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(TOKEN))


def test_a_name_and_password_in_the_url_become_a_header(monkeypatch):
    with serving() as server:
        server.url = server.url.replace("http://", "http://anna:pass%40word-1234@")
        remote = detector(server)
        remote(squares(1))
        assert server.asked[0].headers["Authorization"] == f"Basic {base64.b64encode(b'anna:pass@word-1234').decode()}"
    assert "anna" not in repr(remote)
    text = (
        "401 for anna with pass@word-1234 or pass%40word-1234 or " + base64.b64encode(b"anna:pass@word-1234").decode()
    )
    assert remote._credentials.scrub(text) == "401 for <hidden> with <hidden> or <hidden> or <hidden>"
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    assert "two" in str(refusal(lambda: http_detector("http://a:b@h/", ["x"], 0.5, auth_env="MYAPI_TOKEN")))


ECHOES = {
    "label": Play(body=entry(labels=[f"no such key: {LONG}"])),
    "content type": Play(body=b"no", headers=(("Content-Type", LONG),)),
    "long content type": Play(body=b"no", headers=(("Content-Type", "x" * 120 + LONG),)),
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_long_credential_is_not_cut_before_it_is_hidden(name, monkeypatch):
    monkeypatch.setenv("MYAPI_TOKEN", LONG)
    with serving(always=ECHOES[name]) as server:
        error = refusal(lambda: detector(server, auth_env="MYAPI_TOKEN", retries=0)(squares(1)))
    assert len(LONG) == 124
    assert "<hidden>" in str(error)
    assert not any(LONG[i : i + 6] in str(error) for i in range(len(LONG) - 5))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://", f"http://{KEY}@"),
        ("http://", f"http://{KEY}:x-oauth@"),
        ("http://", f"http://{KEY[:6]}%2f{KEY[6:]}@"),
        ("/detect", f"/detect?{KEY}"),
        ("/detect", f"/detect?{KEY}=="),
        ("/detect", f"/detect?a=1&{KEY}&b=22"),
        ("/detect", f"/detect?a=1;k={KEY}"),
        ("/detect", f"/detect;{KEY}"),
        ("/detect", f"/detect;v=1;k={KEY}/more"),
    ],
)
def test_a_key_anywhere_in_the_url_shows_nowhere(old, new):
    with serving() as server:
        server.url = server.url.replace(old, new)
        remote = detector(server, retries=0)
        assert len(remote(squares(1))[0].boxes) >= 1
        echoed = KEY if KEY in new else f"{KEY[:6]}/{KEY[6:]}"
        server.always = Play(body=entry(labels=[f"unknown key {echoed} or {new.split('//')[-1].split('@')[0]}"]))
        error = refusal(lambda: remote(squares(1)))
    assert "unknown key <hidden>" in str(error)
    shown = [str(error), repr(remote), remote.url, " ".join(remote.remarks()), repr(vars(remote._credentials))]
    for part in (KEY, KEY[:6], KEY[6:]):
        assert not any(part in text for text in shown)


@pytest.mark.parametrize("pair", [KEY, f"anna:{KEY}", f"{KEY}:x-oauth"])
def test_who_asks_a_proxy_shows_nowhere(pair, monkeypatch):
    with serving() as server:
        monkeypatch.setenv("OUR_PROXY", server.url.replace("http://", f"http://{pair}@"))
        server.url = "http://far.example/detect"
        remote = detector(server, proxy_env="OUR_PROXY", retries=0)
        both = pair if ":" in pair else f"{pair}:"
        basic = base64.b64encode(both.encode()).decode()
        remote(squares(1))
        assert server.asked[0].headers["Proxy-Authorization"] == f"Basic {basic}"
        server.always = Play(body=entry(labels=[f"{KEY} {pair} {basic}"]))
        error = refusal(lambda: remote(squares(1)))
    hidden(str(error))
    assert "'<hidden> <hidden> <hidden>'" in str(error)
    assert basic not in str(error)


def test_a_credential_is_not_broken_up_by_a_shorter_one():
    secrets = Credentials("http://cabbage:cabbage-and-more@h/?cabbage-and", None, {})
    assert secrets.scrub("a cabbage-and-more, a cabbage") == "a <hidden>, a <hidden>"


@pytest.mark.parametrize("value", ["", "with\nline", " padded ", "ünicode", "tab\there"])
def test_what_the_environment_lacks_is_named_without_its_value(value, monkeypatch):
    monkeypatch.setenv("MYAPI_TOKEN", value)
    with pytest.raises(ModelError) as told:
        Credentials("http://h/", "MYAPI_TOKEN", {})
    assert "MYAPI_TOKEN" in str(told.value)
    assert not value or value.strip() not in traced(told.value)


def test_a_token_in_place_of_a_name_is_not_echoed():
    for wrong in (TOKEN, "sk0lowercase0token", KEY):
        for arguments in ({"auth_env": wrong}, {"header_env": {"X-Api-Key": wrong}}, {"proxy_env": wrong}):
            error = refusal(lambda a=arguments: http_detector("http://h/", ["x"], 0.5, **a))
            assert wrong not in str(error)
            assert "environment variable" in str(error)


def test_plain_http_to_a_stranger_is_remarked(monkeypatch):
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    said = {u: http_detector(f"{u}/x", ["x"], 0.5, auth_env="MYAPI_TOKEN").remarks() for u in ("http://h", "https://h")}
    assert any("unencrypted" in r for r in said["http://h"])
    assert not any("unencrypted" in r for r in said["https://h"])
    assert any("not checked" in r for r in http_detector("https://h/x", ["x"], 0.5, verify=False).remarks())


def test_a_proxy_is_used_only_where_its_variable_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")  # nobody listens there
    with serving() as server:
        assert len(detector(server)(squares(1))) == 1
        monkeypatch.setenv("OUR_PROXY", server.url.replace("http://", f"http://anna:{KEY}@"))
        server.url = "http://far.example/detect"
        remote = detector(server, proxy_env="OUR_PROXY", retries=0)
        assert len(remote(squares(1))) == 1
        assert server.asked[-1].path == "http://far.example/detect"
        server.always = Play(407)
        error = refusal(lambda: remote(squares(1)))
    assert "HTTP 407" in str(error)
    hidden(traced(error), repr(remote), " ".join(remote.remarks()))


def test_a_certificate_that_cannot_be_trusted_is_named_at_once(monkeypatch):
    def handshake(self, request):
        try:
            raise ssl.SSLCertVerificationError(1, f"certificate verify failed {TOKEN}")
        except ssl.SSLError as error:
            raise httpx.ConnectError("certificate") from error

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handshake)
    remote = http_detector("https://127.0.0.1/", ["x"], 0.5)
    error = refusal(lambda: remote(squares(1)))
    assert "TLS certificate" in str(error)
    assert "`verify`" in str(error)
    assert remote.requests == 1


def test_the_example(monkeypatch):
    monkeypatch.setenv("DETECTOR_TOKEN", TOKEN)
    with serving(always=Play(body=body_of([NOTHING]))) as server:
        monkeypatch.setenv("DETECTOR_URL", server.url)
        remote = load("http_detector").model("cpu")
        assert len(remote(squares(1))[0].boxes) == 0
    assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert remote.cost() == 0.001


def test_the_example_names_the_variables_to_set(monkeypatch, capsys):
    monkeypatch.delenv("DETECTOR_URL", raising=False)
    monkeypatch.delenv("DETECTOR_TOKEN", raising=False)
    words = ["doctor", str(ROOT / "examples" / "http_detector.py"), "--device", "cpu"]
    assert main(words) == 4
    said = capsys.readouterr().err
    assert "expected the environment variable DETECTOR_URL to hold the address, got nothing; set it" in said
    assert "mend line" not in said
    monkeypatch.setenv("DETECTOR_URL", "http://127.0.0.1:9/")
    assert main(words) == 4
    assert (
        "expected the environment variable DETECTOR_TOKEN to hold them, got nothing; set it" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"url": None}, "neither"),
        ({"url_env": "MYAPI_URL"}, "both"),
        ({"url": None, "url_env": TOKEN}, "the name of an environment variable"),
        ({"url": f"http://h:{TOKEN}/"}, "http or https"),
        ({"url": "ftp://h/"}, "http or https"),
        ({"url": f"//u:{TOKEN}@h"}, "http or https"),
        ({"url": "http://h:port/"}, "http or https"),
        ({"url": 7}, "int"),
        ({"encode": "xml"}, "'xml'"),
        ({"decode": 1}, "decode"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"max_queries": 0}, "max_queries"),
        ({"batch": 1.5}, "batch"),
        ({"price": -1}, "price"),
        ({"verify": "none.pem"}, "none.pem"),
        ({"verify": __file__}, "PEM"),
        ({"score_threshold": 50}, "score_threshold"),
        ({"classes": "face"}, "classes"),
        ({"header_env": {"X Y": "MYAPI"}}, "header_env"),
    ],
)
def test_wrong_arguments_are_named(arguments, part):
    error = refusal(
        lambda: http_detector(**({"url": "http://h/", "classes": ["x"], "score_threshold": 0.5} | arguments))
    )
    assert part in str(error)
    assert TOKEN not in str(error)


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert "pip install 'assay-audit[http]'" in str(refusal(lambda: http_detector("http://h/", ["x"], 0.5)))


MODEL = """\
import os
import audit
from tests.planted import scenes

def model(device):
    return audit.adapters.http_detector(
        os.environ["WHERE"], ["square"], 0.5, auth_env="MYAPI_TOKEN", backoff=0.01, price=0.5, timeout=5, batch=4
    )

def data(root):
    return scenes(12)
"""


def test_doctor(tmp_path, capsys, monkeypatch):
    (tmp_path / "remote.py").write_text(MODEL)
    monkeypatch.setenv("MYAPI_TOKEN", TOKEN)
    with serving() as server:
        monkeypatch.setenv("WHERE", f"{server.url}?key={KEY}")
        assert main(["doctor", str(tmp_path / "remote.py"), "--device", "cpu"]) == 0
        good = capsys.readouterr()
        server.always = Play(401, TOKEN.encode())
        assert main(["doctor", str(tmp_path / "remote.py"), "--device", "cpu"]) == 4
        bad = capsys.readouterr()
    assert "queries only" in good.out
    assert "!!" not in good.out
    assert "HTTP 401; check the credentials" in bad.err
    hidden(good.out, good.err, bad.out, bad.err)


def audited(folder, server):
    words = [sys.executable, "-m", "pytest", str(ROOT / "suites" / "test_detection.py"), "-p", "no:cacheprovider"]
    words += ["--showlocals", "--log-level=DEBUG", "--audit-device", "cpu", "--audit-model", str(folder / "remote.py")]
    words += ["--audit-report", str(folder / "out"), "--audit-cache", str(folder / "cache")]
    words += [w for id in ("DET-CLEAN", "DET-CONTROL/noise", "DET-CONTROL/grey") for w in ("--audit-control", id)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MYAPI_TOKEN": TOKEN}
    env["WHERE"] = f"{server.url}?key={KEY}"
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    report = json.loads((folder / "out" / "report.json").read_text())
    return done, {c["id"]: c for c in report["controls"] if c["verdict"] != "not_run"}


@pytest.mark.slow
def test_a_whole_audit_asks_once_and_keeps_its_credentials_to_itself(tmp_path):
    (tmp_path / "remote.py").write_text(MODEL)
    echo = {"boxes": [[0, 0, 9, 9]], "scores": [1], "labels": [f"{TOKEN} {KEY}"]}
    calls = iter(range(10**6))
    tiny, clean, noise = 5, 2, 2  # requests, in this order; what comes after them is garbage
    with serving(Play(500, TOKEN.encode())) as server:
        whole = tiny + clean + noise
        server.answer = lambda shown: red(shown) if next(calls) < whole else [echo] * len(shown)
        done, rows = audited(tmp_path, server)
    told = {id: row["verdict"] for id, row in rows.items()}
    expected = {"DET-CLEAN": "pass", "DET-CONTROL/noise": "pass", "DET-CONTROL/grey": "error"}
    assert told == expected, done.stdout + done.stderr
    assert "<hidden>" in rows["DET-CONTROL/grey"]["reason"]
    assert all(a.headers["Authorization"] == f"Bearer {TOKEN}" for a in server.asked)
    assert len(server.asked) == 1 + whole + 2
    kept = [p.tobytes() for asked in server.asked[1 + tiny : 1 + whole] for p in asked.pictures]
    assert len(kept) == len(set(kept)) >= 8, "clean and patched pictures, each asked about once for three controls"
    files = [p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 10
    hidden(done.stdout, done.stderr, *files)
