"""Conversations on disk: trees of messages in which nothing is overwritten.

Regenerating or editing adds a sibling; `branch` walks from the first message to the leaf last looked at.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from chatbot.chat.citations import cited_numbers, split_thinking
from chatbot.database import Database
from chatbot.errors import ChatbotError, NotFoundError
from chatbot.i18n import N_, translate
from chatbot.text import fold, folded_words
from chatbot.types import (
    Approved,
    Conversation,
    ConversationSettings,
    GenerationOptions,
    GenerationStats,
    Language,
    Message,
    Role,
    SearchFilter,
    SentenceSupport,
    Source,
)

INCOGNITO = "incognito-"
"""Ids of conversations that live in memory only begin with this."""

Gone = Callable[[Sequence[str] | None], None]
NEW_TITLE = N_("New conversation")
_TITLE_LENGTH = 60
_SEPARATOR = " · "


class History:
    """All conversations of one database; `incognito` marks the one kept in memory."""

    def __init__(
        self, database: Database, *, incognito: bool = False, gone: Gone = lambda _ids: None
    ) -> None:
        """`gone` hears which conversations were deleted, also into the trash; None: all."""
        self._database = database
        self._incognito = incognito
        self._gone = gone

    # --- conversations ----------------------------------------------------------------------

    def create(self, settings: ConversationSettings | None = None) -> Conversation:
        """A new, empty conversation."""
        now = time.time()
        conversation = Conversation(
            id=(INCOGNITO if self._incognito else "") + uuid.uuid4().hex,
            title="",
            created_at=now,
            updated_at=now,
            incognito=self._incognito,
            settings=settings or ConversationSettings(),
        )
        self._database.execute(
            "INSERT INTO conversations (id, title, created_at, updated_at, settings) VALUES (?,?,?,?,?)",
            (conversation.id, "", now, now, _dump(asdict(conversation.settings))),
        )
        return conversation

    def conversation(self, conversation_id: str) -> Conversation:
        """That conversation, deleted or not. Raises NotFoundError."""
        row = self._database.row("SELECT * FROM conversations WHERE id = ?", (conversation_id,))
        if row is None:
            raise NotFoundError(N_("this conversation"))
        return self._conversation(row)

    def conversations(self, *, deleted: bool = False) -> list[Conversation]:
        """Every conversation with a message in it, pinned first, then the latest first."""
        rows = self._database.rows(
            "SELECT * FROM conversations c WHERE (deleted_at IS NOT NULL) = ? AND EXISTS"
            " (SELECT 1 FROM messages WHERE conversation_id = c.id)"
            " ORDER BY pinned DESC, updated_at DESC",
            (deleted,),
        )
        return [self._conversation(row) for row in rows]

    def ids(self) -> list[str]:
        """Every conversation that is not deleted."""
        rows = self._database.rows("SELECT id FROM conversations WHERE deleted_at IS NULL")
        return [row["id"] for row in rows]

    def rename(self, conversation_id: str, title: str) -> None:
        self._set(conversation_id, title=" ".join(title.split())[:200])

    def pin(self, conversation_id: str, pinned: bool) -> None:
        self._set(conversation_id, pinned=int(pinned))

    def delete(self, conversation_id: str) -> None:
        """Move to the trash; `restore` brings it back, `purge` ends it."""
        self._set(conversation_id, deleted_at=time.time())
        self._gone([conversation_id])

    def restore(self, conversation_id: str) -> None:
        self._set(conversation_id, deleted_at=None)

    def purge(self, conversation_id: str) -> None:
        """Erase a conversation from the disk."""
        self._erase("id = ?", (conversation_id,))

    def purge_trash(self, older_than: float = 0.0) -> None:
        """Erase from the disk what has lain in the trash for so many seconds."""
        long_ago = (time.time() - older_than,)
        if self._database.row("SELECT 1 FROM conversations WHERE deleted_at <= ?", long_ago):
            self._erase("deleted_at <= ?", long_ago)

    def _erase(self, which: str, values: tuple[object, ...]) -> None:
        ids = [
            row["id"]
            for row in self._database.rows(f"SELECT id FROM conversations WHERE {which}", values)
        ]
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM message_words WHERE conversation_id IN"
                f" (SELECT id FROM conversations WHERE {which})",
                values,
            )
            connection.execute(f"DELETE FROM conversations WHERE {which}", values)
            _forget_words(connection)
        self._database.forget()
        self._gone(ids)

    def purge_everything(self) -> None:
        """Erase all conversations and presets."""
        with self._database.transaction() as connection:
            for table in ("message_words", "conversations", "presets"):
                connection.execute(f"DELETE FROM {table}")
            _forget_words(connection)
        self._database.forget()
        self._gone(None)

    def configure(self, conversation_id: str, settings: ConversationSettings) -> None:
        """Store what this conversation answers with from now on."""
        self._set(conversation_id, settings=_dump(asdict(settings)))

    # --- messages ---------------------------------------------------------------------------

    def add(
        self,
        conversation_id: str,
        parent_id: str | None,
        role: Role,
        text: str,
        **values: Any,
    ) -> Message:
        """Append a message below `parent_id` (None: a first message) and look at it from now on."""
        message = Message(
            id=uuid.uuid4().hex,
            conversation_id=conversation_id,
            parent_id=parent_id,
            role=role,
            text=_storable(text),
            created_at=time.time(),
            **values,
        )
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO messages (id, conversation_id, parent_id, role, text, created_at, state,"
                " engine, model, sources, stats, notices, error, thumb, note, support)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                _message_values(message),
            )
            connection.execute(
                "UPDATE conversations SET leaf_id = ?, updated_at = ?,"
                " title = CASE WHEN title = '' AND ? = 'user' THEN ? ELSE title END WHERE id = ?",
                (message.id, message.created_at, role, short_title(message.text), conversation_id),
            )
            _index_words(connection, message)
        return message

    def save(self, message: Message) -> None:
        """Replace the stored row of a message that grew or was judged."""
        message = replace(message, text=_storable(message.text))
        values = _message_values(message)
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE messages SET text = ?, created_at = ?, state = ?, engine = ?, model = ?,"
                " sources = ?, stats = ?, notices = ?, error = ?, thumb = ?, note = ?,"
                " support = ? WHERE id = ?",
                (*values[4:], message.id),
            )
            if message.state != "writing":
                _index_words(connection, message)

    def message(self, message_id: str) -> Message:
        """That message. Raises NotFoundError."""
        row = self._database.row("SELECT * FROM messages WHERE id = ?", (message_id,))
        if row is None:
            raise NotFoundError(N_("this message"))
        return _message(row)

    def branch(self, conversation_id: str) -> list[Message]:
        """The messages from the first one to the leaf last looked at."""
        conversation = self.conversation(conversation_id)
        by_id = {m.id: m for m in self._messages(conversation_id)}
        path: list[Message] = []
        at = conversation.leaf_id
        while at and (message := by_id.get(at)):
            path.append(message)
            at = message.parent_id
        return path[::-1]

    def siblings(self, conversation_id: str) -> dict[str, list[str]]:
        """For every message id, the ids of all versions at its place, the oldest first."""
        groups: dict[tuple[str | None, Role], list[str]] = {}
        for message in self._messages(conversation_id):
            groups.setdefault((message.parent_id, message.role), []).append(message.id)
        return {member: group for group in groups.values() for member in group}

    def select(self, conversation_id: str, message_id: str) -> None:
        """Look at the branch through that message, down to its newest leaf."""
        newest = {m.parent_id: m.id for m in self._messages(conversation_id)}
        leaf = message_id
        while below := newest.get(leaf):
            leaf = below
        self._set(conversation_id, leaf_id=leaf)

    def unfinished(self) -> list[Message]:
        """Answers that were being written when Hearth ended."""
        rows = self._database.rows("SELECT * FROM messages WHERE state = 'writing'")
        return [_message(row) for row in rows]

    def judge(self, message_id: str, *, thumb: int | None = None, note: str | None = None) -> None:
        """Keep what the person thinks of a message: thumb -1, 0 or 1, and a note."""
        message = self.message(message_id)
        self.save(
            replace(
                message,
                thumb=message.thumb if thumb is None else thumb,
                note=message.note if note is None else note,
            )
        )

    def opened(self, message_id: str, number: int) -> None:
        """Note that the person opened the passage this answer cites as [number]."""
        self._database.execute(
            "INSERT OR REPLACE INTO opened SELECT id, ?, ? FROM messages WHERE id = ?",
            (number, time.time(), message_id),
        )

    def written_by_models(self, limit: int = 200) -> list[tuple[float, str, GenerationStats]]:
        """When, by which model and how fast the last answers were written, oldest first; quotes left out."""
        rows = self._database.rows(
            "SELECT created_at, model, stats FROM messages WHERE stats IS NOT NULL"
            " AND engine NOT IN ('', 'extractive') ORDER BY created_at DESC LIMIT ?",
            (limit,),
        )
        return [
            (row["created_at"], row["model"], _record(GenerationStats, json.loads(row["stats"])))
            for row in reversed(rows)
        ]

    def approved(self) -> list[Approved]:
        """Questions whose answers got a thumb up, or of which a cited passage was opened; the latest first.

        Not those in the trash, nor answers with a thumb down; a thumb counts for every passage cited.
        """
        clicks: dict[str, set[int]] = {}
        for row in self._database.rows("SELECT message_id, number FROM opened"):
            clicks.setdefault(row["message_id"], set()).add(row["number"])
        rows = self._database.rows(
            "SELECT a.*, q.text AS question, q.parent_id AS before FROM messages a"
            " JOIN messages q ON q.id = a.parent_id AND q.role = 'user'"
            " JOIN conversations c ON c.id = a.conversation_id AND c.deleted_at IS NULL"
            " WHERE a.role = 'assistant' AND (a.thumb = 1 OR a.thumb = 0"
            " AND EXISTS (SELECT 1 FROM opened WHERE message_id = a.id)) ORDER BY a.created_at DESC"
        )
        found = []
        for row in rows:
            message = _message(row)
            cited = set(cited_numbers(split_thinking(message.text)[1])) if message.thumb else set()
            right = cited or clicks.get(message.id, set())
            sources = tuple(source for source in message.sources if source.number in right)
            if sources:
                question, first = row["question"], row["before"] is None
                found.append(Approved(message.id, question, sources, bool(message.thumb), first))
        return found

    # --- finding and carrying out -----------------------------------------------------------

    def search(self, text: str, limit: int = 30) -> list[tuple[Conversation, str]]:
        """Conversations with a message or title that has all words, each with a line of context."""
        wanted = folded_words(text)
        if not wanted:
            return []
        query = " AND ".join(f'"{word}"*' for word in wanted)
        rows = self._database.rows(
            "SELECT w.conversation_id AS id, m.text FROM message_words w"
            " JOIN messages m ON m.id = w.message_id"
            " JOIN conversations c ON c.id = w.conversation_id AND c.deleted_at IS NULL"
            " WHERE message_words MATCH ? ORDER BY rank LIMIT 200",
            (query,),
        )
        found: dict[str, str] = {}
        for row in rows:
            found.setdefault(row["id"], _context_line(row["text"], wanted))
        for conversation in self.conversations():
            title_words = fold(conversation.title)
            if conversation.id not in found and all(word in title_words for word in wanted):
                found[conversation.id] = conversation.title
        return [(self.conversation(key), line) for key, line in list(found.items())[:limit]]

    def export_json(self, conversation_id: str) -> str:
        """The whole tree with settings, sources and figures, as JSON."""
        conversation = self.conversation(conversation_id)
        messages = [asdict(m) for m in self._messages(conversation_id)]
        return json.dumps(
            {"hearth": 1, "conversation": asdict(conversation), "messages": messages},
            ensure_ascii=False,
            indent=1,
        )

    def export_markdown(self, conversation_id: str, language: Language) -> str:
        """The branch looked at, readable anywhere, with the sources under each answer."""
        conversation = self.conversation(conversation_id)
        lines = [f"# {conversation.title or translate(NEW_TITLE, language)}", ""]
        for message in self.branch(conversation_id):
            who = N_("You") if message.role == "user" else N_("Hearth")
            lines += [f"## {translate(who, language)}", "", message.text.strip(), ""]
            for source in message.sources:
                place = [source.document]
                if source.page:
                    place.append(translate(N_("page {page}"), language).format(page=source.page))
                place += [source.path] if source.path else []
                lines.append(f"- [{source.number}] {_SEPARATOR.join(place)}")
            lines += [""] if message.sources else []
            lines += _unsupported_lines(message, language)
        return "\n".join(lines)

    # --- presets ----------------------------------------------------------------------------

    def presets(self) -> dict[str, ConversationSettings]:
        """Saved answer settings by name."""
        rows = self._database.rows("SELECT * FROM presets ORDER BY name")
        return {row["name"]: settings_from(json.loads(row["settings"])) for row in rows}

    def save_preset(self, name: str, settings: ConversationSettings) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO presets VALUES (?, ?)", (name.strip(), _dump(asdict(settings)))
        )

    def delete_preset(self, name: str) -> None:
        self._database.execute("DELETE FROM presets WHERE name = ?", (name,))

    # --- rows -------------------------------------------------------------------------------

    def _messages(self, conversation_id: str) -> list[Message]:
        rows = self._database.rows(
            "SELECT * FROM messages WHERE conversation_id = ? ORDER BY created_at, rowid",
            (conversation_id,),
        )
        return [_message(row) for row in rows]

    def _set(self, conversation_id: str, **values: Any) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        changed = self._database.execute(
            f"UPDATE conversations SET {columns} WHERE id = ?",
            (*values.values(), conversation_id),
        )
        if not changed:
            raise NotFoundError(N_("this conversation"))

    def _conversation(self, row: Any) -> Conversation:
        return Conversation(
            id=row["id"],
            title=row["title"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            pinned=bool(row["pinned"]),
            incognito=self._incognito,
            deleted_at=row["deleted_at"],
            leaf_id=row["leaf_id"],
            settings=settings_from(json.loads(row["settings"])),
        )


def _storable(text: str) -> str:
    """The text with "?" for half a surrogate pair, which a broken client or server may send and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def short_title(text: str) -> str:
    """The beginning of a question as a title, cut between words."""
    line = " ".join(re.sub(r"[#*`>_]+", "", text).split())
    if len(line) <= _TITLE_LENGTH:
        return line
    return line[:_TITLE_LENGTH].rsplit(" ", 1)[0] + "…"


