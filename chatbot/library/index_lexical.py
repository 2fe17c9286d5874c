"""The words of all passages: BM25 in tantivy, on disk, grown and shrunk document by document.

Fields, each holding our own tokens joined by spaces (weights measured, docs/decisions.md):

    words      folded words of name, path and text     1.0   every language
    pairs      folded neighbours 'hop+dong'            0.7   Vietnamese passages: a word is several syllables
    title      folded words of name and path           0.4
    place      'dieu+35' from the path                 2.0   asked only when the question names an article

Words that only ask or join ('thì', 'what') count 0.3. A word that the index does not hold is taken for a
typing error where one letter makes it a word that stands beside the same neighbours. What is said in
everyday words, or in the other language, is also looked for in official words (other_words.py).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from chatbot.library.embedders import readable_name
from chatbot.library.other_words import other_words
from chatbot.text import fold, folded_words, joining_words, language_of, nfc

LEXICAL_VERSION = "3"

PAIRS_WEIGHT = 0.7
_TITLE_WEIGHT = 0.4
_PLACE_WEIGHT = 2.0
_JOINING_WEIGHT = 0.3
_OTHER_WEIGHT = 0.5
_MOST_CORRECTED = 4
"""Unknown words of a question that are looked at; each may cost a thousand look-ups of one microsecond."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_INITIALS = 2
"""From so many words on, a name is also found by its initials: 'blld' for 'Bộ luật Lao động'."""
_LONGEST_QUESTION = 64
"""Distinct words that are looked up; of a longer question (a pasted page) the rarest of its start."""
_READ_OF_QUESTION = 4_000

_WRITTEN = re.compile(r"\w+")
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
    title: str = ""
    """What the document calls itself, where its name does not say it."""


class LexicalIndex:
    """A tantivy folder. Additions and removals are seen by queries after `commit`."""

    def __init__(self, folder: Path) -> None:
        """Open or create. Raises ValueError or OSError when the files cannot be used."""
        import tantivy

        self._tantivy = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        builder.add_text_field("document", tokenizer_name="raw", index_option="basic")
        for field in ("words", "pairs", "title", "place"):
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

    def other_weights(self, question: str) -> dict[str, float]:
        """The words that other_words adds to the question, with half their rarity."""
        added = new_words(map(terms, other_words(question[:_READ_OF_QUESTION])), terms(question))
        return {word: _OTHER_WEIGHT * self._rarity(word) for word in added}

    def _rarity(self, word: str) -> float:
        return rarity(self._searcher.doc_freq("words", word), self._searcher.num_docs)

    def corrected(self, question: str) -> str:
        """The question with words that the index lacks put right where a likely one is one slip away."""
        read = question[:_READ_OF_QUESTION]
        spelt = [(match.span(), match[0]) for match in _WRITTEN.finditer(nfc(read))]
        folded = [fold(word) for _, word in spelt]
        unknown = [
            number
            for number, word in enumerate(folded)
            if len(word) > 2 and word.isalpha() and not self._searcher.doc_freq("words", word)
        ]
        if not unknown or len(unknown) > max(2, len(folded) // 2):
            return question  # nothing to do, or a question in a language the library does not have
        result, after = [], 0
        for number in unknown[:_MOST_CORRECTED]:
            meant = self._meant(folded, number)
            if meant:
                folded[number] = meant
                (start, end), _ = spelt[number]
                result += [read[after:start], meant]
                after = end
        return (
            "".join([*result, nfc(read)[after:], question[_READ_OF_QUESTION:]])
            if result
            else question
        )

    def _meant(self, folded: Sequence[str], number: int) -> str | None:
        """The indexed word one slip away that stands most often beside the word's neighbours."""
        count = self._searcher.doc_freq
        before = folded[number - 1] if number else ""
        after = folded[number + 1] if number + 1 < len(folded) else ""
        best, most = None, (0, 0)
        for candidate in slips(folded[number]):
            alone = count("words", candidate)
            if not alone:
                continue
            beside = count("pairs", f"{before}+{candidate}") + count(
                "pairs", f"{candidate}+{after}"
            )
            if (beside, alone) > most and (beside or len(candidate) > 4):
                best, most = candidate, (beside, alone)
        return best

    def _clauses(self, question: str) -> list[Any]:
        question = question[:_READ_OF_QUESTION]
        asked = terms(question)
        neighbours = pairs(asked)
        joining = joining_words(question)
        if len(set(asked)) > _LONGEST_QUESTION:
            kept = self.word_weights(question)
            asked = [word for word in asked if word in kept]
            neighbours = [pair for pair in neighbours if kept.keys() >= set(pair.split("+"))]
        other = [terms(term) for term in other_words(question)]
        fields = [
            ("words", asked, 1.0),
            ("pairs", neighbours, PAIRS_WEIGHT),
            ("title", asked, _TITLE_WEIGHT),
            ("place", places(question), _PLACE_WEIGHT),
            ("words", new_words(other, asked), _OTHER_WEIGHT),
            ("pairs", new_words(map(pairs, other), neighbours), _OTHER_WEIGHT * PAIRS_WEIGHT),
        ]
        query = self._tantivy.Query
        return [
            query.boost_query(
                query.term_query(self._schema, field, token, "freq"),
                float(weight * count * (_JOINING_WEIGHT if fold(token) in joining else 1.0)),
            )
            for field, tokens, weight in fields
            for token, count in Counter(tokens).items()
        ]

    def _document(self, passage: IndexedPassage) -> Any:
        document = self._tantivy.Document()
        document.add_text("id", passage.id)
        document.add_text("document", passage.document_id)
        title, short, place = _heading(passage.name, passage.title, passage.path)
        body = terms(passage.text)
        document.add_text("words", " ".join(title + body))
        document.add_text("title", " ".join(title + short))
        document.add_text("place", " ".join(place))
        if language_of(f"{passage.name} {passage.title} {passage.path} {passage.text}") == "vi":
            document.add_text("pairs", " ".join(pairs(title) + pairs(body)))
        return document

    def _open_writer(self) -> Any:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=50_000_000, num_threads=1)
        return self._writer


