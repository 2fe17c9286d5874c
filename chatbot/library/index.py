"""The search index as the owner sees it: a process that may die, and an answer that never fails.

`Index` drives `chatbot.library.index_worker` from one thread: opens it, feeds it what SQLite has and the
index lacks, commits the vectors it makes, seals it at rest, and opens it again when it dies. While it is
not there, `query` compares every passage in SQLite itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chatbot.child import Child
from chatbot.database import Database
from chatbot.errors import ChatbotError, ChildDied, ChildError, NoReranker
from chatbot.types import Passage, SearchFilter, SearchMode

if TYPE_CHECKING:
    from chatbot.library.embedders import Vectors

log = logging.getLogger(__name__)

IndexState = Literal["opening", "rebuilding", "ready", "failed", "closed"]

_MOST_ATTEMPTS = 3
"""Openings in a row that may fail before the index is given up until the next start or rebuild."""
_QUIET_SECONDS = 2.0
"""Without changes for so long, the index is sealed."""
_OPENING_SECONDS = 2.0
"""How long a question waits for an index that is just being opened."""
_EMBED_SECONDS = 0.4
_REST, _LOOK_SECONDS = 19, 0.1
_PATIENCE_SECONDS = 600.0
_CROWD = 200
"""More documents at once are nobody's to wait for."""
_MOST_DEATHS, _DEATHS_WITHIN = 3, 600.0


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """Where the index stands; `done` of `total` passages while it is (re)built."""

    state: IndexState
    done: int = 0
    total: int = 0
    error: ChatbotError | None = None
    """Why there are no vectors, or no index; search goes on without."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that one or both sides found; scores of one side compare with each other only."""

    passage_id: str
    lexical: float | None
    dense: float | None
    lexical_rank: int | None
    dense_rank: int | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the index offers for a question, in no particular order of merit.

    `word_weights` are the question's folded words with their rarity in the library, `dense_weight` the
    share that similarities deserve in a fused score, `scanned` tells that SQLite was read instead.
    `question` is what was looked up: typing errors put right; '' when it is as it was asked. `other` weighs
    words of official texts for what it says in everyday words or in the other language.
    """

    hits: tuple[Hit, ...]
    word_weights: dict[str, float]
    dense_weight: float
    scanned: bool = False
    question: str = ""
    other: dict[str, float] = field(default_factory=dict)


class Index:
    """Finds passages by words and by vectors; safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        embedder_id: str,
        chunker_version: str,
        *,
        allow_download: bool = False,
        open_after: float = 0.0,
        answering: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open in the background, at the latest after that many seconds, earlier when it is needed.

        `folder` is the index's own: all in it may be wiped. While `answering` says that a model writes,
        work on the index takes a twentieth of the time; questions are answered at once all the same.
        """
        self._database = database
        self._embedder_id = embedder_id
        self._chunker_version = chunker_version
        self._allow_download = allow_download
        self._child = Child(
            "chatbot.library.index_worker",
            json.dumps(
                {
                    "database": str(database.file),
                    "folder": str(folder),
                    "embedder": embedder_id,
                    "chunker_version": chunker_version,
                    "allow_download": allow_download,
                }
            ),
            name="index",
            environment={
                "ANONYMIZED_TELEMETRY": "False",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "TOKENIZERS_PARALLELISM": "false",
                **({} if allow_download else {"HF_HUB_OFFLINE": "1"}),
            },
            start_within=120,
        )
        self._changed = threading.Condition()
        self._status = IndexStatus("opening")
        self._stamp: str | None = None
        self._opened_pid: int | None = None
        self._answering = self._opening = False
        self._pending: set[str] = set()
        self._asked = self._settled = 0
        self._wipe = False
        self._closing = self._left = False
        self._attempts = 0
        self._deaths: list[float] = []
        self._batch = 8
        self._reranker = ""
        self._open_after = open_after
        self._model_writes = answering
        self._needed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="index-keeper", daemon=True)
        self._thread.start()

    # --- asking -------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process that holds the embedder and the reranker; None while none runs."""
        return self._child.pid

    @property
    def stamp(self) -> str:
        """The current embedder's stamp, the key of its rows in `vectors`. Waits for a model to load."""
        self.open_now()
        if self._stamp is None:
            self._stamp = self._surface_stamp()
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stamp or self._status.error or self._status.state in ("failed", "closed")
                ),
                600,
            )
        if self._stamp is None:
            raise self._status.error or ChildDied("closed", name="index")
        return self._stamp

    def status(self) -> IndexStatus:
        return self._status

    def open_now(self) -> None:
        """Do not wait any longer with opening."""
        self._needed.set()

    def wait_ready(self, timeout: float = 60) -> bool:
        """Wait until nothing is being opened, rebuilt or taken in; False when that took longer, or failed."""
        self.open_now()
        with self._changed:
            asked = self._asked
            self._changed.wait_for(
                lambda: (
                    (self._status.state == "ready" and self._settled >= asked)
                    or self._status.state in ("failed", "closed")
                ),
                timeout,
            )
        return self._status.state == "ready"

    def query(
        self,
        text: str,
        limit: int = 50,
        filter: SearchFilter = SearchFilter(),  # noqa: A002, B008  frozen; the domain's own word
        mode: SearchMode = "hybrid",
    ) -> Candidates:
        """Up to `limit` candidates of each side that the filter allows; from SQLite if need be."""
        if self._status.state == "opening" and not self._answering:
            self.open_now()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._answering or self._status.state != "opening", _OPENING_SECONDS
                )
        if self._answering and not self._is_gone():
            try:
                found, _ = self._child.call(
                    "query",
                    {"text": text, "limit": limit, "filter": asdict(filter), "mode": mode},
                    timeout=60,
                )
                return Candidates(
                    _ranked([(hit[0], hit[1], hit[2]) for hit in found["hits"]]),
                    found["word_weights"],
                    found["dense_weight"],
                    question=found["question"],
                    other=found["other"],
                )
            except ChildError as error:
                log.warning("the index did not answer, SQLite does: %s", error)
                if not self._is_gone():
                    self._child.restart()  # what it works with has died
                self._wake()
        return self._scan(text, limit, filter, mode)

    def embed(self, texts: Sequence[str], kind: str) -> Vectors:
        """The current embedder's vectors of "query" or "passage" texts, a row each, in calls short enough for questions to pass."""
        import numpy as np

        pieces: list[Vectors] = []
        done = 0
        while done < len(texts):
            part = list(texts[done : done + self._batch])
            started = time.monotonic()
            reply, blob = self._embed_piece(part, kind)
            pieces.append(np.frombuffer(blob, "<f4").reshape(len(part), reply["dimension"]))
            done += len(part)
            took = time.monotonic() - started
            quick = took < _EMBED_SECONDS
            self._batch = min(512, self._batch * 2) if quick else max(1, self._batch // 2)
            if kind == "passage":
                self._give_way(took)
        return np.concatenate(pieces) if pieces else np.empty((0, 0), np.float32)

    def _embed_piece(self, texts: list[str], kind: str) -> tuple[dict[str, Any], bytes]:
        params = {"texts": texts, "kind": kind}
        try:
            return self._child.call("embed", params, timeout=600)
        except ChildDied:
            if self._closing:
                raise
            return self._child.call("embed", params, timeout=600)  # a pure function: ask again

    def passages(self, passage_ids: Sequence[str]) -> dict[str, tuple[Passage, str]]:
        """Each of these passages that is not deleted, with its document's name."""
        rows = self._database.rows(
            'SELECT p.id, p.document_id, p.ordinal, p.text, p.start, p."end", p.page, p.path, d.name'
            " FROM passages p JOIN documents d ON d.id = p.document_id WHERE d.deleted_at IS NULL"
            " AND p.id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(passage_ids)),),
        )
        return {row["id"]: (Passage(*tuple(row)[:-1]), row["name"]) for row in rows}

    def referred(self, passages: Sequence[Passage]) -> list[tuple[str, str]]:
        """(passage that points, passage pointed to): the articles that these passages refer to."""
        from chatbot.library.referring import referred

        return referred(self._database, passages)

    def use_reranker(self, name: str) -> None:
        """From now on rerank with that cross-encoder, a folder or a Hugging Face name; '' for none."""
        self._reranker = name

    def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers, by the cross-encoder. Raises ModelError when there is none."""
        if not self._reranker:
            raise NoReranker
        reply, _ = self._child.call(
            "rerank",
            {"model": self._reranker, "question": question, "texts": list(texts)},
            timeout=_PATIENCE_SECONDS,
        )
        return [float(score) for score in reply["scores"]]

    # --- changing -----------------------------------------------------------------------------

    def add(self, document_ids: Sequence[str]) -> None:
        """Make these committed documents findable; returns when they are, or when the index is down.

        A crowd is followed in the background: `query` hides what is deleted at once, whatever the index holds.
        Also for documents whose name, place or passages changed. Passages without a vector get one.
        """
        self._refresh(document_ids)

    def announce(self, added: Sequence[str], removed: Sequence[str] = ()) -> None:
        """Begin what `add` and `remove` do: the next document is read meanwhile, and many are indexed together.

        Waits only while a crowd is behind. `wait_ready` returns when all is done.
        """
        self._line_up([*added, *removed])
        with self._changed:
            self._changed.wait_for(lambda: len(self._pending) <= _CROWD or self._given_up())

    def remove(self, document_ids: Sequence[str]) -> None:
        """Take out documents that are deleted in SQLite (`query` hides them from that moment on)."""
        self._refresh(document_ids)

    def rebuild(self) -> None:
        """Wipe the folder and build it anew from SQLite in the background; the words of deleted texts go."""
        with self._changed:
            self._wipe = True
            self._status = IndexStatus("rebuilding")
            self._answering = False
            self._changed.notify_all()

    def let_go(self) -> None:
        """Nobody waits for `add` and `remove` any more; what they miss is found at the next opening."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def close(self) -> None:
        """Seal what is at rest and end the process."""
        self.open_now()
        self.let_go()
        with self._changed:
            if self._closing:
                return
            self._closing = True
            usable = (
                self._status.state == "ready" and self._opened_pid == self._child.pid is not None
            )
            self._changed.notify_all()
        self._thread.join(10)
        if usable:
            with contextlib.suppress(ChatbotError):
                self._seal(10)
        self._child.close()
        self._set(IndexStatus("closed"))

    def _refresh(self, document_ids: Sequence[str]) -> None:
        mine = self._line_up(document_ids)
        if len(document_ids) > _CROWD:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._settled >= mine or self._given_up())

    def _line_up(self, document_ids: Sequence[str]) -> int:
        self.open_now()
        with self._changed:
            self._pending.update(document_ids)
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def _given_up(self) -> bool:
        return self._left or self._status.state in ("failed", "closed")

    # --- the keeper's thread --------------------------------------------------------------------

    def _keep(self) -> None:
        self._needed.wait(self._open_after)
        while not self._closing:
            try:
                if self._wipe or self._is_gone():
                    self._attempts += 1
                    self._open(wipe=self._wipe or self._attempts >= _MOST_ATTEMPTS)
                self._catch_up()
                self._rest()
            except ChatbotError as error:
                if not self._closing:
                    self._recover(error)

    def _recover(self, error: ChatbotError) -> None:
        """Make ready for another opening; after too many failures in a row, stop trying."""
        log.warning("the index stopped: %s", error)
        self._answering = False
        self._opened_pid = None
        self._child.restart()
        if self._attempts < _MOST_ATTEMPTS:
            self._set(IndexStatus("rebuilding"))
            return
        self._set(IndexStatus("failed", error=error))
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._wipe)
        self._attempts = 0

    def _open(self, *, wipe: bool) -> None:
        if wipe:
            self._child.restart()
        self._answering = False
        patience = 120 + self._database.rows("SELECT count(*) FROM passages")[0][0] / 100
        reply, _ = self._child.call("open", {"wipe": wipe}, timeout=patience)
        with self._changed:
            self._wipe = False
            self._opened_pid = self._child.pid
            self._opening = True
            self._answering = reply["answering"]
            state: IndexState = "rebuilding" if reply["missing"] or wipe else "opening"
            self._status = IndexStatus(state, 0, reply["missing"])
            self._changed.notify_all()

    def _catch_up(self) -> None:
        """Do everything that is asked for or missing, in short steps; then say so."""
        while not (self._closing or self._wipe):
            with self._changed:
                asked, documents = self._asked, sorted(self._pending)
            missing = 0
            if documents:
                for start in range(0, len(documents), _CROWD):  # questions pass in between
                    part = documents[start : start + _CROWD]
                    reply, _ = self._child.call("plan", {"documents": part})
                    missing = reply["missing"]
            missing = self._work(max(missing, self._status.total - self._status.done))
            with self._changed:
                if missing:
                    return
                self._pending.difference_update(documents)
                if self._asked == asked:
                    self._settled = asked
                    self._status = IndexStatus("ready", error=self._status.error)
                    self._changed.notify_all()
                    return

    def _work(self, missing: int) -> int:
        total = missing
        while (missing or self._opening) and not (self._closing or self._wipe):
            started = time.monotonic()
            reply, blob = self._child.call("step")
            took = time.monotonic() - started
            self._stamp = reply["stamp"] or self._stamp
            if reply["vectors"]:
                self._commit(reply["vectors"], blob)
            missing = reply["missing"]
            total = max(total, missing)
            with self._changed:
                self._opening = reply["opening"]
                self._answering = reply["answering"]
                state, error = self._status.state, self._status.error
                if state != "ready":
                    state = "rebuilding" if missing or not self._opening else "opening"
                if reply["error"]:
                    error = ChatbotError.from_dict(reply["error"])
                self._status = IndexStatus(state, total - missing, total, error)
                self._changed.notify_all()
            self._give_way(took)
        return missing

    def _give_way(self, worked: float) -> None:
        """While a model writes, rest after so many seconds of work: one busy core costs it two thirds of its speed.

        The lowest priority would not do, for a question waits until the piece of work before it is done.
        """
        until = time.monotonic() + _REST * worked
        while self._model_writes() and time.monotonic() < until:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing or self._wipe, _LOOK_SECONDS):
                    return

    def _commit(self, passage_ids: list[str], blob: bytes) -> None:
        assert self._stamp is not None
        size = len(blob) // len(passage_ids)
        rows = [
            (self._stamp, blob[number * size : (number + 1) * size], passage_id)
            for number, passage_id in enumerate(passage_ids)
        ]
        with self._database.transaction() as connection:
            # A passage may have been deleted while its vector was made.
            connection.executemany(
                "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM passages WHERE id = ?", rows
            )

    def _rest(self) -> None:
        """Wait for something to do; after a quiet while, seal."""
        sealed = False
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._has_work() or self._is_gone(), 1.0 if sealed else _QUIET_SECONDS
                )
            if self._is_gone():
                self._note_death()
                raise ChildDied("it ended at work", name="index")
            if self._has_work():
                return
            if not sealed and self._seal(_PATIENCE_SECONDS):
                self._drop_old_vectors()
                self._attempts = 0
                sealed = True

    def _seal(self, seconds: float) -> bool:
        """Whether the index could be sealed before there was other work to do."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (self._closing or not self._has_work()):
            reply, _ = self._child.call("seal", timeout=seconds)
            if reply["done"]:
                return True
        return False

    def _note_death(self) -> None:
        """An index that keeps killing its process at work is wiped, though its seal holds."""
        now = time.monotonic()
        self._deaths = [t for t in self._deaths if now - t < _DEATHS_WITHIN] + [now]
        if len(self._deaths) >= _MOST_DEATHS:
            self._wipe, self._deaths = True, []

    def _is_gone(self) -> bool:
        return self._opened_pid is None or self._opened_pid != self._child.pid

    def _has_work(self) -> bool:
        return self._closing or self._wipe or self._asked > self._settled

    def _drop_old_vectors(self) -> None:
        if self._stamp and self._database.row(
            "SELECT 1 FROM vectors WHERE stamp != ? LIMIT 1", (self._stamp,)
        ):
            self._database.execute("DELETE FROM vectors WHERE stamp != ?", (self._stamp,))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _set(self, status: IndexStatus) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()

    # --- without the process ----------------------------------------------------------------------

    def _surface_stamp(self) -> str | None:
        """The built-in embedder's stamp, which needs no process to be known."""
        from chatbot.library.embedders import SURFACE, SurfaceEmbedder, stamp_of

        if self._embedder_id != SURFACE:
            return None
        return stamp_of(SurfaceEmbedder(), self._chunker_version)

    def _scan(self, text: str, limit: int, wanted: SearchFilter, mode: SearchMode) -> Candidates:
        from chatbot.library import index_scan
        from chatbot.library.embedders import SURFACE, SurfaceEmbedder

        connection = index_scan.open_read_only(self._database.file)
        with contextlib.closing(connection):
            condition = index_scan.allowed(wanted)
            near: dict[str, float] = {}
            dense: dict[str, float] = {}
            weight = 0.0
            if self._embedder_id == SURFACE:
                embedder = SurfaceEmbedder()
                vector = embedder.embed([text], "query")[0]
                weight = embedder.weight("en")
                near = dict(
                    index_scan.nearest(connection, condition, self.stamp, vector, 10 * limit)
                )
            words, weights = index_scan.word_scores(connection, condition, text, limit, [*near])
            lexical = dict(words) if mode != "dense" or not near else {}
            if near and mode != "lexical":
                dense = index_scan.similarities(
                    connection, [*[*near][:limit], *lexical], self.stamp, vector
                )
        ids = dict.fromkeys([*lexical, *dense])
        return Candidates(
            _ranked([(p, lexical.get(p), dense.get(p)) for p in ids]), weights, weight, scanned=True
        )


def _ranked(hits: list[tuple[str, float | None, float | None]]) -> tuple[Hit, ...]:
    lexical_ranks = _ranks((passage_id, score) for passage_id, score, _ in hits)
    dense_ranks = _ranks((passage_id, score) for passage_id, _, score in hits)
    return tuple(
        Hit(passage_id, lexical, dense, lexical_ranks.get(passage_id), dense_ranks.get(passage_id))
        for passage_id, lexical, dense in hits
    )


def _ranks(scores: Iterable[tuple[str, float | None]]) -> dict[str, int]:
    scored = [(score, passage_id) for passage_id, score in scores if score is not None]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return {passage_id: rank for rank, (_, passage_id) in enumerate(scored, 1)}
