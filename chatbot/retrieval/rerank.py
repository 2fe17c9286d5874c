"""A second look at the leading passages: their texts are read, not only counted.

BM25 sums rare words wherever they stand. Reading tells more: whether one sentence holds most of the
question, whether its words stand in a row, whether the heading was asked for, whether a name or number
is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from chatbot.text import fold, folded_words, joining_words, words

JOINING = 0.3
"""What a word that only asks or joins counts for, of any other word's weight."""

_WEIGHTS = {"score": 12.8, "row": 3.0, "sentence": 5.7, "heading": 2.1, "missing": -3.1}
"""Fitted to put the gold passage first, the halves of three sets checked crosswise (docs/decisions.md)."""

_TOKEN = re.compile(r"\w+|\n|[.;!?](?=\s)")
_BREAKS = frozenset("\n.;!?")
_USUAL_SENTENCE = 40
"""Words of a sentence at which its length neither helps nor harms."""
_HEADING = 25
"""A first line of more words is no heading."""
_LONGEST_HEADING = 300
"""Characters; a line that is cut off there has more words than a heading."""
_K1, _B = 1.2, 0.75
_MOST_READ = 12_000
"""Characters of a passage; ours have 1,200, other evaluations' some more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as passages are compared with it.

    `telling` weighs its words apart from those that only ask or join, `words` is all of them in order,
    `weights` what each counts there, `pairs` its neighbours, `named` what names or numbers something.
    """

    words: tuple[str, ...]
    weights: Mapping[str, float]
    telling: Mapping[str, float]
    pairs: frozenset[tuple[str, str]]
    named: frozenset[str]

    @staticmethod
    def of(
        question: str, word_weights: Mapping[str, float], other: Mapping[str, float] | None = None
    ) -> Asked:
        """`word_weights` are the question's folded words with their rarity in the library, `other` those
        that may stand for them."""
        joining = joining_words(question)
        own = {word: w for word, w in word_weights.items() if word not in joining}
        weights = {word: w * (1.0 if word in own else JOINING) for word, w in word_weights.items()}
        written = words(question)
        named = {fold(word) for word in written[1:] if word[0].isupper()}
        named |= {word for word in weights if word.isdigit()}
        in_order = tuple(word for word in folded_words(question) if word in weights)
        return Asked(
            in_order,
            weights,
            {**(other or {}), **(own or weights)},
            frozenset(pairwise(in_order)),
            frozenset(named & own.keys()),
        )


def figures(asked: Asked, name: str, path: str, text: str, lexical: float) -> dict[str, float]:
    """What speaks for a passage, by name; `lexical` is its BM25 sum."""
    telling, weights, pairs = asked.telling, asked.weights, asked.pairs
    total = sum(telling.values()) or 1.0
    in_order = sum(weights[word] for word in asked.words) or 1.0
    best_sentence = longest_row = row = 0.0
    length, held = 0, list[str]()
    seen: set[str] = set()
    before = ""
    # One pass over every word of every passage that is read: kept flat, it is the time a search takes.
    for token in [*_TOKEN.findall(fold(text[:_MOST_READ])), "\n"]:
        if token in telling:
            held.append(token)
        elif token in _BREAKS:
            if held:
                best_sentence = max(best_sentence, _sentence(telling, held, length))
                seen.update(held)
                held = []
            length = 0
            continue
        length += 1
        weight = weights.get(token)
        if weight is not None:
            row = row + weight if (before, token) in pairs else weight
            longest_row = max(longest_row, row)
        before = token
    around, last_label = _folded_place(name, path)
    first_line = folded_words(text.lstrip()[:_LONGEST_HEADING].split("\n", 1)[0])
    headings = [last_label, first_line if len(first_line) <= _HEADING else []]
    return {
        "score": lexical / ((_K1 + 1) * in_order),
        "row": longest_row / in_order,
        "sentence": best_sentence / total,
        "heading": max(_share_asked(pairs, heading) for heading in headings),
        "missing": sum(telling[w] for w in asked.named if w not in around and w not in seen)
        / total,
    }


def rescored(said: Mapping[str, float]) -> float:
    """The figures as one score; scores of one question compare with each other only."""
    return sum(_WEIGHTS[name] * value for name, value in said.items())


@lru_cache(maxsize=1024)
def _folded_place(name: str, path: str) -> tuple[frozenset[str], list[str]]:
    around = folded_words(f"{name} {path}".replace("_", " "))
    return frozenset(around), folded_words(path.rsplit(" › ", 1)[-1])


def _sentence(weights: Mapping[str, float], held: Sequence[str], length: int) -> float:
    """The BM25 sum of a sentence of that many words by those it holds; less than the weight of all words."""
    norm = _K1 * (1 - _B + _B * length / _USUAL_SENTENCE)
    return sum(weights[word] * count / (count + norm) for word, count in Counter(held).items())


def _share_asked(asked: frozenset[tuple[str, str]], heading: Sequence[str]) -> float:
    """The share of a heading's neighbouring words that the question has in the same order."""
    pairs = list(pairwise(heading))
    return sum(pair in asked for pair in pairs) / len(pairs) if pairs else 0.0
