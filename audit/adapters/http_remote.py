"""A detector behind an HTTP interface: a black box that is asked over a network, politely and at a known price."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from torch import Tensor

from audit.adapters import http_wire as wire
from audit.adapters.checks import class_names, images_like, refuse, unit
from audit.adapters.http_channel import Channel, httpx
from audit.adapters.http_retry import Pace, Retry, Trouble, seconds
from audit.adapters.http_secrets import Credentials, address
from audit.adapters.suppress import clipped
from audit.contracts import Detections

Encode = Callable[[list[Any]], dict[str, Any]]
Decode = Callable[[wire.Answer], Sequence[Any]]
Price = float | Callable[[int], float]

LOCAL = ("localhost", "127.0.0.1", "::1")


def http_detector(
    url: str | None,
    classes: Sequence[str],
    score_threshold: float,
    *,
    url_env: str | None = None,
    encode: Literal["multipart", "json"] | Encode = "multipart",
    decode: Decode | None = None,
    auth_env: str | None = None,
    header_env: Mapping[str, str] | None = None,
    proxy_env: str | None = None,
    timeout: float = 30.0,
    connect_timeout: float = 10.0,
    retries: int = 4,
    backoff: float = 0.5,
    longest_wait: float = 60.0,
    rate_limit: float | None = None,
    burst: int = 1,
    max_queries: int | None = None,
    batch: int = 1,
    max_bytes: int = 16 * 2**20,
    verify: bool | str | Path = True,
    price: Price | None = None,
    seed: int = 0,
) -> HttpDetector:
    """A remote detector as a black box; the wire format is that of ``audit.adapters.http_wire``. Needs the extra http.

    Images are sent as 8-bit PNG. Time-outs, cut connections, 408, 425, 429 and 5xx are asked again after a wait;
    answers that make no sense once; other statuses end the audit in one sentence. Redirects are not followed; cookies,
    proxies and ``.netrc`` of the environment are not used.

    Credentials come from the environment alone. They show in no report, message, log or ``repr``; of the URL only
    scheme, host, port and path up to a ``;`` show.

    Args:
        url: http or https; a user name and password in it are sent as Basic authorisation. None: that of ``url_env``.
        classes: names in the model's order. score_threshold: the owner's operating point, in [0, 1]. Let the service
            answer with weaker detections too, if it can: curves need them.
        encode: ``multipart`` or ``json`` (base64), or a function of 8-bit RGB pictures (H, W, 3) that returns keywords
            of ``httpx.Request``: ``files``, ``json``, ``content``, ``data``, ``headers``.
        decode: a function of ``Answer`` that returns per image what ``callable_detector``'s function may return, boxes
            in pixels of the image; what it raises counts as an answer that makes no sense.
        url_env: the environment variable with the URL, in place of ``url``.
        auth_env: the environment variable whose value is sent as ``Authorization: Bearer``.
        header_env: header -> environment variable. proxy_env: the variable with a proxy's URL, e.g. ``HTTPS_PROXY``.
        timeout, connect_timeout: seconds for a request with its whole answer, and within them for a connection.
        retries, backoff, longest_wait: see ``Retry``; where ``Retry-After`` asks for more than ``longest_wait``
            seconds, the audit ends.
        rate_limit: requests per second, for this process; burst: so many at once.
        max_queries: images sent at most by this process, those that are sent again included.
        batch: images per request, of one size. max_bytes: of an answer's body.
        verify: check TLS certificates; a path: against the authorities in that file.
        price: per image sent, or a function of their number; see ``cost``.
        seed: of the waits' jitter.

    Returns:
        A ``Detector`` without ``candidates``.

    Raises:
        ModelError: the extra is not installed; an argument is not as said; a credential is missing. When called: no
            sound answer, or ``max_queries`` reached.
    """
    httpx()
    names, threshold = class_names(classes), unit("score_threshold", score_threshold)
    encoders: dict[str, Encode] = {"multipart": wire.multipart, "json": wire.base64_json}
    encoder = encoders.get(encode) if isinstance(encode, str) else encode
    if not callable(encoder):
        refuse("encode", "'multipart', 'json' or a function of pictures", repr(encode)[:60], "choose one of those")
    if decode is not None and not callable(decode):
        refuse("decode", "a function of an Answer", type(decode).__name__, "hand in a function, or leave it out")
    if price is not None and not callable(price) and not (isinstance(price, int | float) and price >= 0):
        refuse("price", "a number from 0 per query, or a function", repr(price)[:60], "give it in your currency")
    for name, value in (("burst", burst), ("batch", batch), ("max_bytes", max_bytes), ("max_queries", max_queries)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            refuse(name, "a whole number from 1", repr(value)[:60], "correct it")
    credentials = Credentials(address(url, url_env), auth_env, header_env or {}, proxy_env)
    patience, limit = seconds("timeout", timeout), seconds("connect_timeout", connect_timeout)
    return HttpDetector(
        names,
        threshold,
        credentials,
        Channel(credentials, patience, limit, max_bytes, verify),
        encoder,
        decode if decode is not None else lambda answer: wire.read(answer, names),
        Retry(retries, backoff, longest_wait),
        Pace(rate_limit, burst),
        batch,
        max_queries,
        price,
        random.Random(seed),
        checked_tls=verify is not False,
    )


class HttpDetector:
    """A remote detector that meets the contract.

    Attributes: ``classes``, ``score_threshold``, ``files`` (none), ``module`` (None); ``queries``: images sent so far,
    those that were sent again included; ``requests``: requests so far; ``url``: as it may be shown.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        score_threshold: float,
        credentials: Credentials,
        channel: Callable[[dict[str, Any]], tuple[bytes, str] | Trouble],
        encode: Encode,
        decode: Decode,
        retry: Retry,
        pace: Pace,
        batch: int,
        max_queries: int | None,
        price: Price | None,
        stream: random.Random,
        *,
        checked_tls: bool,
    ) -> None:
        self.classes, self.score_threshold = classes, score_threshold
        self.files: tuple[Path, ...] = ()
        self.module = None
        self.url = credentials.shown
        self.queries = self.requests = 0
        self._credentials, self._channel, self._encode, self._decode = credentials, channel, encode, decode
        self._retry, self._pace, self._stream = retry, pace, stream
        self._batch, self._max_queries, self._price = batch, max_queries, price
        self._checked_tls = checked_tls

    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image, boxes in pixels of ``images`` (N, 3, H, W), cut off at their edge.

        Raises:
            ModelError: no sound answer after all tries, or ``max_queries`` reached.
        """
        height, width = images_like(images).shape[-2:]
        shown = wire.pictures(images)
        found = [d for i in range(0, len(shown), self._batch) for d in self._ask(shown[i : i + self._batch])]
        place = images.device
        cut = [clipped(d, height, width) for d in found]
        return [Detections(d.boxes.to(place), d.scores.to(place), d.labels.to(place)) for d in cut]

    def cost(self, queries: int | None = None) -> float | None:
        """The price of so many queries, by default of those so far; None where no price was given."""
        count = self.queries if queries is None else queries
        if self._price is None:
            return None
        return float(self._price(count) if callable(self._price) else self._price * count)

    def remarks(self) -> list[str]:
        """What an owner should know before an audit, in sentences for ``doctor``."""
        said = [f"asked at {self.url}, {self._batch} per request; {self.queries} queries in {self.requests} requests"]
        if self._price is not None:
            said.append(f"price so far {self.cost():.6g}, of 1000 queries {self.cost(1000):.6g}")
        if self._max_queries is not None:
            said.append(f"at most {self._max_queries} queries per process")
        if self._credentials.variables:
            said.append(f"credentials from the environment: {', '.join(self._credentials.variables)}")
        if self._credentials.scheme == "http" and self._credentials.sent and self._credentials.host not in LOCAL:
            said.append("credentials travel unencrypted: use https")
        if not self._checked_tls:
            said.append("TLS certificates are not checked")
        return said

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"black-box detector of {names} at {self.score_threshold:g}, asked at {self.url}"

    def _ask(self, shown: list[Any]) -> list[Detections]:
        content = self._content(shown)
        earlier: list[Trouble] = []
        while True:
            left = None if self._max_queries is None else self._max_queries - self.queries
            if left is not None and left < len(shown):
                self._refuse(
                    f"at most {self._max_queries} queries (max_queries)",
                    f"{self.queries} sent and {len(shown)} more to send",
                    "raise max_queries, or audit with a smaller budget",
                )
            self._pace()
            self.queries, self.requests = self.queries + len(shown), self.requests + 1
            result = self._once(content, shown)
            if not isinstance(result, Trouble):
                return result
            if not self._retry.allows(result, earlier):
                tries = f" ({len(earlier) + 1} tries)" if earlier else ""
                self._refuse(result.expected, result.got + tries, result.mend)
            wait = self._retry.wait(result, earlier, self._stream)
            earlier.append(result)
            time.sleep(wait)

    def _content(self, shown: list[Any]) -> dict[str, Any]:
        known = {"files", "json", "content", "data", "headers"}
        content = self._encode(shown)
        if not isinstance(content, dict) or not set(content) <= known:
            got = type(content).__name__ if not isinstance(content, dict) else f"the keys {sorted(map(str, content))}"
            self._refuse(f"encode to return a dict with keys among {', '.join(sorted(known))}", got, "correct it")
        return content

    def _once(self, content: dict[str, Any], shown: list[Any]) -> list[Detections] | Trouble:
        """One request; what a service says may echo a credential, so nothing of it stays where an error is raised."""
        answer = self._channel(content)
        if isinstance(answer, Trouble):
            return answer
        sizes = tuple((p.shape[0], p.shape[1]) for p in shown)
        mend = "check the service's answer, or hand in `decode`"
        try:
            return wire.checked(self._decode(wire.Answer(*answer, sizes)), sizes, len(self.classes))
        except wire.Garbage as error:
            expected, got = error.expected, error.got
        except Exception as error:  # noqa: BLE001 - the owner's hook may raise anything on an answer that makes no sense
            expected, got = "an answer that `decode` can read", f"{type(error).__name__}: {error}"
        scrub = self._credentials.scrub
        return Trouble(scrub(expected)[:300], scrub(got)[:300], mend, "once")

    def _refuse(self, expected: str, got: str, mend: str) -> NoReturn:
        refuse(f"http detector {self.url}", expected, got, mend)
