"""One request and its answer: time-outs, bounded bodies, no redirects, and nothing secret in what is raised.

httpx's transport is used without its client: no request is logged, no cookie kept, no redirect followed, no proxy or
``.netrc`` of the environment used. What goes wrong comes back as a value, so that no traceback holds a frame in which a
credential stands.
"""

from __future__ import annotations

import importlib
import logging
import ssl
from pathlib import Path
from typing import Any

from audit.adapters.checks import readable, refuse
from audit.adapters.http_deadline import Connection, Deadline
from audit.adapters.http_retry import Trouble, retry_after
from audit.adapters.http_secrets import Credentials

_EXPECTED = "an answer"
_MENDS = {
    400: "check `encode` against what the service takes",
    401: "check the credentials in the environment",
    403: "check the credentials in the environment and what they allow",
    404: "check the URL",
    405: "check the URL; images are sent by POST",
    413: "send fewer images at once with `batch`, or smaller ones",
    415: "check `encode` against what the service takes",
    422: "check `encode` against what the service takes",
}
_PASSING = {408, 425, 429}
_LASTING = {501, 505}


def httpx() -> Any:
    """The package, or the sentence that says which extra has it."""
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        return refuse(
            "http_detector",
            "the package httpx",
            f"none that can be imported ({error})",
            "install the extra: pip install 'assay-audit[http]'",
        )


class Channel:
    """Sends requests to one address.

    Args:
        credentials: address and headers. timeout: seconds for a request and its whole answer. connect_timeout: seconds
            for a connection. max_bytes: of an answer's body. verify: check TLS certificates; a path: against that file.
    """

    def __init__(
        self,
        credentials: Credentials,
        timeout: float,
        connect_timeout: float,
        max_bytes: int,
        verify: bool | str | Path,
    ) -> None:
        self._credentials = credentials
        self._timeout, self._connect_timeout, self._max_bytes = timeout, connect_timeout, max_bytes
        self._verify = _trust(verify)
        self._transport: Any = None
        self._connection = Connection()
        log = logging.getLogger("httpcore")
        if log.level == logging.NOTSET:
            log.setLevel(logging.WARNING)  # DEBUG shows the answer's headers; some services echo

    def __call__(self, content: dict[str, Any]) -> tuple[bytes, str] | Trouble:
        """Body and content type of the answer to a request, or why there is none.

        Args:
            content: keywords of ``httpx.Request``: ``files``, ``json``, ``content``, ``data``, ``headers``.
        """
        deadline = Deadline(self._timeout, self._connection)
        try:
            with deadline:
                answer = self._talk(content, deadline)
            return self._late() if deadline.over else answer
        except Exception as error:  # noqa: BLE001 - told by the caller in one sentence, without the frames of the request
            return self._late() if deadline.over else self._told(error)
        except BaseException as error:  # noqa: BLE001 - an interrupt goes on, without those frames
            stop = error.with_traceback(None)
        stop.__cause__ = stop.__context__ = None
        self.close()
        raise stop

    def close(self) -> None:
        """Drop the connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _talk(self, content: dict[str, Any], deadline: Deadline) -> tuple[bytes, str] | Trouble:
        web = httpx()
        if self._transport is None:
            proxy = self._credentials.proxy
            self._transport = web.HTTPTransport(verify=self._verify, proxy=proxy and web.Proxy(proxy.reveal()))
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "assay-audit"}
        headers |= content.get("headers", {}) | self._credentials.headers()
        patience = min(self._connect_timeout, self._timeout)
        times = {"connect": patience, "pool": patience}
        request = web.Request(
            "POST",
            self._credentials.target(),
            **{**content, "headers": headers},
            extensions={"timeout": {**times, "read": self._timeout, "write": self._timeout}, "trace": deadline},
        )
        response = self._transport.handle_request(request)
        try:
            status = int(response.status_code)
            if not 200 <= status < 300:
                return _refused(status, response.headers)
            if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                return _garbled("an answer that is not compressed", "one that is, unasked")
            body = bytearray()
            for chunk in response.stream:
                body += chunk
                if len(body) > self._max_bytes:
                    return _garbled(f"at most {self._max_bytes} bytes (max_bytes)", "more")
            return bytes(body), str(response.headers.get("content-type", ""))
        finally:
            response.close()

    def _late(self) -> Trouble:
        expected = f"an answer within {self._timeout:g} s"
        return Trouble(expected, "none", "raise `timeout`, or see whether the service is up")

    def _told(self, error: Exception) -> Trouble:
        web = httpx()
        within = f"a connection within {self._connect_timeout:g} s"
        if isinstance(error, web.ConnectTimeout | web.PoolTimeout) and self._connect_timeout <= self._timeout:
            return Trouble(within, "none", "see whether the service is up, or raise `connect_timeout`")
        if isinstance(error, web.TimeoutException):
            return self._late()
        cause = _root(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            mend = "give the certificate authority's file as `verify`"
            got = self._credentials.scrub(str(getattr(cause, "verify_message", "another")))
            return Trouble("a TLS certificate that can be trusted", got, mend, "never")
        if isinstance(error, web.TransportError) and not isinstance(
            error, web.UnsupportedProtocol | web.LocalProtocolError
        ):
            # httpx's own text may quote a header; only the system's word is shown
            why = (cause.strerror or "") if isinstance(cause, OSError) else ""
            met = not isinstance(error, web.ConnectError | web.ProxyError)
            what = "a whole answer" if met else "a connection"
            got = f"{'a cut connection' if met else 'none'} ({why or type(error).__name__})"
            return Trouble(what, self._credentials.scrub(got), "see whether the service is up and the URL right")
        text = self._credentials.scrub(f"{type(error).__name__}: {error}")
        return Trouble("a request that can be sent", text[:300], "check `encode` and the URL", "never")


def _refused(status: int, headers: Any) -> Trouble:
    got = f"HTTP {status}"
    if 300 <= status < 400:
        return Trouble(_EXPECTED, f"{got}, a redirect", "give the final address; redirects are not followed", "never")
    if status in _PASSING or (status >= 500 and status not in _LASTING):
        wait = retry_after(headers.get("retry-after"))
        said = "" if wait is None else f" with Retry-After of {wait:.0f} s"
        mend = "lower `rate_limit`, or wait" if status == 429 else "see whether the service is well"
        return Trouble(_EXPECTED, got + said, mend, "always", wait)
    return Trouble(_EXPECTED, got, _MENDS.get(status, "check URL, credentials and `encode`"), "never")


def _garbled(expected: str, got: str) -> Trouble:
    return Trouble(expected, got, "check the service's answer, or hand in `decode`", "once")


def _root(error: BaseException) -> BaseException:
    """The first error of the chain that is the system's."""
    step: BaseException | None = error
    while step is not None and not isinstance(step, OSError):
        step = step.__cause__ or step.__context__
    return error if step is None else step


def _trust(verify: bool | str | Path) -> Any:
    if isinstance(verify, bool):
        return verify
    (path,) = readable([verify])
    try:
        return ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        return refuse(f"verify {path}", "certificates in PEM format", "a file without", "give the authority's file")
