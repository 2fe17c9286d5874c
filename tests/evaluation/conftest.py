"""Documents put straight into the store, cut as a test says, and the real index over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest

from chatbot.database import Database
from chatbot.evaluation.quality import Live, Quality
from chatbot.library.chunking import Draft
from chatbot.library.index import Index
from chatbot.library.readers import Reading
from chatbot.library.store import DocumentStore
from chatbot.retrieval.search import Search
from chatbot.settings import Paths
from chatbot.types import Document, PageText, ReadDocument

AddDocument = Callable[..., Document]


def reading(text: str, cuts: Sequence[int] = (), path: str = "") -> Reading:
    """A text of one page, cut at these places."""
    borders = [0, *cuts, len(text)]
    drafts = tuple(Draft(text[start:end], start, end, 1, path) for start, end in pairwise(borders))
    return Reading(ReadDocument((PageText(text, 1),)), drafts, "vi")


@pytest.fixture
def store(database: Database, paths: Paths) -> DocumentStore:
    return DocumentStore(database, paths, spare_bytes=0)


@pytest.fixture
def add(store: DocumentStore) -> AddDocument:
    """Keep a text as a ready document: add(name, text, cuts, path)."""

    def added(name: str, text: str, cuts: Sequence[int] = (), path: str = "") -> Document:
        kept = store.keep(f"{name}\0{text}".encode(), name).document
        store.commit(kept.id, reading(text, cuts, path), "", None)
        return store.get(kept.id)

    return added


@pytest.fixture
def index(database: Database, paths: Paths) -> Iterator[Index]:
    opened = Index(database, paths.index, "hearth-surface", "test")
    yield opened
    opened.close()


@pytest.fixture
def quality(database: Database, store: DocumentStore, paths: Paths, index: Index) -> Quality:
    live = Live(Search(index), index, "hearth-surface")
    return Quality(database, store, paths.temporary, lambda: live)
