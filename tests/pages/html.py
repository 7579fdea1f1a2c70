"""Just enough HTML reading for the tests: what a page says, where it links, what its forms would send."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

INLINE = {"a", "b", "code", "kbd", "small", "span", "strong", "svg", "time", "use", "wbr"}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


@dataclass
class Form:
    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


class Html(HTMLParser):
    """A page, read. ``text`` is what it says with single spaces; ``attributes`` is every attribute with its tag."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.inner: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._said: list[str] = []
        self._select: str | None = None
        self._options: list[tuple[str, bool]] = []
        self._area: tuple[str | None, list[str]] | None = None
        self.feed(source)

    @property
    def text(self) -> str:
        return " ".join("".join(self._said).split())

    def first(self, tag: str) -> str:
        """The text of the first element of that tag."""
        return " ".join(self.inner[tag][0].split())

    @property
    def main_form(self) -> Form:
        """The page's own form; the one before it signs out."""
        return next(form for form in self.forms if not form.action.endswith("/sign-out"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._space(tag)
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        if tag in ("input", "select", "textarea") and self.forms and given.get("name"):
            self.forms[-1].names.add(given["name"])
        self._control(tag, given)
        if tag not in VOID:
            self._open.append(tag)
            self.inner.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._space(tag)
        if tag == "select" and self._select and self.forms:
            chosen = [value for value, selected in self._options if selected] or [self._options[0][0]]
            self.forms[-1].fields.append((self._select, chosen[0]))
            self._select = None
        if tag == "textarea" and self._area:
            name, said = self._area
            if name and self.forms:
                self.forms[-1].fields.append((name, "".join(said)))
            self._area = None
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._area:
            self._area[1].append(data)
        if self._open and self._open[-1] not in ("script", "style"):
            self._said.append(data)
        for tag in set(self._open):
            self.inner[tag][-1] += data

    def _control(self, tag: str, given: dict[str, str]) -> None:
        if tag == "input":
            self._input(given)
        elif tag == "select":
            self._select, self._options = given.get("name"), []
        elif tag == "option":
            self._options.append((given.get("value", ""), "selected" in given))
        elif tag == "textarea":
            self._area = (given.get("name"), [])

    def _space(self, tag: str) -> None:
        if tag not in INLINE:
            self._said.append(" ")

    def _input(self, given: dict[str, str]) -> None:
        ticked = given.get("type") not in ("radio", "checkbox") or "checked" in given
        if self.forms and given.get("name") and ticked and given.get("type") != "submit":
            self.forms[-1].fields.append((given["name"], given.get("value", "")))
