"""Credentials of a remote model: read from the environment, shown to nobody but the server."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import quote, unquote, unquote_plus, urlsplit, urlunsplit

from audit.adapters.checks import refuse

_HIDDEN = "<hidden>"
_SHORT = 3
"""Parts of a URL up to this length are no credential; to hide each would spoil every message."""


class Secret:
    """A text that shows nowhere: not in ``repr``, ``str`` or a pickle; only ``reveal()`` hands it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the request alone."""
        return self._value

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    @property
    def sendable(self) -> bool:
        """Whether it may stand in a header: printable ASCII, no space at its ends."""
        return bool(re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", self._value))

    def forms(self) -> set[str]:
        """The ways in which it may turn up in a text."""
        raw = self._value.encode()
        encoded = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
        encoded |= {form.rstrip("=") for form in encoded}
        return {self._value, repr(self._value)[1:-1], quote(self._value), quote(self._value, safe=""), *encoded} - {""}


class Credentials:
    """Where requests go and what proves who asks.

    Args:
        url: http or https; a user name and password in it become Basic authorisation. They, the query and what
            follows a ``;`` of the path are credentials too.
        auth_env: the environment variable with the token for ``Authorization: Bearer``.
        header_env: header -> environment variable, e.g. ``{"X-Api-Key": "MYAPI_KEY"}``.
        proxy_env: the environment variable with the proxy's URL.

    Attributes:
        shown: the URL for reports and messages: scheme, host, port and path up to a ``;`` alone. variables: the names
            of the environment variables that were read.

    Raises:
        ModelError: no URL; a variable that is not set, or holds what cannot be sent.
    """

    def __init__(
        self, url: str, auth_env: str | None, header_env: Mapping[str, str], proxy_env: str | None = None
    ) -> None:
        self.shown, self.scheme, self.host, self._target, pair = _parted(url)
        self._headers: dict[str, Secret] = {}
        self._parts = [Secret(part) for part in _telling(url.strip())]
        if pair is not None:
            self._headers["Authorization"] = Secret(f"Basic {base64.b64encode(pair.reveal().encode()).decode()}")
        wanted = [] if auth_env is None else [("Authorization", auth_env, "auth_env")]
        wanted += [(header, variable, "header_env") for header, variable in header_env.items()]
        for header, variable, argument in wanted:
            if not isinstance(header, str) or not re.fullmatch(r"[A-Za-z0-9-]+", header):
                refuse("header_env", "names of headers such as 'X-Api-Key'", "another text", "correct the name")
            if header.lower() in {h.lower() for h in self._headers}:
                refuse("credentials", f"one source for the header {header}", "two", "leave one out")
            self._headers[header] = _read(variable, argument)
        if auth_env is not None:
            self._headers["Authorization"] = Secret(f"Bearer {self._headers['Authorization'].reveal()}")
        self.proxy = None if proxy_env is None else _read(proxy_env, "proxy_env")
        if self.proxy is not None:
            self._parts += [Secret(part) for part in _telling(self.proxy.reveal())]
        self.variables = tuple(v for v in (*(variable for _, variable, _ in wanted), proxy_env) if v is not None)
        target = urlsplit(self._target.reveal())
        self.sent = bool(self._headers) or target.query != "" or ";" in target.path

    def headers(self) -> dict[str, str]:
        """The headers in clear; for the request alone."""
        return {name: secret.reveal() for name, secret in self._headers.items()}

    def target(self) -> str:
        """The URL in clear, without user name and password; for the request alone."""
        return self._target.reveal()

    def scrub(self, text: str) -> str:
        """The text without any credential in it, as it is or in base64. To be cut only afterwards."""
        forms = {form for secret in self._secrets() for form in secret.forms()}
        # at once and the longest first: no credential is broken up by a shorter one within it
        found = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        return re.sub(found, _HIDDEN, text) if found else text

    def __repr__(self) -> str:
        return f"credentials for {self.shown}"

    def _secrets(self) -> list[Secret]:
        found = [s for s in (*self._headers.values(), self.proxy) if s is not None]
        found += [Secret(s.reveal().partition(" ")[2]) for s in self._headers.values()]
        return found + self._parts


def _telling(url: str) -> set[str]:
    """The parts of a URL that may be a credential: user name, password, query and what follows a ``;`` of the path."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
    except ValueError:
        return set()  # no URL; told elsewhere, and hidden as a whole
    user, password = parts.username or "", parts.password or ""
    _, _, after = parts.path.partition(";")
    found = {user, f"{user}:{password}", parts.query, after}
    for part in (*re.split("[&;]", parts.query), *re.split("[;/]", after)):
        name, _, value = part.partition("=")
        found |= {part, part.rstrip("="), value if value.strip("=") else name}
    found |= {f(part) for part in found for f in (unquote, unquote_plus)}
    return {part for part in found if len(part) > _SHORT} | {password, unquote(password)} - {""}


def address(url: str | None, url_env: str | None) -> str:
    """The URL itself, or that of the environment variable."""
    mend = "give the address or the name of its environment variable"
    if url_env is None:
        return url if url is not None else refuse("url", "url or url_env", "neither", mend)
    if url is not None:
        refuse("url", "url or url_env", "both", mend)
    return _read(url_env, "url_env").reveal()


def _read(variable: str, argument: str) -> Secret:
    if not isinstance(variable, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        # not shown: somebody may have put the credential itself here
        refuse(argument, "the name of an environment variable", "another text", "write 'MYAPI_TOKEN', say, and set it")
    # a name in capitals is a name; anything else may be the credential itself
    named = f"the environment variable {variable if variable.isupper() else f'that {argument} names'}"
    secret = Secret(os.environ.get(variable, ""))
    subject, held = ("url", "the address") if argument == "url_env" else ("credentials", "them")
    if not secret.reveal():
        refuse(subject, f"{named} to hold {held}", "nothing", "set it before the audit, in the same shell")
    if not secret.sendable:
        refuse(subject, f"{named} to hold printable ASCII", "something else", "look for a line break or space")
    return secret


def _parted(url: str) -> tuple[str, str, str, Secret, Secret | None]:
    """What is shown, scheme, host, the whole without user name and password, and those two."""
    expected, mend = "an http or https URL such as https://host/path", "give the address that takes the images"
    if not isinstance(url, str):
        refuse("url", expected, type(url).__name__, mend)
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host = ""  # refused below: the error's own text may quote what stands in the place of the port
    if not host or parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        refuse("url", expected, "a text that is none", mend)
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    pair = None
    if parts.username is not None:
        pair = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    shown = urlunsplit((parts.scheme, place, parts.path.partition(";")[0], "", ""))
    target = Secret(urlunsplit((parts.scheme, place, parts.path or "/", parts.query, "")))
    return shown, parts.scheme, host, target, pair
