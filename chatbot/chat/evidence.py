"""Passages and sentences in the form in which they are compared: terms, facts, place in the structure.

Terms are folded words without endings and pairs of neighbours. Numbers and limiting words are left out:
they are compared on their own. A list of synonyms changed no verdict of benchmarks/support.py, so there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from chatbot.chat import facts
from chatbot.chat.facts import Date, Number, Reference, Token
from chatbot.chat.polarity import Cue, cues
from chatbot.text import has_marks, language_of, nfc, sentences
from chatbot.types import Language, Source

STOP = frozenset(
    [
        "la",
        "va",
        "cua",
        "cac",
        "nhung",
        "cho",
        "thi",
        "ma",
        "o",
        "voi",
        "ve",
        "do",
        "nay",
        "nhu",
        "de",
        "vao",
        "ra",
        "len",
        "theo",
        "tai",
        "trong",
        "khi",
        "neu",
        "tu",
        "den",
        "bi",
        "boi",
        "hoac",
        "hay",
        "se",
        "da",
        "dang",
        "cung",
        "rang",
        "duoc",
        "co",
        "mot",
        "nguoi",
        "nao",
        "viec",
        "sau",
        "truoc",
        "doi",
        "the",
        "a",
        "an",
        "of",
        "to",
        "in",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "and",
        "or",
        "for",
        "on",
        "at",
        "by",
        "with",
        "from",
        "as",
        "that",
        "this",
        "these",
        "those",
        "it",
        "its",
        "their",
        "his",
        "her",
        "they",
        "he",
        "she",
        "which",
        "who",
        "whom",
        "will",
        "would",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "can",
        "may",
        "must",
        "shall",
        "should",
        "if",
        "when",
        "than",
        "then",
        "there",
        "here",
        "also",
        "such",
        "into",
        "about",
        "between",
        "during",
        "each",
        "any",
        "all",
        "other",
        "per",
        "we",
        "our",
        "you",
        "your",
        "i",
        "s",
        "t",
    ]
)
_ENDING = re.compile(r"(?:ies|ied|ing|edly|ed|es|s|ly)$")
_MARKER = re.compile(
    r"^\s*[“\"]?(?:(?P<clause>\d{1,3})(?:[.)]\s)|(?P<point>[a-zđ])\)\s|[-•–*+]\s)", re.IGNORECASE
)
_OPENING = re.compile(r"^\s*[“\"]?(?:Điều|Chương|Mục|Phần|Article|Section|Chapter|Part|Phụ lục|Annex|Appendix)\s+(?=[\dIVXLC])", re.IGNORECASE)  # fmt: skip
_NUMBERED = re.compile(r"^\s*(\d{1,2}(?:\.\d{1,3})+)\.?\s")
_SHORT_LINE = 45
"""A line shorter than this was not broken by a margin: it is a heading, an item or a row of a table."""
_TITLE_NUMBER = re.compile(r"\s(\d{1,3}[a-zđ]?)$")


def stem(word: str, language: Language) -> str:
    """The folded word without an English ending; Vietnamese words have none."""
    if language == "vi" or len(word) < 4 or not word.isascii():
        return word
    cut = _ENDING.sub("", word)
    if len(cut) < 3:
        return word
    if len(cut) > 3 and cut[-1] == cut[-2] and cut[-1] not in "sl":
        cut = cut[:-1]
    return cut.rstrip("e") if len(cut) > 3 else cut


class Sentence:
    """A sentence and what can be compared of it; everything is worked out at first use."""

    def __init__(
        self, text: str, language: Language, place: dict[str, frozenset[str]] | None = None
    ) -> None:
        self.text = text
        self.language = language
        self.place = place or {}
        """The article, clause, point … in which it stands, as far as known."""

    @cached_property
    def words(self) -> list[Token]:
        return facts.tokens(self.text)

    @cached_property
    def dates(self) -> list[Date]:
        return facts.dates(self.text) if any(c.isdigit() for c in self.text) else []

    @cached_property
    def references(self) -> list[Reference]:
        return facts.references(self.text)

    @cached_property
    def all_numbers(self) -> list[Number]:
        return facts.numbers(self.text, self.words, self.language)

    @cached_property
    def numbers(self) -> list[Number]:
        """The numbers that are no part of a date, a reference or the sentence's own numbering."""
        spans: list[tuple[int, int]] = [(d.start, d.end) for d in self.dates]
        spans += [(r.start, r.end) for r in self.references]
        spans += [(start, end) for start, end, _ in facts.document_numbers(self.text)]
        for pattern in (_MARKER, _NUMBERED):
            if marker := pattern.match(self.text):
                spans.append(marker.span())
        return [n for n in self.all_numbers if not any(s < n.end and n.start < e for s, e in spans)]

    @cached_property
    def cues(self) -> list[Cue]:
        # Without marks 'chỉ' is 'chi' and 'cấm' is 'cam': nothing can be told from them.
        if self.language == "vi" and not has_marks(self.text):
            return []
        return cues(self.words)

    @cached_property
    def stems(self) -> list[str]:
        """For every token its comparable form; '' for words that say nothing by themselves."""
        return [
            "" if w.folded in STOP or w.word[0].isdigit() else stem(w.folded, self.language)
            for w in self.words
        ]

    @cached_property
    def content(self) -> list[str]:
        """The comparable words in order, without numbers written out and limiting words."""
        skipped = {i for cue in self.cues for i in range(cue.start, cue.end)}
        if self.numbers:
            spans = [(n.start, n.end) for n in self.numbers if n.certain]
            skipped |= {
                i for i, w in enumerate(self.words) if any(s <= w.start < e for s, e in spans)
            }
        return [s for i, s in enumerate(self.stems) if s and i not in skipped]

    @cached_property
    def terms(self) -> frozenset[str]:
        """Words and pairs of neighbours."""
        return frozenset(self.content) | {f"{a} {b}" for a, b in pairwise(self.content)}

    @cached_property
    def marks(self) -> set[str]:
        """What tells sentences of the same words apart: figures and limiting words."""
        figures = {w.word.lstrip("0") for w in self.words if w.word[0].isdigit()}
        return figures | {cue.kind for cue in self.cues}

    def around(self, start: int, end: int, reach: int = 5) -> set[str]:
        """The comparable words within `reach` tokens of that span of the text."""
        inside = [i for i, w in enumerate(self.words) if w.start < end and start < w.end]
        if not inside:
            return set()
        low, high = max(0, inside[0] - reach), inside[-1] + reach + 1
        return {s for i, s in enumerate(self.stems[low:high], low) if s and i not in inside}


