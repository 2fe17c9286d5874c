"""The process that holds the indexes: tantivy, the embedder, and Chroma in a process below. Run by library/index.py.

    open    verify or rebuild the words on disk, and begin to open the vectors beside
    plan    these documents changed: compare them with SQLite
    step    do a short piece of what is missing; hands new vectors to the owner, who commits them
    query · embed · seal

Words answer as soon as they are open; the embedder and Chroma follow in a thread. SQLite is only read here. A folder is trusted when its seal holds; a folder without one is checked
passage by passage; anything else is wiped and rebuilt. `opening` marks a folder while it is being
opened: found at the next start, the process died of it, and the folder is wiped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from chatbot.child import Event, Request, serve
from chatbot.errors import ChatbotError, ChildError
from chatbot.library import index_scan
from chatbot.library.cross_encoder import CrossEncoding
from chatbot.library.embedders import (
    Embedder,
    Vectors,
    contextual_text,
    load_embedder,
    stamp_of,
)
from chatbot.library.index_dense import DenseIndex, DenseProcess
from chatbot.library.index_lexical import LEXICAL_VERSION, IndexedPassage, LexicalIndex
from chatbot.library.index_seal import break_seal, read_seal, write_seal
from chatbot.types import SearchFilter

log = logging.getLogger(__name__)

_LEXICAL_STEP = 100
_COPIED_STEP = 500
_REMOVED_STEP = 500
_CROWD = 1000
"""Passages that change in one go before it is asked whether to fill Chroma anew instead."""
_MAPPED = 1 << 40
"""As much of the database as SQLite can map (2 GB by default)."""
_PREDECESSOR_SECONDS = 60
_SWITCH_SECONDS = 0.0005
"""How long Python lets one thread keep another waiting; a question passes through several."""
_STEP_SECONDS = 0.3
"""A question waits at most about this long behind work on the index."""
_SPARE = 10
_FILTERED_OVERFETCH = 4
"""Hits are checked against SQLite after the search: a few more than the limit are fetched for that, and
so many times the limit where a filter throws hits away."""

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
    library_only: bool = False
    """Whether files attached to a conversation stay out."""


@dataclass(slots=True)
class _Dense:
    """An embedder and the vectors it made; `shelf` is None while Chroma is being opened."""

    embedder: Embedder
    stamp: str
    shelf: _Shelf[DenseIndex] | None = None
    adding: Future[Any] | None = None
    """What Chroma is taking in at this moment."""
    added: int = 0
    """How many passages that is."""
    removed: int = 0
    """How many were taken out of Chroma's graph, which only marks them."""

    @property
    def complete(self) -> bool:
        return self.shelf is not None and self.shelf.complete

    @property
    def missing(self) -> int:
        return self.added + (len(self.shelf.missing) if self.shelf else 0)


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
        self._database = database
        self._connection = index_scan.open_read_only(database)
        # A question looks up two hundred rows all over the file: mapped, in a quarter of the time. Only here:
        # a disk that fails under a mapping ends the process.
        self._connection.execute(f"PRAGMA mmap_size = {_MAPPED}")
        self._embedder: Embedder | None = None
        self._loading = threading.Lock()
        self._process = DenseProcess(dense_lock(folder))
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self._lexical: _Shelf[LexicalIndex] | None = None
        self._dense: _Dense | None = None
        self._previous: _Dense | None = None
        self._opening: Future[_Dense | None] | None = None
        self._sealing: Future[None] | None = None
        self._gone: dict[str, None] = {}
        self._new: dict[str, None] = {}
        """Passages that Chroma is still to lose, and to be given."""
        self._batch = 32
        self._reranker: CrossEncoding | None = None

    # --- opening ------------------------------------------------------------------------------

    def open(self, request: Request) -> Event:
        """Open the words and begin to open the vectors; `step` tells how that went."""
        if request.params["wipe"]:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._opening = self._beside.submit(self._open_dense)
        self._lexical = self._open_shelf(
            self._folder / f"lexical-{LEXICAL_VERSION}", LexicalIndex, self._connection
        )
        self._lexical.store.commit()
        return self._progress()

    def close(self) -> None:
        """End the process below."""
        self._beside.shutdown()
        self._process.close()

    def _open_dense(self) -> _Dense | None:
        """In a thread beside: load the embedder, open its vectors, and those of the one before if they must answer."""
        embedder = self._load_embedder()
        stamp = stamp_of(embedder, self._chunker_version)
        self._dense = dense = _Dense(embedder, stamp)
        folder = self._folder / _folder_name(stamp)
        with contextlib.closing(index_scan.open_read_only(self._database)) as connection:
            shelf = self._open_shelf(
                folder,
                lambda folder: DenseIndex(folder, self._process),
                connection,
                lambda store: _agrees(connection, store, stamp),
                library_only=True,
            )
        facts = {"stamp": stamp, "embedder": self._embedder_name}
        (folder / "embedder.json").write_text(json.dumps(facts), encoding="utf-8")
        previous = None if shelf.complete else self._open_previous(stamp)
        dense.shelf = shelf
        return previous

    def _await_dense(self, seconds: float) -> Event:
        """Take over what was opened beside: {stamp, error, opening}. Raises ChildError when it is damaged."""
        reply: Event = {"stamp": None, "error": None, "opening": True}
        if self._opening is not None:
            wait([self._opening], seconds)
            if not self._opening.done():
                return reply
            opening, self._opening = self._opening, None
            try:
                self._previous = opening.result()
            except ChildError:
                raise
            except ChatbotError as error:  # no embedder, no vectors; words answer
                reply["error"] = error.to_dict()
            self._forget_other_folders()
        reply["stamp"] = self._dense.stamp if self._dense else None
        reply["opening"] = False
        return reply

    def _load_embedder(self) -> Embedder:
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(
                    self._embedder_name, allow_download=self._allow_download
                )
            return self._embedder

    def _open_previous(self, stamp: str) -> _Dense | None:
        """The index of the embedder before, to answer while the new one is built; None if unusable."""
        for facts_file in self._folder.glob("*/embedder.json"):
            try:
                facts = json.loads(facts_file.read_text(encoding="utf-8"))
                sealed = read_seal(facts_file.parent)
                if facts["stamp"] == stamp or sealed is None or not sealed.holds:
                    continue
                embedder = load_embedder(facts["embedder"])
                if stamp_of(embedder, self._chunker_version) != facts["stamp"]:
                    continue
                break_seal(facts_file.parent)
                store = DenseIndex(facts_file.parent, self._process)
                shelf = _Shelf(facts_file.parent, store, complete=True)
                return _Dense(embedder, facts["stamp"], shelf)
            except (ChatbotError, OSError, ValueError, KeyError) as error:
                log.warning("the index before cannot answer: %s", error)
        return None

    def _open_shelf(
        self,
        folder: Path,
        open_store: Callable[[Path], Store],
        connection: sqlite3.Connection,
        agrees: Callable[[Store], bool] = lambda _: True,
        *,
        library_only: bool = False,
    ) -> _Shelf[Store]:
        seal = read_seal(folder)
        opening = folder / "opening"
        if opening.exists() or (seal is not None and not seal.holds):
            log.warning("%s is damaged and is rebuilt", folder.name)
            shutil.rmtree(folder)
            seal = None
        fresh = not folder.exists()
        folder.mkdir(exist_ok=True)
        opening.touch()
        break_seal(folder)
        documents = _documents(connection, library_only=library_only)
        missing: dict[str, None] = {}
        extra: list[str] = []
        try:
            store = open_store(folder)
            sound = fresh or seal is not None or agrees(store)
            if seal is None or seal.facts.get("documents") != documents:
                expected = _expected(connection, library_only=library_only)
                present = store.ids()
                missing = {id_: None for id_ in expected if id_ not in present}
                extra = sorted(present - expected.keys())
        except Exception as error:  # any failure to open means the same: rebuild
            if fresh:
                raise
            log.warning("%s cannot be opened and is rebuilt: %s", folder.name, error)
            sound = False
        if not sound:
            # The libraries keep a broken folder open; a new process can wipe it.
            raise ChildError(f"{folder.name} is damaged")
        opening.unlink()
        shelf = _Shelf(folder, store, missing, complete=not missing, library_only=library_only)
        if extra:
            store.remove(extra)
        elif seal is not None and not missing:
            write_seal(folder, {"documents": documents}, seal.files)
            shelf.sealed = True
        return shelf

    def _forget_other_folders(self) -> None:
        shelves = [self._lexical, *(d.shelf for d in (self._dense, self._previous) if d)]
        used = {shelf.folder for shelf in shelves if shelf}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder not in used:
                shutil.rmtree(folder, ignore_errors=True)

    # --- keeping up ---------------------------------------------------------------------------

    def plan(self, request: Request) -> Event:
        """Take these documents out and line up what SQLite holds of them now."""
        lexical = self._opened()
        documents = request.params["documents"]
        rows = self._connection.execute(
            "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document_id"
            " WHERE d.deleted_at IS NULL AND d.id IN (SELECT value FROM json_each(?))"
            " ORDER BY d.added_at, d.id, p.ordinal",
            (json.dumps(documents),),
        ).fetchall()
        self._touch(lexical)
        held = lexical.store.passages_of(documents)
        lexical.store.remove(document_ids=documents)
        lexical.missing.update((row[0], None) for row in rows)
        if not rows:
            lexical.store.commit()
        wanted, present = {row[0]: None for row in rows}, {*held}
        self._gone.update((passage_id, None) for passage_id in held if passage_id not in wanted)
        # A passage that is still there is the same: its text never changes under its id.
        for passage_id in (id_ for id_ in wanted if id_ not in present):
            if passage_id in self._gone and self._opening is None:
                del self._gone[passage_id]  # Chroma has not lost it yet
            else:
                self._new[passage_id] = None
        return self._progress()

    def _follow(self, dense: _Dense, shelf: _Shelf[DenseIndex]) -> bool:
        """Line up what is new; whether a piece of what is gone was taken out, or everything where that is less work."""
        shelf.missing.update(self._new)
        if not self._gone:
            self._new = {}
            return False
        self._touch(shelf)
        if len(self._gone) >= _CROWD and self._mostly_gone(dense, shelf):
            shelf.store.clear()
            shelf.missing = _expected(self._connection, library_only=True) | shelf.missing
            shelf.complete = not shelf.missing
            self._gone, dense.removed = {}, 0
        else:
            part = [id_ for id_, _ in zip(self._gone, range(_REMOVED_STEP), strict=False)]
            shelf.store.remove(part)
            for passage_id in part:
                del self._gone[passage_id]
            dense.removed += len(part)
        self._new = {}
        return True

    def _mostly_gone(self, dense: _Dense, shelf: _Shelf[DenseIndex]) -> bool:
        """Whether half of the graph would be dead: from there on filling it anew takes less time."""
        return 2 * (dense.removed + len(self._gone)) > dense.removed + shelf.store.count()

    def step(self, request: Request) -> tuple[Event, bytes]:  # noqa: ARG002  a handler's shape
        """A piece of the missing work; `vectors` names the passages whose vectors the blob holds.

        Chroma takes in the one piece while the words of the next are indexed here.
        """
        lexical = self._opened()
        opened = self._await_dense(0 if lexical.missing else _STEP_SECONDS)
        dense, made, blob = self._dense, list[str](), b""
        if dense is not None and dense.shelf is not None and not opened["opening"]:
            if not self._follow(dense, dense.shelf):
                made, blob = self._dense_step(dense, dense.shelf)
        elif not opened["opening"]:
            self._gone, self._new = {}, {}  # no embedder, no vectors
        if lexical.missing:
            self._touch(lexical)
            self._index_words(lexical, dense.adding if dense is not None else None)
            if not lexical.missing:
                lexical.store.commit()
                lexical.complete = True
        elif dense is not None and dense.adding is not None and not made:
            wait([dense.adding], _STEP_SECONDS)
            self._finish_adding(dense)
        return {"vectors": made, **self._progress(), **opened}, blob

    def _index_words(self, lexical: _Shelf[LexicalIndex], beside: Future[Any] | None) -> None:
        """For a short while, or until Chroma, at work beside, is free for the next passages."""
        started = time.monotonic()
        while lexical.missing and time.monotonic() - started < _STEP_SECONDS:
            lexical.store.add(self._taken(lexical.missing, _LEXICAL_STEP))
            if beside is not None and beside.done():
                return

    def _dense_step(self, dense: _Dense, shelf: _Shelf[DenseIndex]) -> tuple[list[str], bytes]:
        """Hand Chroma the next passages, unless it is still at work; the vectors that were made for it."""
        self._finish_adding(dense)
        if dense.adding is not None or not shelf.missing:
            return [], b""
        started = time.monotonic()
        self._touch(shelf)
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
        library = [p.id for p in passages if p.conversation is None]
        if library:
            dense.adding = shelf.store.add(library, np.stack([known[id_] for id_ in library]))
            dense.added = len(library)
        elif not shelf.missing:
            self._completed(shelf)
        if new:
            quick = time.monotonic() - started < _STEP_SECONDS
            self._batch = min(256, self._batch * 2) if quick else max(1, self._batch // 2)
        return [p.id for p in new], np.ascontiguousarray(vectors, "<f4").tobytes()

    def _finish_adding(self, dense: _Dense) -> None:
        if dense.adding is not None and dense.adding.done():
            dense.adding.result()
            dense.adding, dense.added = None, 0
            if dense.shelf is not None and not dense.shelf.missing:
                self._completed(dense.shelf)

    def _completed(self, shelf: _Shelf[DenseIndex]) -> None:
        shelf.complete = True
        previous, self._previous = self._previous, None
        if previous is not None and previous.shelf is not None:
            previous.shelf.store.close()
            shutil.rmtree(previous.shelf.folder, ignore_errors=True)

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
            "SELECT p.id, p.document_id, d.name, p.path, p.text, d.conversation, coalesce("
            "nullif(d.title, ''), json_extract(d.validity, '$.title.value'), '') FROM passages p"
            " JOIN documents d ON d.id = p.document_id WHERE d.deleted_at IS NULL"
            " AND p.id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        return [IndexedPassage(*row) for row in rows]

    def _progress(self) -> Event:
        lexical, dense = self._lexical, self._dense
        return {
            "missing": (len(lexical.missing) if lexical else 0)
            + (dense.missing if dense else 0)
            + len(self._gone)
            + len(self._new),
            "answering": lexical is not None and lexical.complete,
        }

    def seal(self, request: Request) -> Event:  # noqa: ARG002  a handler's shape
        """Bring the files to rest and seal them in a thread beside; {done: bool}, call until it is."""
        lexical, dense = self._opened(), self._dense
        if self._sealing is None:
            shelves: list[_Shelf[Any]] = [lexical]
            if dense is not None and dense.shelf is not None and dense.adding is None:
                shelves.append(dense.shelf)
            open_ = [shelf for shelf in shelves if not (shelf.sealed or shelf.missing)]
            if not open_:
                return {"done": True}
            if lexical in open_:
                lexical.store.rest()
            self._sealing = self._beside.submit(_seal, self._database, open_)
        wait([self._sealing], _STEP_SECONDS)
        if self._sealing.done():
            self._end_sealing()
        return {"done": self._sealing is None}

    def _end_sealing(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def _touch(self, shelf: _Shelf[Any]) -> None:
        """The shelf's files are about to change."""
        self._end_sealing()
        if shelf.sealed:
            break_seal(shelf.folder)
            shelf.sealed = False

    # --- answering ----------------------------------------------------------------------------

    def embed(self, request: Request) -> tuple[Event, bytes]:
        embedder = self._load_embedder()
        vectors = embedder.embed(request.params["texts"], request.params["kind"])
        return {"dimension": embedder.dimension}, vectors.astype("<f4").tobytes()

    def rerank(self, request: Request) -> Event:
        """{scores}: how well each text answers the question, by a cross-encoder."""
        name = request.params["model"]
        if self._reranker is None or self._reranker.name != name:
            self._reranker = CrossEncoding(name, allow_download=self._allow_download)
        return {
            "scores": self._reranker.scores(request.params["question"], request.params["texts"])
        }

    def query(self, request: Request) -> Event:
        """Candidates of both sides: {hits: [[passage, lexical, dense]], word_weights, dense_weight, question, other}."""
        from chatbot.text import language_of

        lexical = self._opened()
        question, limit, mode = (request.params[key] for key in ("text", "limit", "mode"))
        question = lexical.store.corrected(question)
        wanted = _filter(request.params["filter"])
        dense = self._answering_dense()
        vector, asked = None, None
        if mode != "lexical" and dense is not None:
            embedded = dense.embedder.embed([question], "query")[0]
            vector = embedded if embedded.any() else None
            if vector is not None and dense.complete and dense.shelf is not None:
                # Chroma looks while the words are looked up here.
                asked = dense.shelf.store.query(vector, _fetched(limit, wanted))
        hits: list[tuple[str, float]] = []
        if mode != "dense":
            hits = lexical.store.query(question, _fetched(limit, wanted))
        weights, other = lexical.store.word_weights(question), lexical.store.other_weights(question)
        near = asked.result() if asked is not None else None
        either = dict.fromkeys([*(passage_id for passage_id, _ in hits), *(near or ())])
        condition = index_scan.allowed(wanted)
        seen = index_scan.visible(self._connection, [*either], condition)
        by_words = self._lexical_hits(lexical.store, question, limit, wanted, hits, seen)
        by_vector: dict[str, float] = {}
        dense_weight = 0.0
        if dense is not None and vector is not None:
            by_vector = self._dense_hits(dense, vector, limit, wanted, by_words, near, seen)
            dense_weight = dense.embedder.weight(language_of(question))
        return {
            "hits": [
                [passage_id, by_words.get(passage_id), by_vector.get(passage_id)]
                for passage_id in dict.fromkeys([*by_words, *by_vector])
            ],
            "word_weights": weights,
            "dense_weight": dense_weight,
            "question": question,
            "other": other,
        }

    def _answering_dense(self) -> _Dense | None:
        if self._dense is None or not self._dense.complete:
            return self._previous or self._dense
        return self._dense

    def _lexical_hits(
        self,
        store: LexicalIndex,
        question: str,
        limit: int,
        wanted: SearchFilter,
        hits: list[tuple[str, float]],
        seen: set[str],
    ) -> dict[str, float]:
        """The hits that are seen; where the filter threw most away, those of its documents only."""
        kept = [hit for hit in hits if hit[0] in seen]
        if len(kept) < limit and len(hits) == _fetched(limit, wanted):
            condition = index_scan.allowed(wanted)
            where, values = condition
            rows = self._connection.execute(f"SELECT d.id FROM documents d WHERE {where}", values)
            hits = store.query(question, limit, [row[0] for row in rows])
            ids = index_scan.visible(self._connection, [id_ for id_, _ in hits], condition)
            kept = [hit for hit in hits if hit[0] in ids]
        return dict(kept[:limit])

    def _dense_hits(
        self,
        dense: _Dense,
        vector: Vectors,
        limit: int,
        wanted: SearchFilter,
        by_words: dict[str, float],
        found: dict[str, float] | None,
        seen: set[str],
    ) -> dict[str, float]:
        """The nearest passages, and how near those are that words found; `found` is what Chroma answered."""
        condition = index_scan.allowed(wanted)
        near: dict[str, float] | None = None
        if found is not None:
            kept = [passage_id for passage_id in found if passage_id in seen]
            if len(kept) >= limit or len(found) < _fetched(limit, wanted):
                near = {id_: found[id_] for id_ in kept[:limit]}
        elif dense.shelf is None and by_words:
            near = {}  # Chroma is there in a second; until then, only what words found is compared
        if near is None:
            near = dict(index_scan.nearest(self._connection, condition, dense.stamp, vector, limit))
        elif wanted.conversation is not None:
            attached = index_scan.attached(wanted.conversation)
            near |= dict(index_scan.nearest(self._connection, attached, dense.stamp, vector, limit))
        far = [passage_id for passage_id in by_words if passage_id not in near]
        return near | index_scan.similarities(self._connection, far, dense.stamp, vector)

    def _opened(self) -> _Shelf[LexicalIndex]:
        if self._lexical is None:
            raise ChildError("the index is not open yet")
        return self._lexical


def _expected(connection: sqlite3.Connection, *, library_only: bool = False) -> dict[str, None]:
    """The passages an index should hold, in the order of their documents."""
    attached = " AND d.conversation IS NULL" if library_only else ""
    rows = connection.execute(
        "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document_id"
        f" WHERE d.deleted_at IS NULL{attached} ORDER BY d.added_at, d.id, p.ordinal"
    )
    return {row[0]: None for row in rows}


def _agrees(connection: sqlite3.Connection, store: DenseIndex, stamp: str) -> bool:
    """Whether an unsealed Chroma folder holds SQLite's vectors and finds them."""
    for ids, vectors in store.vectors():
        rows = connection.execute(
            "SELECT passage_id, vector FROM vectors WHERE stamp = ?"
            " AND passage_id IN (SELECT value FROM json_each(?))",
            (stamp, json.dumps(ids)),
        )
        true = {passage_id: np.frombuffer(blob, "<f4") for passage_id, blob in rows}
        for passage_id, vector in zip(ids, vectors, strict=True):
            if passage_id in true and not np.allclose(true[passage_id], vector, atol=1e-5):
                return False
        for number in range(0, len(ids), max(1, len(ids) // 20)):
            found = list(store.query(vectors[number], 10).result())
            best = index_scan.similarities(connection, found, stamp, vectors[number])
            if ids[number] in true and max(best.values(), default=0) < 0.999 * float(
                vectors[number] @ vectors[number]
            ):
                return False
    return True


def _documents(connection: sqlite3.Connection, *, library_only: bool = False) -> str:
    """A digest of the documents that an index should hold: how many passages each has, and the first one's id.

    That id changes whenever a document gets other passages (store.py).
    """
    attached = " AND d.conversation IS NULL" if library_only else ""
    rows = connection.execute(
        "SELECT d.id, d.passages, p.id FROM documents d"
        " LEFT JOIN passages p ON p.document_id = d.id AND p.ordinal = 0"
        f" WHERE d.deleted_at IS NULL AND d.passages > 0{attached} ORDER BY d.id"
    )
    return hashlib.sha256(json.dumps(rows.fetchall()).encode()).hexdigest()


def _seal(database: Path, shelves: list[_Shelf[Any]]) -> None:
    """Seal what holds just what SQLite holds; what differs is left to be compared at the next opening."""
    with contextlib.closing(index_scan.open_read_only(database)) as connection:
        for shelf in shelves:
            connection.execute("BEGIN")  # both of the same moment
            expected = _expected(connection, library_only=shelf.library_only)
            documents = _documents(connection, library_only=shelf.library_only)
            connection.execute("COMMIT")
            if shelf.store.ids() == expected.keys():
                write_seal(shelf.folder, {"documents": documents})
            shelf.sealed = True


def dense_lock(folder: Path) -> Path:
    """The lock file of the process that holds the Chroma folders within `folder`."""
    return folder.with_name(f"{folder.name}-vectors.lock")


def _fetched(limit: int, wanted: SearchFilter) -> int:
    whole = wanted == SearchFilter(conversation=wanted.conversation)
    return limit + _SPARE if whole else limit * _FILTERED_OVERFETCH


def _embedded_text(passage: IndexedPassage) -> str:
    return contextual_text(passage.name, passage.path, passage.text)


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

    sys.setswitchinterval(_SWITCH_SECONDS)
    values = json.loads(arguments[0])
    folder = Path(values["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Neither Chroma nor tantivy bears two processes: a successor waits until both of these have ended.
    with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=_PREDECESSOR_SECONDS):
        with FileLock(dense_lock(folder), timeout=_PREDECESSOR_SECONDS):
            pass
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
                "rerank": worker.rerank,
            }
        )


if __name__ == "__main__":
    main(sys.argv[1:])
