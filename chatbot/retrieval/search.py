"""A question in, passages out: candidates of both sides, fused, best first, with their evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from chatbot.retrieval.fusion import fuse
from chatbot.retrieval.lexical import Evidence, strength
from chatbot.retrieval.places import asked_place, stands_there
from chatbot.retrieval.rerank import Asked, Read, rescored
from chatbot.text import folded_words, language_of
from chatbot.types import Passage, SearchFilter, SearchMode, SearchResult

CANDIDATES = 50
"""Passages taken from each side before fusion; more changed no figure."""

_FAINTEST = 0.01
"""Keeps results without any evidence apart by score."""

ASKED_START, ASKED_END = 3_000, 1_000
"""Characters of a longer question (a pasted page) that are looked up: what is asked stands first or last."""

LOOKS = 3
"""How often is looked where what was found is gone again by the time it is read."""

READ = 20
"""Leading passages whose texts are read for a second look."""

DIVERSE = 8
"""First results among which no two say the same: as many as an answer is given. What repeats follows."""
_SAME = 0.95
"""The share of words that two passages have in common when one repeats the other."""

RERANKED = 20
"""Leading passages that a cross-encoder reads; it takes most of a second for so many on two cores."""

POINTING, MOST_REFERRED = 3, 2
"""Results whose references are followed, and articles that these may add."""

_BEHIND = 0.01
"""Deviations by which what is put behind others stays below them."""

NAMED_STRENGTH = 0.9
"""The evidence of a passage from the very place that the question names."""

JUDGED = 8
"""Passages whose texts are weighed as evidence."""

ANSWERING_STRENGTH = 0.31
"""At this strength 91–96 % of the answerable questions of four sets are answered, and 52–76 % of those
refused whose article was taken away (benchmarks/refusal.py)."""

TRUSTED = 0.3
"""From this dense weight on, the embedder knows the question's language and its meaning is heard."""


class Hit(Protocol):
    """A passage that one or both sides of the index found."""

    @property
    def passage_id(self) -> str: ...
    @property
    def lexical(self) -> float | None: ...
    @property
    def dense(self) -> float | None: ...
    @property
    def lexical_rank(self) -> int | None: ...
    @property
    def dense_rank(self) -> int | None: ...


class Candidates(Protocol):
    """What the index offers for one question."""

    @property
    def hits(self) -> Sequence[Hit]: ...
    @property
    def word_weights(self) -> Mapping[str, float]: ...
    @property
    def dense_weight(self) -> float: ...
    @property
    def question(self) -> str: ...
    @property
    def other(self) -> Mapping[str, float]: ...