@dataclass(frozen=True)
class Passage:
    """A source as evidence: its sentences, each with its place, and the words of its heading."""

    source: Source

    @cached_property
    def language(self) -> Language:
        return language_of(self.source.text)

    @cached_property
    def heading(self) -> Sentence:
        return Sentence(nfc(f"{self.source.document} | {self.source.path}"), self.language)

    @cached_property
    def sentences(self) -> list[Sentence]:
        text = _unwrapped(nfc(self.source.text))
        place = self._place_of_heading()
        found = []
        for start, end in sentences(text):
            line = text[start:end]
            place = _moved(place, line)
            found.append(Sentence(line, self.language, place))
        return found

    @cached_property
    def spoken(self) -> str:
        """All words with their marks, in order, one space between and around."""
        return " " + " ".join(t.word for t in facts.tokens(self._everything)) + " "

    @cached_property
    def folded(self) -> str:
        return " " + " ".join(t.folded for t in facts.tokens(self._everything)) + " "

    @cached_property
    def initials(self) -> str:
        return "".join(word[0] for word in self.folded.split())

    @cached_property
    def numbers(self) -> list[Number]:
        return [n for s in [*self.sentences, self.heading] for n in s.numbers]

    @cached_property
    def dates(self) -> list[Date]:
        return [d for s in [*self.sentences, self.heading] for d in s.dates]

    @property
    def _everything(self) -> str:
        return nfc(f"{self.source.document} | {self.source.path} | {self.source.text}")

    def _place_of_heading(self) -> dict[str, frozenset[str]]:
        place: dict[str, frozenset[str]] = {}
        for reference in [*self.heading.references]:
            place[reference.kind] = place.get(reference.kind, frozenset()) | {reference.number}
        if "article" not in place and (title := _TITLE_NUMBER.search(self.source.document)):
            place["article"] = frozenset({title.group(1)})
        return place


def _unwrapped(text: str) -> str:
    """The text with a space where a page's margin broke a line inside a sentence; equally long."""
    lines = text.split("\n")
    joined = lines[0]
    for line, following in pairwise(lines):
        ended = line.rstrip().endswith((".", ";", ":", "!", "?", "…", ".”", "”."))
        opens = _MARKER.match(following) or _OPENING.match(following) or _NUMBERED.match(following)
        wrapped = len(line) >= _SHORT_LINE and not ended and following.strip() and not opens
        joined += (" " if wrapped else "\n") + following
    return joined


def _moved(place: dict[str, frozenset[str]], line: str) -> dict[str, frozenset[str]]:
    """The place after this line: a heading or a clause's number opens a new one and closes those below."""
    if _OPENING.match(line) and (opened := facts.references(line[:60])):
        first = opened[0]
        below = (
            ("clause", "point")
            if first.kind in ("article", "section")
            else ("article", "clause", "point")
        )
        kept = {k: v for k, v in place.items() if k not in below}
        return {**kept, first.kind: frozenset({first.number})}
    if numbered := _NUMBERED.match(line):
        return {**place, "section": frozenset({numbered.group(1)})}
    if marker := _MARKER.match(line):
        if marker["clause"]:
            kept = {k: v for k, v in place.items() if k != "point"}
            return {**kept, "clause": frozenset({marker["clause"]})}
        if marker["point"]:
            return {**place, "point": frozenset({marker["point"].lower()})}
    return place
