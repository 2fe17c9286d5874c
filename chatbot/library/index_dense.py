"""The vectors of all library passages: a persisted Chroma collection, rebuildable from SQLite.

Chroma holds passage ids, their document's id and vectors; never a text. Files attached to a
conversation are few and stay out: they are compared exactly (index_scan.py), so the shared index
never has to be filtered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.library.embedders import Vectors

_BATCH = 500
# ef_search 400 and 32 neighbours: top 10 agrees with an exact scan ≥ 0.99 (benchmarks/search.py).
_HNSW = {"space": "ip", "ef_construction": 200, "max_neighbors": 32, "ef_search": 400}


class DenseIndex:
    """A Chroma folder with vectors of one stamp. Opening a damaged folder may kill the process."""

    def __init__(self, folder: Path) -> None:
        """Open or create. Raises whatever Chroma raises on files it cannot use."""
        import chromadb
        from chromadb.config import Settings

        self._client = chromadb.PersistentClient(
            str(folder), settings=Settings(anonymized_telemetry=False)
        )
        self._collection: Any = self._client.get_or_create_collection(
            "passages", embedding_function=None, configuration={"hnsw": _HNSW}
        )

    def __len__(self) -> int:
        return int(self._collection.count())

    def ids(self) -> set[str]:
        """Every passage in the index."""
        return set(self._collection.get(include=[])["ids"])

    def add(self, ids: Sequence[str], document_ids: Sequence[str], vectors: Vectors) -> None:
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            self._collection.upsert(
                ids=list(ids[part]),
                embeddings=vectors[part],
                metadatas=[{"document": document} for document in document_ids[part]],
            )

    def remove(self, passage_ids: Sequence[str] = (), document_ids: Sequence[str] = ()) -> None:
        for start in range(0, len(passage_ids), _BATCH):
            self._collection.delete(ids=list(passage_ids[start : start + _BATCH]))
        if document_ids:
            self._collection.delete(where={"document": {"$in": list(document_ids)}})

    def query(self, vector: Vectors, limit: int) -> list[str]:
        """Passage ids, nearest first."""
        found = self._collection.query(query_embeddings=[vector], n_results=limit, include=[])
        return list(found["ids"][0])

    def vectors(self) -> Iterator[tuple[list[str], Vectors]]:
        """Everything stored, in pieces."""
        for start in range(0, len(self), 5000):
            piece = self._collection.get(include=["embeddings"], limit=5000, offset=start)
            yield piece["ids"], np.asarray(piece["embeddings"], np.float32)

    def close(self) -> None:
        self._client.close()
