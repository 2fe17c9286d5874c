"""A second look at the leading passages: their texts are read, not only counted.

BM25 sums rare words wherever they stand. Reading tells more: whether one sentence holds most of the
question, whether its words stand in a row, whether the heading was asked for, whether a name or number
is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise, repeat

from chatbot.text import Remembered, fold, folded_words, joining_words, words

JOINING = 0.3
"""What a word that only asks or joins counts for, of any other word's weight."""

_WEIGHTS = {"score": 12.8, "row": 3.0, "sentence": 5.7, "heading": 2.1, "missing": -3.1}
"""Fitted to put the gold passage first, the halves of three sets checked crosswise (docs/decisions.md)."""

_TOKEN = re.compile(r"\w+|\n|[.;!?](?=\s|\Z)")
_BREAKS = dict.fromkeys("\n.;!?", -1)
_tokens_of = Remembered(lambda written: _TOKEN.findall(fold(written)))
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


@dataclass(frozen=True, slots=True)
class Read:
    """A passage that is read: where it stands, what it says, and its BM25 sum."""

    name: str
    path: str
    text: str
    lexical: float


def rescored(asked: Asked, passages: Sequence[Read]) -> list[float]:
    """A score for each passage from what speaks for it; scores of one question compare with each other only."""
    texts = [_tokens(passage.text.lstrip()[:_MOST_READ]) for passage in passages]
    sentences, rows = _best_sentences_and_rows(asked, texts)
    total = sum(asked.telling.values()) or 1.0
    in_order = sum(asked.weights[word] for word in asked.words) or 1.0
    return [
        _WEIGHTS["score"] * read.lexical / ((_K1 + 1) * in_order)
        + _WEIGHTS["row"] * row / in_order
        + _WEIGHTS["sentence"] * sentence / total
        + _WEIGHTS["heading"] * _heading_asked(asked, read, text)
        + _WEIGHTS["missing"] * _missing(asked, read, text) / total
        for read, text, sentence, row in zip(passages, texts, sentences, rows, strict=True)
    ]


def _best_sentences_and_rows(
    asked: Asked, texts: Sequence[Sequence[str]]
) -> tuple[list[float], list[float]]:
    """For each text the BM25 sum of the sentence with the highest one, and the weight of the longest row.

    All words of all texts are one array (0: not asked for, -1: a sentence or line ends): word by word this
    was half the time that a search took.
    """
    import numpy as np

    known = {word: number for number, word in enumerate({**asked.weights, **asked.telling}, 1)}
    size = len(known) + 1
    weights, telling = np.zeros(size), np.zeros(size)
    neighbours = np.zeros((size, size), bool)
    for word, number in known.items():
        weights[number], telling[number] = (
            asked.weights.get(word, 0.0),
            asked.telling.get(word, 0.0),
        )
    for left, right in asked.pairs:
        neighbours[known[left], known[right]] = True

    number_of = {**known, **_BREAKS}.get
    tokens = np.fromiter(map(number_of, chain.from_iterable(texts), repeat(0)), np.int64)
    text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    ends = tokens < 0
    sentence: np.ndarray = np.cumsum(ends) - ends
    length = np.bincount(sentence, ~ends)
    places = np.flatnonzero(tokens > 0)
    words, word_text = tokens[places], text[places]

    counts = np.bincount(sentence[places] * size + words, minlength=len(length) * size)
    counts = counts.reshape(-1, size)
    norm = _K1 * (1 - _B + _B * length / _USUAL_SENTENCE)
    best_sentence = np.zeros(len(texts))
    np.maximum.at(best_sentence, text[ends], counts / (counts + norm[:, None]) @ telling)

    next_to = np.diff(np.cumsum(~ends)[places]) == 1
    begins = np.ones(len(words), bool)
    begins[1:] = ~(next_to & (np.diff(word_text) == 0) & neighbours[words[:-1], words[1:]])
    longest_row = np.zeros(len(texts))
    row_weights = np.bincount(np.cumsum(begins) - 1, weights[words])
    np.maximum.at(longest_row, word_text[begins], row_weights)
    return best_sentence.tolist(), longest_row.tolist()


def _heading_asked(asked: Asked, read: Read, tokens: Sequence[str]) -> float:
    """The share of neighbouring words, in the heading or in a short first line, that the question has in the same order."""
    line = tokens[: tokens.index("\n")]
    first = [token for token in line if token not in _BREAKS] if len(line) <= 2 * _HEADING else []
    headings = [_folded_place(read.name, read.path)[1], first if len(first) <= _HEADING else []]
    return max(_share_asked(asked.pairs, heading) for heading in headings)


def _missing(asked: Asked, read: Read, tokens: Sequence[str]) -> float:
    """What the names and numbers weigh that neither the passage nor its place holds."""
    around, _ = _folded_place(read.name, read.path)
    return sum(asked.telling[word] for word in asked.named.difference(around, tokens))


def _tokens(text: str) -> list[str]:
    """The text's folded words, and what ends its lines and sentences."""
    pieces = text.replace("\n", " \n ").split(" ")
    return [*chain.from_iterable(map(_tokens_of.__getitem__, pieces)), "\n"]


@lru_cache(maxsize=1024)
def _folded_place(name: str, path: str) -> tuple[frozenset[str], list[str]]:
    around = folded_words(f"{name} {path}".replace("_", " "))
    return frozenset(around), folded_words(path.rsplit(" › ", 1)[-1])


def _share_asked(asked: frozenset[tuple[str, str]], heading: Sequence[str]) -> float:
    """The share of a heading's neighbouring words that the question has in the same order."""
    if asked.isdisjoint(pairwise(heading)):
        return 0.0
    pairs = list(pairwise(heading))
    return sum(pair in asked for pair in pairs) / len(pairs)
