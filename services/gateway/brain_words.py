"""Finds the words of ARKAbrain's rules in a text, all of them in one pass.

An entry is looked up by the beginning of its first word, so a text costs a few comparisons for each of its words,
however many entries there are. Entries are no regular expressions: every wildcard is bounded, and an entry holds at
most two, so no entry can make a text slow.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MOST_CHARACTERS = 12_000
_MOST_WILDCARDS = 2
_MOST_OPENINGS = 3
_KEY_LETTERS = 3
_NUMBER = "<n>"
_PIECES = {"...": r"[^\n]{0,60}?", "*": r"\w{0,30}", _NUMBER: r"\d{1,9}"}
_PIECE = re.compile(r"(\.\.\.|\*|<n>)")
_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"\w{0,30}")
# After one of these, or after one and a space, something begins.
_BEGINNINGS = frozenset("\n¿¡\"'(`")
_BEGINNINGS_BEFORE_SPACE = frozenset(".!?:;,-*>")
_SIMPLER = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\r": "\n", "\t": " "})


def plain(text: str) -> str:
    """Return text as rules are compared with it: small letters, no accents, simple quotes, single spaces."""
    # One letter can become eighteen.
    text = unicodedata.normalize("NFKD", text.translate(_SIMPLER).casefold())[: 2 * MOST_CHARACTERS]
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return re.sub(r" {2,}", " ", text)[:MOST_CHARACTERS]


class Entry:
    """One line of a signal's words. Raises ValueError, the end of a sentence, when it cannot be one."""

    def __init__(self, written: str) -> None:
        self.at_beginning = written.startswith("^")
        text = plain(written.removeprefix("^"))
        # A star at the end only says that the word may go on.
        self.open_end = text.endswith("*")
        text = text.removesuffix("*")
        if not text.strip(" *.<>"):
            raise ValueError(f"holds {written!r}, which would fit anything")
        if text.startswith("*"):
            raise ValueError(f"holds {written!r}, which begins with a wildcard")
        pieces = _PIECE.split(text)
        if len(pieces) // 2 > _MOST_WILDCARDS:
            raise ValueError(f"holds {written!r} with more than {_MOST_WILDCARDS} wildcards in it")
        self.key = self._key(written, text)
        self.text = text
        self._pattern = (
            re.compile("".join(_PIECES.get(piece) or re.escape(piece) for piece in pieces)) if len(pieces) > 1 else None
        )
        # A word that ends here must end in the text as well.
        self._whole = not self.open_end and (text[-1].isalnum() or text.endswith(_NUMBER))

    def _key(self, written: str, text: str) -> str | None:
        """Return by what the entry is looked up; None for one that begins with a sign."""
        if text.startswith(_NUMBER) or text[0].isdecimal():
            return _NUMBER
        word = _WORD.match(text)
        if word is None:
            return None
        if len(word[0]) < _KEY_LETTERS and (
            (written.endswith("*") and len(word[0]) == len(text)) or "*" in text[: word.end() + 1]
        ):
            raise ValueError(f"holds {written!r}, which needs {_KEY_LETTERS} letters before the star")
        return word[0][:_KEY_LETTERS]

    def end_in(self, text: str, place: int) -> int:
        """Return where the entry ends in the text when it stands at that place, else -1."""
        if self._pattern is None:
            end = place + len(self.text) if text.startswith(self.text, place) else -1
        else:
            match = self._pattern.match(text, place)
            end = match.end() if match else -1
        if end < 0 or (self._whole and end < len(text) and (text[end].isalnum() or text[end] == "_")):
            return -1
        return _LETTERS.match(text, end).end() if self.open_end else end  # type: ignore[union-attr]

    def places_in(self, text: str) -> Iterator[int]:
        """Yield where a sign that begins this entry stands."""
        sign = _PIECE.split(self.text)[0]
        place = text.find(sign)
        while place >= 0:
            yield place
            place = text.find(sign, place + 1)


@dataclass(frozen=True, slots=True)
class Found:
    """Words of a text, and the number of the list in which they stand."""

    number: int
    words: str


class Lexicon:
    """Numbered lists of entries. ``openings`` may stand between a beginning and a word marked ``^``."""

    def __init__(self, openings: Sequence[str], lists: Iterable[Iterable[Entry]]) -> None:
        self._openings: dict[str | None, list[Entry]] = {}
        self._by_key: dict[str | None, list[tuple[int, Entry]]] = {}
        for opening in sorted(map(Entry, openings), key=lambda entry: -len(entry.text)):
            self._openings.setdefault(opening.key, []).append(opening)
        for number, entries in enumerate(lists):
            # The longest first, so that "a short story" is not taken for "a story".
            for entry in sorted(entries, key=lambda entry: -len(entry.text)):
                self._by_key.setdefault(entry.key, []).append((number, entry))

    def find(self, text: str) -> list[Found]:
        """Return what a plain text holds, by its place; in one list nothing is found twice at the same place."""
        beginnings = self._beginnings(text)
        # Where lines end no longer matters.
        text = text.replace("\n", " ")
        found: list[Found] = []
        ends: dict[int, int] = {}
        for word in _WORD.finditer(text):
            place = word.start()
            for number, entry in self._by_key.get(_key(word[0]), ()):
                if place < ends.get(number, 0) or (entry.at_beginning and place not in beginnings):
                    continue
                end = entry.end_in(text, place)
                if end >= 0:
                    ends[number] = end
                    found.append(Found(number, text[place:end]))
        for number, entry in self._by_key.get(None, ()):
            for place in entry.places_in(text):
                end = entry.end_in(text, place)
                if end >= 0:
                    found.append(Found(number, text[place:end]))
                    break
        return found

    def _beginnings(self, text: str) -> set[int]:
        """Return the places where a message, line or sentence begins, also those after openings."""
        found = set()
        for word in _WORD.finditer(text):
            place = word.start()
            if _begins(text, place):
                found.add(place)
                for _ in range(_MOST_OPENINGS):
                    place = self._after_opening(text, place)
                    if place < 0:
                        break
                    found.add(place)
        return found

    def _after_opening(self, text: str, place: int) -> int:
        word = _WORD.match(text, place)
        for opening in self._openings.get(_key(word[0]), ()) if word else ():
            end = opening.end_in(text, place)
            if end >= 0:
                rest = text[end : end + 2]
                return end + (2 if rest[:1] in (",", "!") else 1) if rest[:1] in (",", "!", " ") else -1
        return -1


def _begins(text: str, place: int) -> bool:
    if place == 0 or text[place - 1] in _BEGINNINGS:
        return True
    return place >= 2 and text[place - 1] == " " and text[place - 2] in _BEGINNINGS_BEFORE_SPACE


def _key(word: str) -> str:
    return _NUMBER if word[0].isdecimal() else word[:_KEY_LETTERS]
