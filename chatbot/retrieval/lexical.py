"""How strongly the passages found speak to the question: of words, and of meaning where it is trusted.

Good evidence holds the question's rare words close together, in the question's order, and stands out:
the best passage scores clearly above the ones after it. A passage about something else shares a few
words with the question, as many others do. Words that only ask count nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, pstdev
from typing import TypeVar

from chatbot.text import asked_about, fold, folded_words, language_of, words

Key = TypeVar("Key")

_WEIGHTS = {
    "words that stand out": 4.9,
    "words close together": 2.85,
    "ahead of the next": 2.6,
    "pairs": 0.7,
    "heading": 0.6,
    "names missing": -4.0,
    "Vietnamese": -1.15,
    "meaning heard": -1.55,
    "meaning that stands out": 0.4,
}
_OFFSET = -3.2
"""Logistic coefficients (benchmarks/refusal.py, docs/decisions.md). Vietnamese is lower because its
syllables are shared by chance more often than English words."""

_FLOOR = 1.0
"""Added to every word's rarity: in a small library the subject's own words are in every passage."""
_LEADING = 3
"""Passages of which each is weighed; a search does not always put the right one first."""
_CLOSE = 40
"""Words of a passage within which the question's words stand together; about two sentences."""
_ALONE = 0.6
"""How much a passage stands out when there are too few others to compare with."""
_HEADING = 25
"""Words of a passage's first line that may be its heading."""
_STEM = 5
"""Letters by which words are the same: 'graduated' and 'graduation', 'days' and 'day'."""
_NEAREST = 6
"""Similarities at the top that may all be answers; the best one is compared with those below."""
_FEWEST_NEAR = 8
"""With fewer similarities, nothing can be told to stand out."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage as it is weighed: where it stands, what it says, and its scores of either side."""

    name: str
    path: str
    text: str
    lexical: float | None
    dense: float | None = None


