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

_SENTENCE = re.compile(r"\n|[.;!?](?=\s)")
_WORD = re.compile(r"\w+")
_USUAL_SENTENCE = 40
"""Words of a sentence at which its length neither helps nor harms."""
_HEADING = 25
"""A first line of more words is no heading."""
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
    telling = asked.telling
    total = sum(telling.values()) or 1.0
    in_order = sum(asked.weights[word] for word in asked.words) or 1.0
    folded = fold(text[:_MOST_READ]).lstrip()
    sentences = [_WORD.findall(part) for part in _SENTENCE.split(folded)]
    body = [word for sentence in sentences for word in sentence]
    around, last_label = _folded_place(name, path)
    first_line = sentences[0] if len(sentences[0]) <= _HEADING else []
    return {
        "score": lexical / ((_K1 + 1) * in_order),
        "row": _longest_row(asked, body) / in_order,
        "sentence": max(_sentence(telling, sentence) for sentence in sentences) / total,
        "heading": max(_share_asked(asked, last_label), _share_asked(asked, first_line)),
        "missing": sum(telling[w] for w in asked.named if w not in around and w not in body)
        / total,
    }


def rescored(said: Mapping[str, float]) -> float:
    """The figures as one score; scores of one question compare with each other only."""
    return sum(_WEIGHTS[name] * value for name, value in said.items())


@lru_cache(maxsize=1024)
def _folded_place(name: str, path: str) -> tuple[frozenset[str], list[str]]:
    around = folded_words(f"{name} {path}".replace("_", " "))
    return frozenset(around), folded_words(path.rsplit(" › ", 1)[-1])


def _sentence(weights: Mapping[str, float], sentence: Sequence[str]) -> float:
    """The sentence's own BM25 sum; less than the weight of all words."""
    held = [word for word in sentence if word in weights]
    if not held:
        return 0.0
    norm = _K1 * (1 - _B + _B * len(sentence) / _USUAL_SENTENCE)
    return sum(weights[word] * count / (count + norm) for word, count in Counter(held).items())


def _longest_row(asked: Asked, body: Sequence[str]) -> float:
    """The weight of the longest piece of the question that stands in the text word for word."""
    text = f" {' '.join(body)} "
    longest, end = 0.0, 0
    for start in range(len(asked.words)):
        end = max(end, start)
        while end < len(asked.words) and f" {' '.join(asked.words[start : end + 1])} " in text:
            end += 1
        longest = max(longest, sum(asked.weights[word] for word in asked.words[start:end]))
        if end == len(asked.words):
            break
    return longest


def _share_asked(asked: Asked, heading: Sequence[str]) -> float:
    """The share of a heading's neighbouring words that the question has in the same order."""
    pairs = list(pairwise(heading))
    return sum(pair in asked.pairs for pair in pairs) / len(pairs) if pairs else 0.0
