"""The person's own questions, each with the places that answer it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.evaluation.gold import Anchor, Target, Words, anchored, locate
from chatbot.i18n import N_
from chatbot.library.store import DocumentStore
from chatbot.text import fold, nfc
from chatbot.types import Approved, Document, Passage, Source

Origin = Literal["typed", "imported", "gathered"]


@dataclass(frozen=True, slots=True)
class Gold:
    """A right place as it was when it was chosen, and how to find its document again."""

    document_id: str
    sha256: str
    name: str
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class OwnQuestion:
    """A question of the person's, never changed: an edited one is a new one."""

    id: str
    text: str
    origin: Origin
    created_at: float
    golds: tuple[Gold, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A question ready to be asked: any of the targets is right."""

    id: str
    text: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A question from a conversation, with the passages that its answer rested on."""

    approved: Approved
    targets: tuple[Target, ...]


class Questions:
    """The question set of one data folder."""

    def __init__(self, database: Database, store: DocumentStore) -> None:
        self._database = database
        self._store = store

    def all(self) -> list[OwnQuestion]:
        """All questions, the latest first."""
        golds: dict[str, list[Gold]] = {}
        for row in self._database.rows("SELECT * FROM gold ORDER BY question_id, ordinal"):
            golds.setdefault(row["question_id"], []).append(_gold(row))
        rows = self._database.rows("SELECT * FROM questions ORDER BY created_at DESC, rowid DESC")
        return [
            OwnQuestion(
                row["id"],
                row["text"],
                row["origin"],
                row["created_at"],
                tuple(golds.get(row["id"], ())),
            )
            for row in rows
        ]

    def add(
        self,
        text: str,
        targets: Sequence[Target],
        origin: Origin = "typed",
        message_id: str | None = None,
    ) -> str | None:
        """Keep a question with its right places; None when the very same is there already.

        Raises NotFoundError when a document is gone, or no place was given.
        """
        return self.add_all([(text, targets)], origin, message_id)[0]

    def add_all(
        self,
        asked: Iterable[tuple[str, Sequence[Target]]],
        origin: Origin,
        message_id: str | None = None,
    ) -> list[str | None]:
        """`add` for many at once: all or none of them."""
        finder = Finder(self._store)
        known = {_sameness(question.text, question.golds) for question in self.all()}
        added: list[str | None] = []
        with self._database.transaction() as connection:
            for words, targets in asked:
                text = " ".join(nfc(words).split())
                golds = [finder.kept(target) for target in dict.fromkeys(targets)]
                if not text or not golds:
                    raise NotFoundError(N_("the question or its right passage"))
                if _sameness(text, golds) in known:
                    added.append(None)
                    continue
                known.add(_sameness(text, golds))
                added.append(uuid.uuid4().hex)
                connection.execute(
                    "INSERT INTO questions VALUES (?, ?, ?, ?, ?)",
                    (added[-1], text, origin, message_id, time.time()),
                )
                connection.executemany(
                    "INSERT INTO gold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        (added[-1], n, g.document_id, g.sha256, g.name, g.anchor.start, g.anchor.end,
                         g.anchor.words, g.anchor.head, g.anchor.tail)
                        for n, g in enumerate(golds)
                    ),
                )  # fmt: skip
        return added

    def remove(self, *question_ids: str) -> None:
        """Erase questions; figures of earlier runs stay, their words go."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM questions WHERE id = ?", ((each,) for each in question_ids)
            )
        self._database.forget()

    def replace(self, question_id: str, text: str, targets: Sequence[Target]) -> None:
        """Put an edited question in the place of an old one."""
        row = self._database.row("SELECT * FROM questions WHERE id = ?", (question_id,))
        if row is None:
            raise NotFoundError(N_("this question"))
        if self.add(text, targets, row["origin"], row["message_id"]):
            self.remove(question_id)

    # --- where the answers lie now ------------------------------------------------------------

    def cases(self) -> tuple[list[Case], list[OwnQuestion]]:
        """The questions that can be asked, oldest first, and those none of whose places is there any more."""
        finder = Finder(self._store)
        cases, lost = [], []
        for question in reversed(self.all()):
            targets = finder.targets(question)
            if targets:
                cases.append(Case(question.id, question.text, targets))
            else:
                lost.append(question)
        return cases, lost

    # --- gathering ----------------------------------------------------------------------------

    def suggestions(self, approved: Iterable[Approved]) -> list[Suggestion]:
        """What approved answers suggest, without those taken or dismissed, or whose documents are gone.

        A follow-up is among them; `approved.first` tells that a question needs no conversation before it.
        """
        rows = self._database.rows(
            "SELECT message_id FROM questions WHERE message_id IS NOT NULL"
            " UNION SELECT message_id FROM dismissed"
        )
        settled = {row["message_id"] for row in rows}
        finder = Finder(self._store)
        found = []
        for each in approved:
            if each.message_id in settled:
                continue
            targets = tuple(t for s in each.sources if (t := finder.of_source(s)))
            if targets:
                found.append(Suggestion(each, tuple(dict.fromkeys(targets))))
        return found

    def dismiss(self, message_id: str) -> None:
        """Never suggest this answer's question again."""
        self._database.execute("INSERT OR IGNORE INTO dismissed VALUES (?)", (message_id,))

    def purge(self) -> None:
        """Erase all questions and what was dismissed."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM questions")
            connection.execute("DELETE FROM dismissed")


class Finder:
    """Finds places in the documents as they are now; reads each document's text at most once."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._documents = [document for document in store.list() if document.passages]
        self._words: dict[str, Words] = {}

    def targets(self, question: OwnQuestion) -> tuple[Target, ...]:
        """Where the question's right places are now; those that are gone are left out."""
        found = (self.target(gold) for gold in question.golds)
        return tuple(dict.fromkeys(target for target in found if target))

    def target(self, gold: Gold) -> Target | None:
        """The place in the same document, in the same file added anew, or in a file that took its name."""
        for document in self._documents_of(gold):
            if gold.anchor.end is None:
                return Target(document.id)
            place = locate(gold.anchor, self.words(document.id))
            if place:
                return Target(document.id, *place)
        return None

    def of_source(self, source: Source) -> Target | None:
        """The passage that an answer cited."""
        if source.document_id not in {d.id for d in self._documents}:
            return None
        known = self._store.contents.passages_by_id([source.passage_id]).get(source.passage_id)
        if known and known.text == source.text:
            return Target(known.document_id, known.start, known.end)
        words, quoted = self.words(source.document_id), Words(source.text)
        if not quoted.folded:
            return None
        places = words.find(quoted.folded)
        if not places:
            return None
        last = places[0] + len(quoted.folded) - 1
        return Target(source.document_id, words.spans[places[0]][0], words.spans[last][1])

    def kept(self, target: Target) -> Gold:
        """The place as it is stored. Raises NotFoundError when its document is gone."""
        document = self._store.get(target.document_id)
        anchor = Anchor(0, None)
        if target.end is not None:
            anchor = anchored(self.words(document.id), target.start, target.end)
        return Gold(document.id, document.sha256, document.name, anchor)

    def words(self, document_id: str) -> Words:
        if document_id not in self._words:
            self._words[document_id] = Words(self._store.contents.text(document_id))
        return self._words[document_id]

    def _documents_of(self, gold: Gold) -> list[Document]:
        known = [
            (d.id != gold.document_id, d.sha256 != gold.sha256, d.name != gold.name, n)
            for n, d in enumerate(self._documents)
        ]
        return [self._documents[place[-1]] for place in sorted(known) if not all(place[:-1])]

    def passage(self, target: Target) -> Passage | None:
        """The first passage that is right for the target: what a person is shown of it."""
        passages = self._store.contents.passages(target.document_id)
        return next((p for p in passages if target.covers(p.document_id, p.start, p.end)), None)


def _sameness(text: str, golds: Iterable[Gold]) -> tuple[str, frozenset[tuple[str, int, str, str]]]:
    """Equal for questions that differ in marks and case only, and places that differ at their edges only."""
    places = ((g.document_id, g.anchor.words, g.anchor.head, g.anchor.tail) for g in golds)
    return fold(text), frozenset(places)


def _gold(row: Any) -> Gold:
    anchor = Anchor(row["start"], row["end"], row["words"], row["head"], row["tail"])
    return Gold(row["document_id"], row["sha256"], row["name"], anchor)
