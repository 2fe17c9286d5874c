"""The words of all passages: BM25 in tantivy, on disk, grown and shrunk document by document.

Fields, each holding our own tokens joined by spaces (weights measured, docs/decisions.md):

    words      folded words of name, path and text     1.0   every language
    pairs      folded neighbours 'hop+dong'            0.7   Vietnamese passages: a word is several syllables
    title      folded words of name and path           0.4
    exact      words with their marks                  0.3   Vietnamese, asked only when the question has marks
    place      'dieu+35' from the path                 2.0   asked only when the question names an article
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from chatbot.library.embedders import readable_name
from chatbot.text import folded_words, has_marks, language_of, words

LEXICAL_VERSION = "1"

PAIRS_WEIGHT = 0.7
_TITLE_WEIGHT = 0.4
_EXACT_WEIGHT = 0.3
_PLACE_WEIGHT = 2.0
_LONGEST_QUESTION = 64
"""Distinct words that are looked up; of a longer question (a pasted page) the rarest of its start."""
_READ_OF_QUESTION = 4_000

_PLACE = re.compile(
    r"\b(phan|chuong|muc|dieu|khoan|diem|phu luc|article|section|chapter|clause|part|annex)\s+"
    r"([0-9]+[a-z]?|[ivxlc]+|[a-z])\b"
)


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage as the indexes see it; `conversation` is set for files attached to one."""

    id: str
    document_id: str
    name: str
    path: str
    text: str
    conversation: str | None


class LexicalIndex:
    """A tantivy folder. Additions and removals are seen by queries after `commit`."""

    def __init__(self, folder: Path) -> None:
        """Open or create. Raises ValueError or OSError when the files cannot be used."""
        import tantivy

        self._tantivy = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        builder.add_text_field("document", tokenizer_name="raw", index_option="basic")
        for field in ("words", "pairs", "title", "exact", "place"):
            builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema, str(folder))
        self._writer: Any = None
        self._index.reload()
        self._searcher = self._index.searcher()

    def ids(self) -> set[str]:
        """Every passage in the index."""
        everything = self._tantivy.Query.all_query()
        count = self._searcher.num_docs
        hits = self._searcher.search(everything, max(1, count), count=False).hits
        return {self._searcher.doc(address)["id"][0] for _, address in hits}

    def passages_of(self, document_ids: Sequence[str]) -> list[str]:
        """The passages of these documents, as they were committed last."""
        query = self._tantivy.Query.term_set_query(self._schema, "document", list(document_ids))
        count = max(1, self._searcher.num_docs)
        hits = self._searcher.search(query, count, count=False).hits
        return [self._searcher.doc(address)["id"][0] for _, address in hits]

    def add(self, passages: Iterable[IndexedPassage]) -> None:
        writer = self._open_writer()
        for passage in passages:
            writer.add_document(self._document(passage))

    def remove(self, passage_ids: Iterable[str] = (), document_ids: Iterable[str] = ()) -> None:
        writer = self._open_writer()
        for field, values in (("id", passage_ids), ("document", document_ids)):
            for value in values:
                writer.delete_documents_by_term(field, value)

    def commit(self) -> None:
        """Make what was added and removed visible and durable."""
        if self._writer is not None:
            self._writer.commit()
            self._index.reload()
            self._searcher = self._index.searcher()

    def rest(self) -> None:
        """Commit and let background merges end, so that the files keep still."""
        self.commit()
        if self._writer is not None:
            self._writer.wait_merging_threads()
            self._writer = None
            self._index.reload()
            self._searcher = self._index.searcher()

    def query(
        self, question: str, limit: int, document_ids: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids with their BM25 sums, best first; of those documents only, where given."""
        query = self._tantivy.Query
        occur = self._tantivy.Occur
        scored = self._clauses(question)
        if not scored:
            return []
        combined = query.boolean_query([(occur.Should, clause) for clause in scored])
        if document_ids is not None:
            allowed = query.term_set_query(self._schema, "document", list(document_ids))
            combined = query.boolean_query(
                [(occur.Must, combined), (occur.Must, query.const_score_query(allowed, 0.0))]
            )
        hits = self._searcher.search(combined, limit, count=False).hits
        return [(self._searcher.doc(address)["id"][0], score) for score, address in hits]

    def word_weights(self, question: str) -> dict[str, float]:
        """Each folded word of the question with its inverse document frequency (≥ 0)."""
        asked = terms(question[:_READ_OF_QUESTION])
        found = {word: self._rarity(word) for word in dict.fromkeys(asked)}
        rarest = set(sorted(found, key=lambda word: -found[word])[:_LONGEST_QUESTION])
        return {word: weight for word, weight in found.items() if word in rarest}

    def _rarity(self, word: str) -> float:
        return rarity(self._searcher.doc_freq("words", word), self._searcher.num_docs)

    def _clauses(self, question: str) -> list[Any]:
        question = question[:_READ_OF_QUESTION]
        asked = terms(question)
        neighbours = pairs(asked)
        if len(set(asked)) > _LONGEST_QUESTION:
            kept = self.word_weights(question)
            asked = [word for word in asked if word in kept]
            neighbours = [pair for pair in neighbours if kept.keys() >= set(pair.split("+"))]
        fields = [
            ("words", asked, 1.0),
            ("pairs", neighbours, PAIRS_WEIGHT),
            ("title", asked, _TITLE_WEIGHT),
            ("place", places(question), _PLACE_WEIGHT),
        ]
        if has_marks(question):
            exact = exact_terms(question)[: 2 * _LONGEST_QUESTION]
            fields.append(("exact", exact, _EXACT_WEIGHT))
        query = self._tantivy.Query
        return [
            query.boost_query(
                query.term_query(self._schema, field, token, "freq"), float(weight * count)
            )
            for field, tokens, weight in fields
            for token, count in Counter(tokens).items()
        ]

    def _document(self, passage: IndexedPassage) -> Any:
        document = self._tantivy.Document()
        document.add_text("id", passage.id)
        document.add_text("document", passage.document_id)
        heading = f"{readable_name(passage.name)} {passage.path}"
        title, body = terms(heading), terms(passage.text)
        document.add_text("words", " ".join(title + body))
        document.add_text("title", " ".join(title))
        document.add_text("place", " ".join(places(passage.path)))
        if language_of(f"{heading} {passage.text}") == "vi":
            document.add_text("pairs", " ".join(pairs(title) + pairs(body)))
            document.add_text("exact", " ".join(exact_terms(f"{heading}\n{passage.text}")))
        return document

    def _open_writer(self) -> Any:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=50_000_000, num_threads=1)
        return self._writer


def terms(text: str) -> list[str]:
    """Folded words, as indexed and as asked."""
    return folded_words(text.replace("_", " "))


def exact_terms(text: str) -> list[str]:
    """Lower-case words with their marks."""
    return [word.lower() for word in words(text.replace("_", " "))]


def pairs(tokens: Sequence[str]) -> list[str]:
    """Neighbouring words joined: ['hop', 'dong', 'lao'] → ['hop+dong', 'dong+lao']."""
    return [f"{left}+{right}" for left, right in pairwise(tokens)]


def places(text: str) -> list[str]:
    """References to numbered parts: 'Điều 35, khoản 2' → ['dieu+35', 'khoan+2']."""
    found = _PLACE.findall(" ".join(terms(text)))
    return [f"{kind.replace(' ', '+')}+{number}" for kind, number in found]


def rarity(containing: int, total: int) -> float:
    """Inverse document frequency as BM25 has it; 0 for a word in every passage."""
    return math.log(1 + (total - containing + 0.5) / (containing + 0.5))
