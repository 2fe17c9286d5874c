"""The process that holds Chroma. Run by library/index_dense.py, one for all folders of an index worker.

    open · add · remove · clear · count · query · ids · vectors · close      each of one folder

Chroma works in a process of its own because it may die of a damaged folder, because it keeps Python
waiting while it adds, and so that words and vectors are searched at the same time.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.child import Event, Request, serve
from chatbot.errors import ChildError
from chatbot.library.embedders import Vectors

_PREDECESSOR_SECONDS = 60
_BATCH = 500
# At 100,000 passages the top 10 agree with an exact scan to .994; ef_construction 200 with ef_search 400 gave
# .996 and took twice as long to build (docs/decisions.md).
HNSW = {"space": "ip", "ef_construction": 100, "max_neighbors": 32, "ef_search": 600}


class ChromaIndex:
    """A Chroma collection of passage ids and vectors, nothing else; SQLite holds the rest."""

    def __init__(self, folder: Path) -> None:
        """Open or create. Raises whatever Chroma raises on files it cannot use."""
        import chromadb
        from chromadb.config import Settings

        self._folder = folder
        self._client = chromadb.PersistentClient(
            str(folder), settings=Settings(anonymized_telemetry=False)
        )
        self._collection = self._made()

    def _made(self) -> Any:
        return self._client.get_or_create_collection(
            "passages", embedding_function=None, configuration={"hnsw": HNSW}
        )

    def warm_up(self) -> None:
        """Read the graph into memory now; Chroma would at the first question."""
        _, vectors = self.vectors(0, 1)
        for vector in vectors:
            self.query(vector, 1)

    def ids(self) -> list[str]:
        """Every passage in the index."""
        return list(self._collection.get(include=[])["ids"])

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            self._collection.upsert(ids=list(ids[part]), embeddings=vectors[part])

    def remove(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _BATCH):
            self._collection.delete(ids=list(ids[start : start + _BATCH]))

    def clear(self) -> None:
        """Drop everything: a graph in which most is only marked as removed is slow to search and to add to."""
        self._client.delete_collection("passages")
        for graph in filter(Path.is_dir, self._folder.iterdir()):
            shutil.rmtree(graph, ignore_errors=True)
        self._collection = self._made()

    def count(self) -> int:
        """How many passages are in the index."""
        return int(self._collection.count())

    def query(self, vector: Vectors, limit: int) -> tuple[list[str], list[float]]:
        """Passage ids, nearest first, and their similarities."""
        found = self._collection.query(
            query_embeddings=[vector], n_results=limit, include=["distances"]
        )
        return list(found["ids"][0]), [1 - distance for distance in found["distances"][0]]

    def vectors(self, start: int, count: int) -> tuple[list[str], Vectors]:
        """A piece of everything stored."""
        piece = self._collection.get(include=["embeddings"], limit=count, offset=start)
        return piece["ids"], np.asarray(piece["embeddings"], np.float32)

    def close(self) -> None:
        self._client.close()


class ChromaFolders:
    """The collections that are open, by folder."""

    def __init__(self) -> None:
        self._open: dict[str, ChromaIndex] = {}

    def open(self, request: Request) -> Event:
        folder = request.params["folder"]
        index = self._open[folder] = ChromaIndex(Path(folder))
        index.warm_up()
        return {}

    def add(self, request: Request) -> Event:
        ids = request.params["ids"]
        vectors = np.frombuffer(request.blob, "<f4").reshape(len(ids), -1)
        self._of(request).add(ids, vectors)
        return {}

    def remove(self, request: Request) -> Event:
        self._of(request).remove(request.params["ids"])
        return {}

    def clear(self, request: Request) -> Event:
        self._of(request).clear()
        return {}

    def count(self, request: Request) -> Event:
        return {"count": self._of(request).count()}

    def query(self, request: Request) -> Event:
        vector = np.frombuffer(request.blob, "<f4")
        ids, similarities = self._of(request).query(vector, request.params["limit"])
        return {"ids": ids, "similarities": similarities}

    def ids(self, request: Request) -> Event:
        return {"ids": self._of(request).ids()}

    def vectors(self, request: Request) -> tuple[Event, bytes]:
        ids, vectors = self._of(request).vectors(request.params["start"], request.params["count"])
        return {"ids": ids}, vectors.astype("<f4").tobytes()

    def close(self, request: Request) -> Event:
        self._open.pop(request.params["folder"]).close()
        return {}

    def _of(self, request: Request) -> ChromaIndex:
        try:
            return self._open[request.params["folder"]]
        except KeyError:
            raise ChildError("this folder is not open") from None


def main(arguments: list[str]) -> None:
    """Serve Chroma folders while holding the lock file that the argument names."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    from filelock import FileLock

    # Chroma does not bear two processes: a successor waits until this one has ended.
    with FileLock(arguments[0], timeout=_PREDECESSOR_SECONDS):
        folders = ChromaFolders()
        serve(
            {
                "open": folders.open,
                "add": folders.add,
                "remove": folders.remove,
                "clear": folders.clear,
                "count": folders.count,
                "query": folders.query,
                "ids": folders.ids,
                "vectors": folders.vectors,
                "close": folders.close,
            }
        )


if __name__ == "__main__":
    main(sys.argv[1:])