def settings_from(data: dict[str, Any]) -> ConversationSettings:
    """ConversationSettings from its asdict form; unknown keys of newer versions are ignored."""
    values = {k: v for k, v in data.items() if k in ConversationSettings.__dataclass_fields__}
    if "filter" in values:
        values["filter"] = _record(SearchFilter, values["filter"])
    if "options" in values:
        values["options"] = _record(GenerationOptions, values["options"])
    return ConversationSettings(**values)


def _record(cls: Any, data: dict[str, Any]) -> Any:
    fields = cls.__dataclass_fields__
    return cls(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in fields}
    )


def _message(row: Any) -> Message:
    stats = json.loads(row["stats"]) if row["stats"] else None
    return Message(
        id=row["id"],
        conversation_id=row["conversation_id"],
        parent_id=row["parent_id"],
        role=row["role"],
        text=row["text"],
        created_at=row["created_at"],
        state=row["state"],
        engine=row["engine"],
        model=row["model"],
        sources=tuple(_record(Source, s) for s in json.loads(row["sources"])),
        stats=_record(GenerationStats, stats) if stats else None,
        notices=tuple(json.loads(row["notices"])),
        error=row["error"],
        thumb=row["thumb"],
        note=row["note"],
        support=tuple(_record(SentenceSupport, s) for s in json.loads(row["support"])),
    )


