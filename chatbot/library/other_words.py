"""What a question says in everyday words or in the other language, in the words of official texts.

A small general table, `other_words.txt`; it makes passages findable that share no word with the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from chatbot.text import fold, folded_words, has_marks, language_of, words
from chatbot.types import Language

_FILE = Path(__file__).with_name("other_words.txt")
_LONGEST = 4
"""Words of the longest term said."""
_SHORTEST_UNMARKED = 4
"""Letters of a single Vietnamese syllable that is known without its marks: 'de' may be 'để' or 'đẻ'."""


def other_words(question: str) -> list[str]:
    """The terms that official texts use for what the question says, folded, each once, in its order."""
    said = [word.lower() for word in words(question)]
    language = language_of(question)
    marked = has_marks(question)
    table = _tables()[language, marked or language == "en"]
    found: dict[str, None] = {}
    place = 0
    while place < len(said):
        for length in range(min(_LONGEST, len(said) - place), 0, -1):
            term = " ".join(said[place : place + length])
            written = table.get(term)
            if written is None and language == "en":
                written = table.get(term.removesuffix("s"))
            if written:
                found.update(dict.fromkeys(written))
                place += length - 1
                break
        place += 1
    return list(found)


@lru_cache(maxsize=1)
def _tables() -> Mapping[tuple[Language, bool], Mapping[str, tuple[str, ...]]]:
    """The table by language of the question, and whether it is written with marks."""
    tables: dict[tuple[Language, bool], dict[str, tuple[str, ...]]] = {
        ("vi", True): {},
        ("vi", False): {},
        ("en", True): {},
    }
    english = False
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# --- English"):
            english = True
        said, _, written = line.partition("=")
        if line.startswith("#") or not written:
            continue
        said = " ".join(words(said.lower()))
        terms = tuple(" ".join(folded_words(term)) for term in written.split(","))
        if english:
            tables["en", True][said] = terms
            continue
        tables["vi", True][said] = terms
        if " " in said or len(said) >= _SHORTEST_UNMARKED:
            tables["vi", False].setdefault(fold(said), terms)
    return tables
