"""What each part of the search is worth: every default switched off in turn, on the same questions.

    python -m benchmarks.ablation [--data ../shared/data] [--questions 200] [SET …]      a set with + : without marks

Prints recall@1 and recall@10 as shipped and, for each part, what is lost without it: as shipped minus
without, with the paired 95 % bootstrap interval; one that excludes 0 is marked *. The built-in embedder;
words and vectors are searched in this process, exactly, in the code that ships.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from chatbot.evaluation.datasets import Dataset, load_dataset
from chatbot.evaluation.metrics import difference_interval
from chatbot.evaluation.retrieval import ask
from chatbot.library import index_lexical
from chatbot.library.embedders import SurfaceEmbedder, contextual_text
from chatbot.library.index import Candidates, _ranked
from chatbot.library.index_lexical import IndexedPassage, LexicalIndex
from chatbot.retrieval import rerank, search
from chatbot.retrieval.search import Search
from chatbot.settings import PROJECT
from chatbot.text import nfc
from chatbot.types import Passage, SearchFilter, SearchMode

SETS = ("alqac-vi", "alqac-vi+", "xquad-vi", "xquad-vi+", "xquad-en", "nq-en")
PARTS: Mapping[str, Sequence[tuple[object, str, object]]] = {
    "pairs of syllables": [(index_lexical, "PAIRS_WEIGHT", 0.0)],
    "title field": [(index_lexical, "_TITLE_WEIGHT", 0.0)],
    "place field": [(index_lexical, "_PLACE_WEIGHT", 0.0)],
    "joining words count less": [(index_lexical, "_JOINING_WEIGHT", 1.0), (rerank, "JOINING", 1.0)],
    "typing errors put right": [(LexicalIndex, "corrected", lambda _, question: question)],
    "everyday words": [(index_lexical, "other_words", lambda _: [])],
    "spelling vectors": [(SurfaceEmbedder, "weight", lambda *_: 0.0)],
    "second look": [(search, "READ", 0)],
    "going straight to a place": [(search, "asked_place", lambda _: None)],
    "no repetition": [(search, "_repeats", lambda *_: False)],
}


@dataclass
class Exact:
    """The index without its process: tantivy as shipped, vectors compared one by one."""

    data: Dataset
    words: LexicalIndex
    embedder: SurfaceEmbedder
    vectors: np.ndarray

    def query(
        self,
        text: str,
        limit: int = 50,
        filter: SearchFilter = SearchFilter(),  # noqa: A002, ARG002, B008
        mode: SearchMode = "hybrid",  # noqa: ARG002
    ) -> Candidates:
        question = self.words.corrected(text)
        similar = self.vectors @ self.embedder.embed([question], "query")[0]
        lexical = {int(id_): score for id_, score in self.words.query(question, limit)}
        found = dict.fromkeys([*lexical, *np.argsort(-similar)[:limit].tolist()])
        return Candidates(
            _ranked([(str(n), lexical.get(n), float(similar[n])) for n in found]),
            self.words.word_weights(question),
            self.embedder.weight("en"),
            question=question,
            other=self.words.other_weights(question),
        )

    def passages(self, passage_ids: Sequence[str]) -> dict[str, tuple[Passage, str]]:
        found = {}
        for id_ in passage_ids:
            document = self.data.documents[int(id_)]
            text = nfc(document.text)
            passage = Passage(id_, document.id, 0, text, 0, len(text), None, "")
            found[id_] = (passage, nfc(document.title))
        return found

    def referred(self, passages: Sequence[Passage]) -> list[tuple[str, str]]:  # noqa: ARG002
        return []

    def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        raise NotImplementedError


@contextlib.contextmanager
def prepared(data: Dataset) -> Iterator[Search]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        words = LexicalIndex(Path(folder))
        texts = [(nfc(d.title), nfc(d.text)) for d in data.documents]
        words.add(
            IndexedPassage(str(number), data.documents[number].id, title, "", text, None)
            for number, (title, text) in enumerate(texts)
        )
        words.rest()
        embedder = SurfaceEmbedder()
        embedded = [contextual_text(title, "", text) for title, text in texts]
        yield Search(Exact(data, words, embedder, embedder.embed(embedded, "passage")))


def hits(finder: Search, data: Dataset, marks: bool, part: str | None) -> dict[int, list[float]]:
    """Whether each question's gold is in the first k, with that part switched off."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in PARTS[part] if part else ():
            stack.enter_context(patch.object(owner, name, value))
        rows, _ = ask(finder, data.questions, strip_accents=not marks)
    return {k: [row[f"recall@{k}"] for row in rows] for k in (1, 10)}


def told(shipped: list[float], without: list[float]) -> str:
    low, high = difference_interval(shipped, without)
    gain = sum(shipped) / len(shipped) - sum(without) / len(without)
    star = "*" if low > 0 or high < 0 else ""
    return f"{gain:+.3f} [{low:+.3f} {high:+.3f}]{star}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--parts", nargs="*", default=list(PARTS))
    options = parser.parse_args()
    for name in options.sets:
        data = load_dataset(options.data / name.rstrip("+"))
        drawn = sorted(data.questions, key=lambda q: zlib.crc32(q.id.encode()))[: options.questions]
        data = Dataset(data.name, data.documents, tuple(drawn))
        marks = not name.endswith("+")
        with prepared(data) as finder:
            shipped = hits(finder, data, marks, None)
            means = {k: sum(values) / len(values) for k, values in shipped.items()}
            print(
                f"{name}, {len(drawn)} questions: {means[1]:.3f} first, {means[10]:.3f} in ten",
                flush=True,
            )
            for part in options.parts:
                without = hits(finder, data, marks, part)
                figures = "   ".join(told(shipped[k], without[k]) for k in (1, 10))
                print(f"  {part:28} {figures}", flush=True)


if __name__ == "__main__":
    main()