def strength(
    question: str,
    word_weights: Mapping[str, float],
    passages: Sequence[Evidence],
    similarities: Sequence[float] = (),
) -> float:
    """The evidence (0..1) in the strongest of the first three passages; they come best first.

    `word_weights` are the question's folded words with their rarity. `similarities` are those of all
    candidates, empty when the embedder is not trusted to tell meaning. 0 when neither words nor meaning
    have anything to say.
    """
    asked = _Asked.of(question, word_weights)
    return max(
        (_likelihood(_features(asked, leading, similarities)) for leading in _leads(passages)),
        default=0.0,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as passages are weighed by it: its stems, neighbours and names with their weights."""

    stems: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]
    named: Mapping[str, float]
    neighbours: frozenset[tuple[str, str]]
    vietnamese: bool

    @staticmethod
    def of(question: str, word_weights: Mapping[str, float]) -> _Asked:
        runs = [[word for word in run if word in word_weights] for run in asked_about(question)]
        stems = _lightest(
            (_stem(word), word_weights[word] + _FLOOR) for run in runs for word in run
        )
        return _Asked(
            stems,
            {
                (left, right): math.sqrt(word_weights[left] * word_weights[right])
                for run in runs
                for left, right in pairwise(run)
            },
            {_stem(word): stems[_stem(word)] for word in _names(question) if _stem(word) in stems},
            frozenset(pairwise(folded_words(question))),
            language_of(question) == "vi",
        )


def _leads(passages: Sequence[Evidence]) -> Iterator[Sequence[Evidence]]:
    """The passages with each of the first three in turn put first: the answer is not always the first."""
    for place in range(min(_LEADING, len(passages))):
        yield [passages[place], *passages[:place], *passages[place + 1 :]]


def _likelihood(said: Mapping[str, float]) -> float:
    if not said:
        return 0.0
    evidence = math.fsum(_WEIGHTS[name] * value for name, value in said.items())
    return 1 / (1 + math.exp(-(evidence + _OFFSET)))


def _features(
    asked: _Asked, passages: Sequence[Evidence], similarities: Sequence[float]
) -> dict[str, float]:
    """What speaks for the first passage, by name; empty when nothing does."""
    best = passages[0]
    plain = _words(f"{best.name}\n{best.path}\n{best.text}")
    stems = [_stem(word) for word in plain]
    present = set(stems)
    covered = _share(asked.stems, present)
    meaning = _meaning(best.dense, similarities)
    if not covered and not meaning:
        return {}
    others = [p.lexical or 0.0 for p in passages[1:] if p.text != best.text]
    missing = sum(weight for name, weight in asked.named.items() if name not in present)
    return {
        "words that stand out": covered * _standing_out(best.lexical or 0.0, others),
        "words close together": _share_close(asked.stems, stems),
        "ahead of the next": _ahead(best.lexical or 0.0, others),
        "pairs": _share(asked.pairs, set(pairwise(plain))) if asked.pairs else covered,
        "heading": _heading_asked(asked, best),
        "names missing": missing / (sum(asked.stems.values()) or 1.0),
        "Vietnamese": float(asked.vietnamese),
        "meaning heard": float(meaning is not None),
        "meaning that stands out": meaning or 0.0,
    }


def _lightest(weighted: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Each stem with the weight of its commonest word."""
    found: dict[str, float] = {}
    for stem, weight in weighted:
        found[stem] = min(weight, found.get(stem, weight))
    return found


def _share(weights: Mapping[Key, float], present: set[Key]) -> float:
    total = sum(weights.values())
    return sum(w for key, w in weights.items() if key in present) / total if total > 0 else 0.0


def _share_close(weights: Mapping[str, float], text: Sequence[str]) -> float:
    """The largest share of the words that stand within `_CLOSE` words of the text."""
    places = [(place, word) for place, word in enumerate(text) if word in weights]
    inside: Counter[str] = Counter()
    held = most = 0.0
    first = 0
    for place, word in places:
        held += 0.0 if inside[word] else weights[word]
        inside[word] += 1
        while place - places[first][0] >= _CLOSE:
            left = places[first][1]
            inside[left] -= 1
            held -= 0.0 if inside[left] else weights[left]
            first += 1
        most = max(most, held)
    total = sum(weights.values())
    return most / total if total > 0 else 0.0


def _standing_out(best: float, others: Sequence[float]) -> float:
    """How far (0..1) the best score lies above those of the third to the sixth passage."""
    if best <= 0:
        return 0.0
    later = others[1:5]
    return max(0.0, 1 - fmean(later) / best) if later else _ALONE


def _ahead(best: float, others: Sequence[float]) -> float:
    """How far (0..1) the best score lies above any other."""
    return max(0.0, 1 - max(others) / best) if best > 0 and others else 0.0


def _heading_asked(asked: _Asked, best: Evidence) -> float:
    """The share of a heading's neighbouring words that the question has in the same order."""
    first_line = " ".join(best.text.lstrip().split("\n", 1)[0].split()[:_HEADING])
    shares = [0.0]
    for heading in (best.path.rsplit(" › ", 1)[-1], first_line):
        if asked.neighbours.isdisjoint(pairwise(folded_words(heading))):
            continue  # what the heading is about need not be worked out
        own = list(pairwise(word for run in asked_about(heading) for word in run))
        if own:
            shares.append(sum(pair in asked.neighbours for pair in own) / len(own))
    return max(shares)


def _names(question: str) -> set[str]:
    """The folded words that name or number something: figures, and capitals after the first word."""
    return {fold(w) for w in words(question)[1:] if w[0].isupper()} | {
        w for w in folded_words(question) if w.isdigit()
    }


def _meaning(best: float | None, similarities: Sequence[float]) -> float | None:
    """How many deviations the best passage's similarity lies above the others'; None with too few of them.

    Models differ in where their similarities lie and how wide they spread; this hears neither.
    """
    if len(similarities) < _FEWEST_NEAR:
        return None
    others = sorted(similarities, reverse=True)[min(_NEAREST, len(similarities) // 4) :]
    deviation = pstdev(others)
    if best is None or deviation < 1e-9:
        return 0.0
    return max(0.0, (best - fmean(others)) / deviation)


@lru_cache(maxsize=16_384)
def _stem(word: str) -> str:
    return word[:_STEM] if len(word) > _STEM else word.rstrip("s") if len(word) > 3 else word


def _words(text: str) -> list[str]:
    return folded_words(text.replace("_", " "))
