"""A question in, passages out: candidates of both sides, fused, best first, with their evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chatbot.retrieval.fusion import fuse
from chatbot.retrieval.lexical import Evidence, strength
from chatbot.types import Passage, SearchFilter, SearchMode, SearchResult

CANDIDATES = 50
"""Passages taken from each side before fusion; more changed no figure."""

_FAINTEST = 0.01
"""Keeps results without any evidence apart by score."""

JUDGED = 8
"""Passages whose texts are weighed as evidence."""

ANSWERING_STRENGTH = 0.3
"""At this strength 91–96 % of the answerable questions of four sets are answered, and 47–77 % of those
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


@dataclass(frozen=True, slots=True)
class Found:
    """The passages, best first, and how strongly the best of them speaks to the question (0..1)."""

    results: tuple[SearchResult, ...]
    strength: float

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
    ) -> Found:
        """The best passages that the filter allows; equal scores in the order of the documents.

        A result's score is the strength of the evidence scaled by its place in the ranking: between 0 and
        1, falling down the list.
        """
        candidates = self._index.query(question, max(limit, CANDIDATES), filter, mode)
        hits = candidates.hits
        scores = fuse(
            [hit.lexical for hit in hits], [hit.dense for hit in hits], candidates.dense_weight
        )
        ranked = sorted(
            zip(scores, hits, strict=True), key=lambda pair: (-pair[0], pair[1].passage_id)
        )
        # More than asked: evidence is judged on several, ties are put in the documents' order.
        ranked = ranked[: limit + JUDGED]
        known = self._index.passages([hit.passage_id for _, hit in ranked])
        ranked = [(score, hit) for score, hit in ranked if hit.passage_id in known]
        ranked.sort(key=lambda pair: (-pair[0], *_place(known[pair[1].passage_id])))
        judged = [hit for _, hit in ranked[:JUDGED]]
        trusted = candidates.dense_weight >= TRUSTED
        evidence = strength(
            question,
            candidates.word_weights,
            [_evidence(known[hit.passage_id], hit) for hit in judged],
            [hit.dense for hit in hits if hit.dense is not None] if trusted else [],
        )
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
        )


def _place(found: tuple[Passage, str]) -> tuple[str, str, int]:
    passage, document = found
    return document, passage.document_id, passage.ordinal


def _evidence(found: tuple[Passage, str], hit: Hit) -> Evidence:
    passage, document = found
    return Evidence(document, passage.path, passage.text, hit.lexical, hit.dense)


def _fall(distance: float) -> float:
    """1 at the best result, halved at every standard deviation below it."""
    return math.exp2(-distance)