def _message_values(message: Message) -> tuple[Any, ...]:
    return (
        message.id,
        message.conversation_id,
        message.parent_id,
        message.role,
        message.text,
        message.created_at,
        message.state,
        message.engine,
        message.model,
        _dump([asdict(s) for s in message.sources]),
        _dump(asdict(message.stats)) if message.stats else None,
        _dump(message.notices),
        message.error,
        message.thumb,
        message.note,
        _dump([asdict(s) for s in message.support]),
    )


def _index_words(connection: Any, message: Message) -> None:
    connection.execute("DELETE FROM message_words WHERE message_id = ?", (message.id,))
    connection.execute(
        "INSERT INTO message_words (folded, message_id, conversation_id) VALUES (?, ?, ?)",
        (fold(message.text), message.id, message.conversation_id),
    )


def _forget_words(connection: Any) -> None:
    # FTS5 only marks deleted words; merging its segments is what takes them off the disk.
    connection.execute("INSERT INTO message_words(message_words) VALUES ('optimize')")


def _context_line(text: str, wanted: list[str]) -> str:
    for line in text.splitlines():
        folded = fold(line)
        at = min((folded.find(w) for w in wanted if w in folded), default=-1)
        if at >= 0:
            start = max(0, at - 30)
            return ("…" if start else "") + line[start : start + 90].strip()
    return text[:90]


def _unsupported_lines(message: Message, language: Language) -> list[str]:
    """The sentences that the cited passages do not back, each with its reason."""
    from chatbot.chat.support import support_text  # late: see answer.py

    answer = split_thinking(message.text)[1]
    lines = [
        f"- “{answer[s.start : s.end]}” — {support_text(s, language)}"
        for s in message.support
        if not s.supported
    ]
    title = translate(N_("Not backed by the cited passages:"), language)
    return [title, "", *lines, ""] if lines else []


def error_text(message: Message, language: Language) -> str:
    """What went wrong with this answer, in the language; empty when nothing did."""
    if not message.error:
        return ""
    return ChatbotError.from_json(message.error).text(language)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
