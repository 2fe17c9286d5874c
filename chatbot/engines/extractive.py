"""Answers without a model: the best sentences of the best passages, each with its citation."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from chatbot.engines.base import Cancelled, Clock, EngineSpec, Finish, StopWords, never
from chatbot.i18n import N_, translate
from chatbot.text import asked_about, fold, folded_words, language_of, sentences
from chatbot.types import Delta, EngineInfo, GenerationOptions, Source, Turn

FOUND = N_("Here is what your documents say:")
NOTHING_FOUND = N_("I found nothing about this in your documents.")

QUOTES = 4
"""At most this many quotations in one answer."""
NEAR_BEST = 0.55
"""A quotation must score at least this share of the best one."""
LONGEST = 700
"""Characters of one quotation; longer ones are cut at a word and marked with an ellipsis."""
HEADING_WORTH = 0.4
"""What a word of the question counts for when it stands in the heading over a sentence, not in it."""

EXPECTED_WORTH = 1.2
"""What having the expected kind of word (a condition, a number) multiplies a score by."""

# What an answer to such a question is expected to hold; {noun} is the word that follows the asking one.
_EXPECTED = (
    (
        re.compile(r"\b(?:khi nao|bao gio|luc nao|truong hop nao|when)\b"),
        r"\b(?:neu|khi|truong hop|truoc ngay|ke tu|trong vong|thang \d|if|when|within|before|after)\b",
    ),
    (
        re.compile(r"\b(?:bao nhieu|may|how (?:many|much))\s+(?P<noun>\w+)"),
        r"(?:\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|mot|hai|ba|bon))\s{noun}\b",
    ),
    (
        re.compile(r"\b(?:bao nhieu|bao lau|how (?:many|much|long))\b"),
        r"\d|\b(?:one|two|three|four|five|six|mot|hai|ba) (?:day|week|month|year|hour|ngay|tuan|thang|nam)",
    ),
)

_ITEM = re.compile(r"^(?:([a-zđ])\)|(\d{1,3})[.)]|([-•*–+]))\s+", re.IGNORECASE)
_HEADING = re.compile(
    r"^(?:Điều|Chương|Mục|Phần|Article|Section|Chapter|Part)\s+[\dIVXLC]+\b.{0,110}$", re.IGNORECASE
)
_NUMBERED = re.compile(r"^\d{1,3}(?:\.\d{1,3})+\.?\s+")
_RUN_IN_HEADING = re.compile(r"^\d{1,3}(?:\.\d{1,3})+\.?\s+[^.:;]{2,60}\.\s+(?=\S)")
_ENDED = (".", "!", "?", "…", ":", ";")
_MARKER = re.compile(r"^(?:\d{1,3}[.)]|[-•*–+])\s+")
_STARTS = re.compile(f"{_ITEM.pattern}|{_HEADING.pattern}|{_NUMBERED.pattern}", re.IGNORECASE)
_WORD_WITH_SPACE = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class _Quote:
    """Something worth quoting; `place` orders the quotes of one source."""

    source: Source
    place: int
    text: str
    heading: str
    lead: str = ""
    """The line that introduces a quoted list; it decides whether the list is long-winded."""
    score: float = 0.0


class Extractive:
    """The engine that quotes: reads `question` and `sources` of the last turn."""

    def __init__(self, spec: EngineSpec) -> None:
        self.info = EngineInfo("extractive", spec.title, context=0)

    def stream(
        self,
        turns: Sequence[Turn],
        options: GenerationOptions,
        cancelled: Cancelled = never,
    ) -> Iterator[Delta]:
        """Yield the answer word by word; a token is a word."""
        clock = Clock()
        stops = StopWords(options.stop)
        written = 0
        finish: Finish = "stop"
        for word in _WORD_WITH_SPACE.findall(_answer(turns[-1])):
            if cancelled():
                finish = "cancelled"
                break
            if written >= options.max_tokens:
                finish = "length"
                break
            clock.token()
            written += 1
            if text := stops.feed(word):
                yield Delta(text=text)
            if stops.stopped:
                break
        if text := stops.end():
            yield Delta(text=text)
        yield Delta(
            stats=clock.stats(
                prompt=self.count_tokens(turns),
                cached=0,
                answer=written,
                context=0,
                finish=finish,
            )
        )

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:  # noqa: ARG002
        """The words of the last turn's question and sources: what this engine reads."""
        last = turns[-1]
        return sum(len(text.split()) for text in (_question(last), *(s.text for s in last.sources)))


def _question(turn: Turn) -> str:
    return turn.question or turn.text


def _answer(turn: Turn) -> str:
    question = _question(turn)
    language = language_of(question)
    quotes = _best_quotes(question, turn.sources)
    if not quotes:
        return translate(NOTHING_FOUND, language)
    if len(quotes) == 1:
        return f"{quotes[0].text} [{quotes[0].source.number}]"
    lines = [f"- {quote.text} [{quote.source.number}]" for quote in quotes]
    return "\n".join([translate(FOUND, language), "", *lines])


