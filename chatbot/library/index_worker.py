"""The process that holds the indexes: Chroma, tantivy and the embedder. Run by library/index.py.

    open    verify or rebuild what is on disk, say how much is missing
    plan    these documents changed: compare them with SQLite
    step    do a short piece of what is missing; hands new vectors to the owner, who commits them
    query · embed · seal

SQLite is only read here. A folder is trusted when its seal holds; a folder without one is checked
passage by passage; anything else is wiped and rebuilt. `opening` marks a folder while it is being
opened: found at the next start, the process died of it, and the folder is wiped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from chatbot.child import Event, Request, serve
from chatbot.errors import ChatbotError, ChildError
from chatbot.library import index_scan
from chatbot.library.embedders import (
    Embedder,
    Vectors,
    contextual_text,
    load_embedder,
    stamp_of,
)
from chatbot.library.index_dense import DenseIndex
from chatbot.library.index_lexical import LEXICAL_VERSION, IndexedPassage, LexicalIndex
from chatbot.library.index_seal import break_seal, read_seal, write_seal
from chatbot.types import SearchFilter

log = logging.getLogger(__name__)

_LEXICAL_STEP = 500
_COPIED_STEP = 500
_PREDECESSOR_SECONDS = 60
_STEP_SECONDS = 0.3
"""A question waits at most about this long behind work on the index."""
_OVERFETCH, _FILTERED_OVERFETCH = 2, 4
"""Hits are checked against SQLite after the search; so many times the limit are fetched for that."""

Store = TypeVar("Store", LexicalIndex, DenseIndex)


@dataclass(slots=True)
class _Shelf(Generic[Store]):
    """One index folder, the store opened from it, and what it still lacks."""

    folder: Path
    store: Store
    missing: dict[str, None] = field(default_factory=dict)
    sealed: bool = False
    complete: bool = False
    """Whether everything was in it once since it was opened."""

    def touch(self) -> None:
        if self.sealed:
            break_seal(self.folder)
            self.sealed = False


@dataclass(slots=True)
class _Dense:
    """A dense shelf with the embedder that made it."""

    shelf: _Shelf[DenseIndex]
    embedder: Embedder
    stamp: str


class IndexWorker:
    """Everything one index process knows."""

    def __init__(
        self,
        database: Path,
        folder: Path,
        embedder: str,
        chunker_version: str,
        *,
        allow_download: bool,
    ) -> None:
        self._folder = folder
        self._embedder_name = embedder
        self._chunker_version = chunker_version
        self._allow_download = allow_download
        self._connection = index_scan.open_read_only(database)
        self._embedder: Embedder | None = None
        self._lexical: _Shelf[LexicalIndex] | None = None
        self._dense: _Dense | None = None
        self._previous: _Dense | None = None
        self._batch = 32

    # --- opening ------------------------------------------------------------------------------

    def open(self, request: Request) -> Event:
        """Open both indexes; the embedder's failure leaves the lexical one and is told."""
        if request.params["wipe"]:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        lexical_folder = self._folder / f"lexical-{LEXICAL_VERSION}"
        self._lexical = self._open_shelf(lexical_folder, LexicalIndex, self._expected())
        self._lexical.store.commit()
        try:
            embedder = self._load_embedder()
        except ChatbotError as error:
            return {"stamp": None, "error": error.to_dict(), **self._progress()}
        stamp = stamp_of(embedder, self._chunker_version)
        self._dense = self._open_dense(embedder, stamp)
        if not self._dense.shelf.complete:
            self._previous = self._open_previous(stamp)
        self._forget_other_folders({lexical_folder, self._dense.shelf.folder})
        return {"stamp": stamp, "error": None, **self._progress()}

    def _load_embedder(self) -> Embedder:
        if self._embedder is None:
            self._embedder = load_embedder(self._embedder_name, allow_download=self._allow_download)
        return self._embedder

    def _open_dense(self, embedder: Embedder, stamp: str) -> _Dense:
        folder = self._folder / _folder_name(stamp)
        shelf = self._open_shelf(
            folder, DenseIndex, self._expected(library_only=True), lambda s: self._agrees(s, stamp)
        )
        facts = {"stamp": stamp, "embedder": self._embedder_name}
        (folder / "embedder.json").write_text(json.dumps(facts), encoding="utf-8")
        return _Dense(shelf, embedder, stamp)

    def _open_previous(self, stamp: str) -> _Dense | None:
        """The index of the embedder before, to answer while the new one is built; None if unusable."""
        for facts_file in self._folder.glob("*/embedder.json"):
            try:
                facts = json.loads(facts_file.read_text(encoding="utf-8"))
                sealed = read_seal(facts_file.parent)
                if facts["stamp"] == stamp or sealed is None or not sealed[1]:
                    continue
                embedder = load_embedder(facts["embedder"])
                if stamp_of(embedder, self._chunker_version) != facts["stamp"]:
                    continue
                store = DenseIndex(facts_file.parent)
                break_seal(facts_file.parent)
                shelf = _Shelf(facts_file.parent, store, complete=True)
                return _Dense(shelf, embedder, facts["stamp"])
            except (ChatbotError, OSError, ValueError, KeyError) as error:
                log.warning("the index before cannot answer: %s", error)
        return None

    def _open_shelf(
        self,
        folder: Path,
        open_store: Callable[[Path], Store],
        expected: dict[str, None],
        agrees: Callable[[Store], bool] = lambda _: True,
    ) -> _Shelf[Store]:
        seal = read_seal(folder)
        opening = folder / "opening"
        if opening.exists() or (seal is not None and not seal[1]):
            log.warning("%s is damaged and is rebuilt", folder.name)
            shutil.rmtree(folder)
            seal = None
        fresh = not folder.exists()
        folder.mkdir(exist_ok=True)
        opening.touch()
        break_seal(folder)
        try:
            store = open_store(folder)
            present = set(expected)
            if seal is None or seal[0] != _facts(expected):
                present = store.ids()
            sound = fresh or seal is not None or agrees(store)
        except Exception as error:  # any failure to open means the same: rebuild
            if fresh:
                raise
            log.warning("%s cannot be opened and is rebuilt: %s", folder.name, error)
            sound = False
        if not sound:
            # The libraries keep a broken folder open; a new process can wipe it.
            raise ChildError(f"{folder.name} is damaged")
        opening.unlink()
        missing = {passage_id: None for passage_id in expected if passage_id not in present}
        shelf = _Shelf(folder, store, missing, complete=not missing)
        if extra := sorted(present - expected.keys()):
            store.remove(extra)
        if seal is not None and not missing and not extra:
            self._seal_shelf(shelf, expected)
        return shelf

    def _agrees(self, store: DenseIndex, stamp: str) -> bool:
        """Whether an unsealed Chroma folder holds SQLite's vectors and finds them."""
        for ids, vectors in store.vectors():
            rows = self._connection.execute(
                "SELECT passage_id, vector FROM vectors WHERE stamp = ?"
                " AND passage_id IN (SELECT value FROM json_each(?))",
                (stamp, json.dumps(ids)),
            )
            true = {passage_id: np.frombuffer(blob, "<f4") for passage_id, blob in rows}
            for passage_id, vector in zip(ids, vectors, strict=True):
                if passage_id in true and not np.allclose(true[passage_id], vector, atol=1e-5):
                    return False
            for number in range(0, len(ids), max(1, len(ids) // 20)):
                found = store.query(vectors[number], 10)
                best = index_scan.similarities(self._connection, found, stamp, vectors[number])
                if ids[number] in true and max(best.values(), default=0) < 0.999 * float(
                    vectors[number] @ vectors[number]
                ):
                    return False
        return True

    def _expected(self, *, library_only: bool = False) -> dict[str, None]:
        """The passages an index should hold, in the order of their documents."""
        attached = " AND d.conversation IS NULL" if library_only else ""
        rows = self._connection.execute(
            "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document_id"
            f" WHERE d.deleted_at IS NULL{attached} ORDER BY d.added_at, d.id, p.ordinal"
        )
        return {row[0]: None for row in rows}

    def _forget_other_folders(self, used: set[Path]) -> None:
        if self._previous is not None:
            used = used | {self._previous.shelf.folder}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder not in used:
                shutil.rmtree(folder, ignore_errors=True)

    # --- keeping up ---------------------------------------------------------------------------

    def plan(self, request: Request) -> Event:
        """Take these documents out and line up what SQLite holds of them now."""
        lexical = self._opened()
        documents = request.params["documents"]
        rows = self._connection.execute(
            "SELECT p.id, d.conversation FROM passages p JOIN documents d ON d.id = p.document_id"
            " WHERE d.deleted_at IS NULL AND d.id IN (SELECT value FROM json_each(?))"
            " ORDER BY d.added_at, d.id, p.ordinal",
            (json.dumps(documents),),
        ).fetchall()
        lexical.touch()
        lexical.store.remove(document_ids=documents)
        lexical.missing.update((row[0], None) for row in rows)
        if not rows:
            lexical.store.commit()
        if self._dense is not None:
            self._dense.shelf.touch()
            self._dense.shelf.store.remove(document_ids=documents)
            self._dense.shelf.missing.update((row[0], None) for row in rows)
        return self._progress()

    def step(self, request: Request) -> tuple[Event, bytes]:  # noqa: ARG002  a handler's shape
        """A piece of the missing work; `vectors` names the passages whose vectors the blob holds."""
        lexical = self._opened()
        if lexical.missing:
            lexical.touch()
            lexical.store.add(self._taken(lexical.missing, _LEXICAL_STEP))
            if not lexical.missing:
                lexical.store.commit()
                lexical.complete = True
            return {"vectors": [], **self._progress()}, b""
        if self._dense is not None and self._dense.shelf.missing:
            made, blob = self._dense_step(self._dense)
            return {"vectors": made, **self._progress()}, blob
        return {"vectors": [], **self._progress()}, b""

    def _dense_step(self, dense: _Dense) -> tuple[list[str], bytes]:
        started = time.monotonic()
        shelf = dense.shelf
        shelf.touch()
        ids = list(shelf.missing)[: self._batch]
        known = self._stored_vectors(ids, dense.stamp)
        # Stored vectors only need copying: of those, take many at a time.
        if len(known) == len(ids):
            ids = list(shelf.missing)[:_COPIED_STEP]
            known = self._stored_vectors(ids, dense.stamp)
        passages = self._taken(shelf.missing, len(ids))
        new = [p for p in passages if p.id not in known]
        vectors = dense.embedder.embed([_embedded_text(p) for p in new], "passage")
        known |= {p.id: vector for p, vector in zip(new, vectors, strict=True)}
        library = [p for p in passages if p.conversation is None]
        if library:
            shelf.store.add(
                [p.id for p in library],
                [p.document_id for p in library],
                np.stack([known[p.id] for p in library]),
            )
        if not shelf.missing:
            shelf.complete = True
            self._retire_previous()
        if new:
            quick = time.monotonic() - started < _STEP_SECONDS
            self._batch = min(256, self._batch * 2) if quick else max(1, self._batch // 2)
        return [p.id for p in new], np.ascontiguousarray(vectors, "<f4").tobytes()

    def _stored_vectors(self, ids: list[str], stamp: str) -> dict[str, Vectors]:
        rows = self._connection.execute(
            "SELECT passage_id, vector FROM vectors WHERE stamp = ?"
            " AND passage_id IN (SELECT value FROM json_each(?))",
            (stamp, json.dumps(ids)),
        )
        return {passage_id: np.frombuffer(blob, "<f4") for passage_id, blob in rows}

    def _taken(self, missing: dict[str, None], count: int) -> list[IndexedPassage]:
        """The next passages out of `missing`; those SQLite no longer has are dropped."""
        ids = [passage_id for passage_id, _ in zip(missing, range(count), strict=False)]
        for passage_id in ids:
            del missing[passage_id]
        rows = self._connection.execute(
            "SELECT p.id, p.document_id, d.name, p.path, p.text, d.conversation FROM passages p"
            " JOIN documents d ON d.id = p.document_id WHERE d.deleted_at IS NULL"
            " AND p.id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        return [IndexedPassage(*row) for row in rows]

    def _retire_previous(self) -> None:
        previous, self._previous = self._previous, None
        if previous is not None:
            previous.shelf.store.close()
            shutil.rmtree(previous.shelf.folder, ignore_errors=True)

    def _progress(self) -> Event:
        lexical, dense = self._lexical, self._dense
        return {
            "missing": (len(lexical.missing) if lexical else 0)
            + (len(dense.shelf.missing) if dense else 0),
            "answering": lexical is not None and lexical.complete,
        }

    def seal(self, request: Request) -> Event:  # noqa: ARG002  a handler's shape
        """Bring the files to rest and seal them."""
        lexical = self._opened()
        if not lexical.sealed and not lexical.missing:
            lexical.store.rest()
            self._seal_shelf(lexical, lexical.store.ids())
        dense = self._dense
        if dense is not None and not dense.shelf.sealed and not dense.shelf.missing:
            self._seal_shelf(dense.shelf, dense.shelf.store.ids())
        return {}

    @staticmethod
    def _seal_shelf(shelf: _Shelf[Store], passage_ids: Iterable[str]) -> None:
        write_seal(shelf.folder, _facts(passage_ids))
        shelf.sealed = True

    # --- answering ----------------------------------------------------------------------------

    def embed(self, request: Request) -> tuple[Event, bytes]:
        embedder = self._load_embedder()
        vectors = embedder.embed(request.params["texts"], request.params["kind"])
        return {"dimension": embedder.dimension}, vectors.astype("<f4").tobytes()

    def query(self, request: Request) -> Event:
        """Candidates of both sides: {hits: [[passage, lexical, dense]], word_weights, dense_weight}."""
        from chatbot.text import language_of

        lexical = self._opened()
        question, limit, mode = (request.params[key] for key in ("text", "limit", "mode"))
        wanted = _filter(request.params["filter"])
        condition = index_scan.allowed(wanted)
        weights = lexical.store.word_weights(question)
        by_words: dict[str, float] = {}
        if mode != "dense":
            by_words = dict(self._lexical_hits(lexical.store, question, limit, condition))
        by_vector: dict[str, float] = {}
        dense_weight = 0.0
        dense = self._answering_dense()
        if mode != "lexical" and dense is not None:
            vector = dense.embedder.embed([question], "query")[0]
            if vector.any():
                near = self._dense_hits(dense, vector, limit, condition)
                if wanted.conversation is not None:
                    attached = index_scan.attached(wanted.conversation)
                    near += index_scan.nearest(
                        self._connection, attached, dense.stamp, vector, limit
                    )
                by_vector = index_scan.similarities(
                    self._connection, [*near, *by_words], dense.stamp, vector
                )
                dense_weight = dense.embedder.weight(language_of(question))
        return {
            "hits": [
                [passage_id, by_words.get(passage_id), by_vector.get(passage_id)]
                for passage_id in dict.fromkeys([*by_words, *by_vector])
            ],
            "word_weights": weights,
            "dense_weight": dense_weight,
        }

    def _answering_dense(self) -> _Dense | None:
        if self._dense is None or not self._dense.shelf.complete:
            return self._previous or self._dense
        return self._dense

    def _lexical_hits(
        self, store: LexicalIndex, question: str, limit: int, condition: index_scan.Condition
    ) -> list[tuple[str, float]]:
        fetched = _overfetched(limit, condition)
        hits = store.query(question, fetched)
        kept = self._kept([passage_id for passage_id, _ in hits], condition)
        if len(kept) < limit and len(hits) == fetched:
            # The filter threw most hits away: ask for its documents only.
            where, values = condition
            rows = self._connection.execute(f"SELECT d.id FROM documents d WHERE {where}", values)
            hits = store.query(question, limit, [row[0] for row in rows])
            kept = self._kept([passage_id for passage_id, _ in hits], condition)
        return [hit for hit in hits if hit[0] in kept][:limit]

    def _dense_hits(
        self, dense: _Dense, vector: Vectors, limit: int, condition: index_scan.Condition
    ) -> list[str]:
        if not dense.shelf.complete:
            return index_scan.nearest(self._connection, condition, dense.stamp, vector, limit)
        fetched = _overfetched(limit, condition)
        found = dense.shelf.store.query(vector, fetched)
        kept = self._kept(found, condition)
        if len(kept) < limit and len(found) == fetched:
            return index_scan.nearest(self._connection, condition, dense.stamp, vector, limit)
        return [passage_id for passage_id in found if passage_id in kept][:limit]

    def _kept(self, ids: list[str], condition: index_scan.Condition) -> set[str]:
        """Those passages that SQLite, the truth, lets this question see now."""
        where, values = condition
        rows = self._connection.execute(
            "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document_id"
            f" WHERE p.id IN (SELECT value FROM json_each(?)) AND {where}",
            [json.dumps(ids), *values],
        )
        return {row[0] for row in rows}

    def _opened(self) -> _Shelf[LexicalIndex]:
        if self._lexical is None:
            raise ChildError("the index is not open yet")
        return self._lexical


def _overfetched(limit: int, condition: index_scan.Condition) -> int:
    return limit * (_FILTERED_OVERFETCH if condition[1] else _OVERFETCH)


def _embedded_text(passage: IndexedPassage) -> str:
    return contextual_text(passage.name, passage.path, passage.text)


def _facts(passage_ids: Iterable[str]) -> dict[str, Any]:
    """What a sealed index holds: a digest of its passages' ids, whatever their order."""
    ids = sorted(passage_ids)
    return {"passages": len(ids), "digest": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


def _folder_name(stamp: str) -> str:
    """A stamp as a short, safe folder name."""
    readable = re.sub(r"[^a-z0-9]+", "-", stamp.lower())[:40].strip("-")
    return f"dense-{readable}-{hashlib.sha256(stamp.encode()).hexdigest()[:10]}"


def _filter(values: dict[str, Any]) -> SearchFilter:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return SearchFilter(**fields)


def main(arguments: list[str]) -> None:
    """Serve the index described by one JSON argument."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    from filelock import FileLock

    values = json.loads(arguments[0])
    folder = Path(values["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Neither Chroma nor tantivy bears two processes: a successor waits until this one has ended.
    with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=_PREDECESSOR_SECONDS):
        worker = IndexWorker(
            Path(values["database"]),
            folder,
            values["embedder"],
            values["chunker_version"],
            allow_download=values["allow_download"],
        )
        serve(
            {
                "open": worker.open,
                "plan": worker.plan,
                "step": worker.step,
                "seal": worker.seal,
                "embed": worker.embed,
                "query": worker.query,
            }
        )


if __name__ == "__main__":
    main(sys.argv[1:])