def terms(text: str) -> list[str]:
    """Folded words, as indexed and as asked."""
    return folded_words(text.replace("_", " "))


@lru_cache(maxsize=1024)
def _heading(name: str, title: str, path: str) -> tuple[list[str], list[str], list[str]]:
    """What a passage's place in the library adds to its words, title and place; many share it."""
    name = readable_name(name)
    short = [initials(name), initials(title)]
    return terms(f"{name} {title} {path}"), [*filter(None, short)], places(path)


def pairs(tokens: Sequence[str]) -> list[str]:
    """Neighbouring words joined: ['hop', 'dong', 'lao'] → ['hop+dong', 'dong+lao']."""
    return list(map("+".join, pairwise(tokens)))


def places(text: str) -> list[str]:
    """References to numbered parts: 'Điều 35, khoản 2' → ['dieu+35', 'khoan+2']."""
    found = _PLACE.findall(" ".join(terms(text)))
    return [f"{kind.replace(' ', '+')}+{number}" for kind, number in found]


def initials(name: str) -> str:
    """'Bộ luật Lao động 2019' → 'blld'; '' for a name of one word."""
    letters = [word[0] for word in terms(name) if not word[0].isdigit()]
    return "".join(letters) if len(letters) >= _INITIALS else ""


def slips(word: str) -> Iterator[str]:
    """Every word that is one slip away: two letters swapped, one missing, one too many, one wrong."""
    halves = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    yield from (a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1 and b[0] != b[1])
    yield from (a + b[1:] for a, b in halves if b and len(word) > 2)
    yield from (a + letter + b for a, b in halves for letter in _LETTERS)
    yield from (a + letter + b[1:] for a, b in halves if b for letter in _LETTERS if letter != b[0])


def new_words(terms: Iterable[Sequence[str]], known: Iterable[str]) -> list[str]:
    """Each token of these lists once, without those known."""
    found = dict.fromkeys(token for tokens in terms for token in tokens)
    return [token for token in found if token not in {*known}]


def rarity(containing: int, total: int) -> float:
    """Inverse document frequency as BM25 has it; 0 for a word in every passage."""
    return math.log(1 + (total - containing + 0.5) / (containing + 0.5))
