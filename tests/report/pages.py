"""Reading a report as a browser does: tables, texts, attributes, ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

# Elements that have no end tag, of those that a report uses.
_VOID = {"meta"}

MINUS, DASH = "\u2212", "\u2013"


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    content: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.content).split())


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        elements: All elements, in order; each holds the text of those within it, too.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(source)
        self.close()
        assert not self._open, f"left open: {[element.tag for element in self._open]}"

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.content.append(data)

    def all(self, tag: str, style: str | None = None) -> list[Element]:
        """Elements by their tag, and if given by one of their classes."""
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (style is None or style in (element.attributes.get("class") or "").split())
        ]

    @property
    def text(self) -> str:
        (body,) = self.all("body")
        return body.text

    @property
    def tiles(self) -> dict[str, str]:
        """Name → value and note of the figures at the top."""
        names = [element.text for element in self.all("dt")]
        return dict(zip(names, (element.text for element in self.all("dd")), strict=True))

    def all_rows(self) -> list[list[str]]:
        """The rows of all tables."""
        return [row for table in self.tables() for row in table]

    def rows_below(self, *heads: str) -> list[list[str]]:
        """The rows of the one table that has these heads."""
        (found,) = self.tables_below(*heads)
        return found

    def tables_below(self, *heads: str) -> list[list[list[str]]]:
        """The rows of every table that has these heads."""
        return [table[1:] for table in self.tables() if table[:1] == [list(heads)]]

    def tables(self) -> list[list[list[str]]]:
        """All tables, as rows of texts."""
        tables: list[list[list[str]]] = []
        for element in self.elements:
            if element.tag == "table":
                tables.append([])
            elif element.tag == "tr":
                tables[-1].append([])
            elif element.tag in ("td", "th"):
                tables[-1][-1].append(element.text)
        return tables