class SearchIndex(Protocol):
    """What a search needs of the library."""

    def query(
        self,
        text: str,
        limit: int = 50,
        filter: SearchFilter = ...,  # noqa: A002  the domain's own word
        mode: SearchMode = "hybrid",
    ) -> Candidates: ...

    def passages(self, passage_ids: Sequence[str]) -> Mapping[str, tuple[Passage, str]]: ...

    def referred(self, passages: Sequence[Passage]) -> Sequence[tuple[str, str]]: ...

    def rerank(self, question: str, texts: Sequence[str]) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The passages, best first, and how strongly the best of them speaks to the question (0..1)."""

    results: tuple[SearchResult, ...]
    strength: float
    question: str = ""
    """What was looked up, where typing errors were put right; '' when it was looked up as asked."""

    @property
    def answers(self) -> bool:
        """Whether the evidence is strong enough to answer from; False: 'not in your documents'."""
        return self.strength >= ANSWERING_STRENGTH


class Search:
    """Finds the passages that answer a question."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index

    def find(
        self,
        question: str,
        filter: SearchFilter = SearchFilter(),  # noqa: A002, B008  frozen; the domain's own word
        limit: int = 8,
        mode: SearchMode = "hybrid",
        rerank: bool = False,
    ) -> Found:
        """The best passages that the filter allows; equal scores in the order of the documents.

        `rerank` lets the cross-encoder of the settings order the leading passages; raises ModelError when
        it cannot.
        A result's score is the strength of the evidence scaled by its place in the ranking: between 0 and
        1, falling down the list.
        """
        if len(question) > ASKED_START + ASKED_END:
            question = f"{question[:ASKED_START]} {question[1 - ASKED_END :]}"
        for _ in range(LOOKS):
            candidates = self._index.query(question, max(limit, CANDIDATES), filter, mode)
            ranked = _first_look(candidates)[: max(READ, limit + JUDGED)]
            known = self._index.passages([hit.passage_id for _, hit in ranked])
            if len(known) == len(ranked):
                break  # else a document was cut anew between the two: its passages have other ids now
        asked = candidates.question or question
        ranked = [(score, hit) for score, hit in ranked if hit.passage_id in known]
        ranked = _second_look(asked, candidates, ranked, known)
        if rerank:
            ranked = self._reranked(asked, ranked, known)
        ranked, named = _going_straight(asked, ranked, known)
        ranked.sort(key=lambda pair: (-pair[0], *_place(known[pair[1].passage_id])))
        ranked = _diverse(ranked, known)
        evidence = _strength(asked, candidates, ranked[:JUDGED], known)
        if named:
            evidence = max(evidence, NAMED_STRENGTH)
        return Found(
            tuple(
                SearchResult(
                    *known[hit.passage_id],
                    max(evidence, _FAINTEST) * _fall(ranked[0][0] - score),
                    hit.lexical_rank,
                    hit.dense_rank,
                )
                for score, hit in ranked[:limit]
            ),
            evidence,
            asked if asked != question else "",
        )

    def referred(self, results: Sequence[SearchResult]) -> tuple[SearchResult, ...]:
        """Articles that the first results point to ('theo quy định tại Điều 12'), to be read behind them.

        At most two, none of which is among the results; `referred_by` names the passage that points there.
        """
        pointers = self._index.referred([result.passage for result in results[:POINTING]])
        taken = {result.passage.id for result in results}
        wanted = [(source, target) for source, target in pointers if target not in taken]
        wanted = wanted[:MOST_REFERRED]
        known = self._index.passages([target for _, target in wanted])
        last = results[-1].score if results else 0.0
        return tuple(
            SearchResult(*known[target], last * _BEHIND, referred_by=source)
            for source, target in wanted
            if target in known
        )

    def _reranked(self, asked: str, ranked: Ranked, known: Known) -> Ranked:
        leading, rest = ranked[:RERANKED], ranked[RERANKED:]
        texts = [
            f"{name} › {passage.path}\n{passage.text}"
            for passage, name in (known[hit.passage_id] for _, hit in leading)
        ]
        scores = fuse(self._index.rerank(asked, texts), [None] * len(texts), 0.0)
        return _followed_by(scores, leading, rest)


Ranked = list[tuple[float, Hit]]
Known = Mapping[str, tuple[Passage, str]]


def _first_look(candidates: Candidates) -> Ranked:
    """Both sides' scores as one, best first."""
    hits = candidates.hits
    scores = fuse(
        [hit.lexical for hit in hits], [hit.dense for hit in hits], candidates.dense_weight
    )
    return sorted(zip(scores, hits, strict=True), key=lambda pair: (-pair[0], pair[1].passage_id))


def _second_look(asked: str, candidates: Candidates, ranked: Ranked, known: Known) -> Ranked:
    """The leading passages in the order that reading them gives; the others stay behind them."""
    leading, rest = ranked[:READ], ranked[READ:]
    if not any(hit.lexical for _, hit in leading):
        return ranked
    question = Asked.of(asked, candidates.word_weights, candidates.other)
    read = [
        Read(name, passage.path, passage.text, hit.lexical or 0.0)
        for hit in (hit for _, hit in leading)
        for passage, name in [known[hit.passage_id]]
    ]
    scores = fuse(
        rescored(question, read), [hit.dense for _, hit in leading], _told_by_meaning(candidates)
    )
    return _followed_by(scores, leading, rest)


