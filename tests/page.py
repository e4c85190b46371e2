"""A small DOM over html.parser, to look at a page as a reader would and not as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr", "col"}


@dataclass
class Node:
    tag: str
    attrs: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, **attrs: str) -> list[Node]:
        wanted = {k.rstrip("_"): v for k, v in attrs.items()}
        return [n for n in self.walk() if n.tag == tag and all(n.attrs.get(k) == v for k, v in wanted.items())]

    def one(self, tag: str, **attrs: str) -> Node:
        found = self.all(tag, **attrs)
        assert len(found) == 1, f"{len(found)} × <{tag}> {attrs}"
        return found[0]

    def by_id(self, id: str) -> Node:
        found = [n for n in self.walk() if n.attrs.get("id") == id]
        assert len(found) == 1, f"{len(found)} × #{id}"
        return found[0]

    def has_class(self, name: str) -> bool:
        return name in self.attrs.get("class", "").split()

    def with_class(self, name: str) -> list[Node]:
        return [n for n in self.walk() if n.has_class(name)]

    @property
    def text(self) -> str:
        """What a reader sees: style sheets and figure titles left out, white space collapsed."""
        return " ".join("".join(_texts(self)).split())


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("#document")
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        names = [k for k, _ in attrs]
        assert len(names) == len(set(names)), f"doubled attribute in <{tag}>"
        node = Node(tag, {k: v or "" for k, v in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(html: str) -> Node:
    """The page as a tree; fails where tags are not properly nested."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder.open == [builder.root], f"never closed: {[n.tag for n in builder.open[1:]]}"
    return builder.root


def numbers(text: str) -> list[float]:
    """All numbers of a text, powers of ten and the true minus understood."""
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    out = []
    for mantissa, power in re.findall(r"([−-]?\d+(?:\.\d+)?)(?: × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text):
        out.append(float(mantissa.replace("−", "-")) * 10.0 ** int(power.translate(digits) if power else 0))
    return out


def close_to_one(value: float, seen: list[float]) -> bool:
    """Whether ``value`` stands among ``seen``, to three decimals or three significant digits."""
    return any(abs(value - s) <= max(0.0005001, 0.005 * abs(value)) for s in seen)


def _texts(node: Node) -> Iterator[str]:
    if node.tag in {"style", "title"}:
        return
    for child in node.children:
        if isinstance(child, str):
            yield child
        else:
            yield from _texts(child)
            if child.tag not in {"code", "strong", "span", "a", "text"}:
                yield " "