def _best_quotes(question: str, sources: Sequence[Source]) -> list[_Quote]:
    asked = _asked_terms(question)
    expected = _expected(question)
    quotes = [quote for source in sources for quote in _quotable(source)]
    spelled = [_terms(quote.text) for quote in quotes]
    seen = Counter(term for terms in spelled for term in terms)
    # A pair of neighbouring syllables says more than either of them.
    worth = {t: math.log(1 + len(quotes) / (1 + seen[t])) * (2 if " " in t else 1) for t in asked}
    scored = []
    for quote, terms in zip(quotes, spelled, strict=True):
        found = sum(worth[term] for term in asked & terms)
        if not found:
            continue
        found += HEADING_WORTH * sum(worth[t] for t in (asked - terms) & _terms(quote.heading))
        found *= EXPECTED_WORTH ** sum(bool(e.search(fold(quote.text))) for e in expected)
        # A long quotation gathers words by chance; a passage that search put first deserves trust.
        size = len(_terms(quote.lead)) if quote.lead else len(terms)
        length = 1 + max(0, size - 2 * len(asked)) / 300
        trust = 1 / (1 + 0.08 * (quote.source.number - 1))
        scored.append(replace(quote, score=found * trust / length))
    return _different(sorted(scored, key=lambda quote: -quote.score))


def _expected(question: str) -> list[re.Pattern[str]]:
    """What a fitting answer holds: a condition for 'when', a number and its noun for 'how many'."""
    asked = fold(question)
    return [
        re.compile(expected.replace("{noun}", match.groupdict().get("noun", "")))
        for asking, expected in _EXPECTED
        if (match := asking.search(asked))
    ]


def _different(quotes: list[_Quote]) -> list[_Quote]:
    """The best quotes without near-repeats: the best one first, the others as their sources stand."""
    kept: list[_Quote] = []
    shown: list[set[str]] = []
    for quote in quotes:
        if len(kept) == QUOTES or quote.score < NEAR_BEST * quotes[0].score:
            break
        terms = _terms(quote.text)
        if any(len(terms & other) > 0.8 * min(len(terms), len(other)) for other in shown):
            continue
        shown.append(terms)
        kept.append(quote)
    return kept[:1] + sorted(kept[1:], key=lambda quote: (quote.source.number, quote.place))


def _quotable(source: Source) -> Iterator[_Quote]:
    """The sentences of a passage; a line that ends with a colon goes with the list it introduces."""
    heading = source.path
    paragraphs = _paragraphs(source.text)
    place = 0
    while place < len(paragraphs):
        said = paragraphs[place]
        items = _items_after(paragraphs, place)
        if run_in := _RUN_IN_HEADING.match(said):
            heading, said = f"{source.path} {run_in.group()}", said[run_in.end() :]
        if _is_heading(said):
            heading = f"{source.path} {said}"
        elif items:
            whole = "\n  - ".join([said, *items])  # a list below its lead, on the page too
            texts = [whole] if len(whole) <= LONGEST else [f"{said} {item}" for item in items]
            for text in texts:
                yield _Quote(source, place, _tidy(text), heading, lead=said)
        elif not said.endswith(":"):
            for start, end in sentences(said):
                if len(folded_words(said[start:end])) >= 3:
                    yield _Quote(source, place, _tidy(said[start:end]), heading)
        place += 1 + len(items)


def _is_heading(line: str) -> bool:
    """Numbered headings, and short lines that are no sentence and hold no figure."""
    if _HEADING.match(line):
        return True
    title = _MARKER.sub("", line)
    short = len(title) <= 90 and not title.endswith(_ENDED) and not _ITEM.match(title)
    return short and not any(character.isdigit() for character in title)


def _paragraphs(text: str) -> list[str]:
    """The lines of the text, those joined that a page's margin broke."""
    found: list[str] = []
    for line in text.splitlines():
        line = " ".join(line.split())
        if not line:
            continue
        fresh = not found or _HEADING.match(found[-1]) or _STARTS.match(line)
        if fresh or (found[-1].endswith(_ENDED) and not line[0].islower()):
            found.append(line)
        else:
            found[-1] += " " + line
    return found


def _items_after(paragraphs: list[str], place: int) -> list[str]:
    """The list items that the paragraph introduces: those of one kind that follow its colon."""
    if not paragraphs[place].endswith(":"):
        return []
    items: list[str] = []
    kind = None
    for line in paragraphs[place + 1 :]:
        match = _ITEM.match(line)
        if not match or kind not in (None, match.lastindex):
            break
        kind = match.lastindex
        items.append(line)
    return items


def _tidy(text: str) -> str:
    """Without the clause's own number, which would start a list on the page; never longer than LONGEST."""
    text = _MARKER.sub("", text)
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + "…"


def _terms(text: str) -> set[str]:
    """Folded words and the pairs of neighbours; a Vietnamese word is mostly two syllables."""
    found = folded_words(text)
    return {*found, *(f"{a} {b}" for a, b in pairwise(found))}


def _asked_terms(question: str) -> set[str]:
    """The terms of what is asked about, the asking words left out; all of them when nothing else is there."""
    return {term for run in asked_about(question) for term in _terms(" ".join(run))}