def _told_by_meaning(candidates: Candidates) -> float:
    """What similarity counts beside reading: spelling alone finds passages, it does not judge them."""
    return candidates.dense_weight if candidates.dense_weight >= TRUSTED else 0.0


def _followed_by(scores: Sequence[float], leading: Ranked, rest: Ranked) -> Ranked:
    """The leading hits with new scores, the rest in their old order below them."""
    gap = min(0.0, min(scores) - rest[0][0] - _BEHIND) if scores and rest else 0.0
    return [
        *((score, hit) for score, (_, hit) in zip(scores, leading, strict=True)),
        *((score + gap, hit) for score, hit in rest),
    ]


def _going_straight(asked: str, ranked: Ranked, known: Known) -> tuple[Ranked, bool]:
    """Passages that stand where the question says go before all others; whether there are any."""
    place = asked_place(asked)
    if place is None or not ranked:
        return ranked, False
    best = max(score for score, _ in ranked)
    fits = [
        stands_there(place, known[hit.passage_id][1], known[hit.passage_id][0].path)
        for _, hit in ranked
    ]
    straight = [
        (best + fit - known[hit.passage_id][0].ordinal * 1e-6 if fit else score, hit)
        for fit, (score, hit) in zip(fits, ranked, strict=True)
    ]
    return straight, any(fits)


def _diverse(ranked: Ranked, known: Known) -> Ranked:
    """What only repeats one of the first results goes behind them."""
    kept: Ranked = []
    repeated: Ranked = []
    texts: list[str] = []
    for score, hit in ranked[:READ]:
        if len(kept) == DIVERSE:
            break
        text = known[hit.passage_id][0].text
        if any(_repeats(text, other) for other in texts):
            repeated.append((score, hit))
        else:
            kept.append((score, hit))
            texts.append(text)
    if not repeated:
        return ranked
    last = kept[-1][0] - _BEHIND
    rest = ranked[len(kept) + len(repeated) :]
    return [*kept, *((min(score, last), hit) for score, hit in [*repeated, *rest])]


def _repeats(text: str, other: str) -> bool:
    """Whether two texts have nearly all words in common, and every word with a figure."""
    if min(len(text), len(other)) < _SAME * max(len(text), len(other)):
        return False
    words, others = _words_of(text), _words_of(other)
    common = len(words & others)
    if common < _SAME * (len(words) + len(others) - common):
        return False
    return not any(character.isdigit() for word in words ^ others for character in word)


@lru_cache(maxsize=64)
def _words_of(text: str) -> frozenset[str]:
    return frozenset(folded_words(text))


def _strength(asked: str, candidates: Candidates, judged: Ranked, known: Known) -> float:
    """The evidence in the leading passages; of a question in another language, for words that stand for its own."""
    evidence = [_evidence(known[hit.passage_id], hit) for _, hit in judged]
    heard = _told_by_meaning(candidates)
    near = [hit.dense for hit in candidates.hits if hit.dense is not None] if heard else []
    own = strength(asked, candidates.word_weights, evidence, near)
    if not evidence or not candidates.other:
        return own
    if language_of(asked) == language_of(evidence[0].text):
        return own
    return max(own, strength(" ".join(candidates.other), candidates.other, evidence))


def _place(found: tuple[Passage, str]) -> tuple[str, str, int]:
    passage, document = found
    return document, passage.document_id, passage.ordinal


def _evidence(found: tuple[Passage, str], hit: Hit) -> Evidence:
    passage, document = found
    return Evidence(document, passage.path, passage.text, hit.lexical, hit.dense)


def _fall(distance: float) -> float:
    """1 at the best result, halved at every standard deviation below it."""
    return math.exp2(-distance)
