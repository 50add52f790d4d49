"""A page as a reader of HTML sees it: what it links to, loads, asks for and says."""

from __future__ import annotations

import html.parser
from dataclasses import dataclass, field

# Elements that are never closed.
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"))


@dataclass
class Element:
    """One element: its tag, its attributes, and the text inside."""

    tag: str
    attributes: dict[str, str]
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name, "")


@dataclass
class Page(html.parser.HTMLParser):
    """The elements of a page in their order. Fails on what no page may have: scripts or styles written inline, an
    element that is not closed, an id twice."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"not closed: {[element.tag for element in self._open]}"
        ids = [element["id"] for element in self.elements if element["id"]]
        assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)
        for element in self.all("script", "style"):
            assert element["src"], f"inline: {element.text[:80]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        inline = [name for name in given if name == "style" or name.startswith("on")]
        assert not inline, f"inline {inline} on <{tag}>"
        element = Element(tag, given)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        """Elements of these tags (all when none is given) that have these values; `_` in a name is `-` in HTML."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}

        def fits(element: Element, name: str, value: str) -> bool:
            if name not in element.attributes:
                return False
            return not value or value == element[name] or value in element[name].split()

        return [
            element
            for element in self.elements
            if (not tags or element.tag in tags) and all(fits(element, *pair) for pair in wanted.items())
        ]

    def one(self, *tags: str, **attributes: str) -> Element:
        """The only such element."""
        found = self.all(*tags, **attributes)
        assert len(found) == 1, f"{len(found)} of {tags} {attributes}"
        return found[0]

    def loaded(self) -> list[str]:
        """Addresses of what the page loads by itself."""
        found = [element["src"] or element["href"] for element in self.all("script", "link", "img", "video", "track")]
        return [address for address in found if address]

    @property
    def text(self) -> str:
        """All that is said, in one line."""
        return " ".join(" ".join(element.text for element in self.all("body")).split())
