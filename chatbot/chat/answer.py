"""The one place where search, prompt, engine and history meet.

An answer belongs to the owner process, not to a page: `Answers.ask` starts it in a thread and returns a
`Reply` that any number of pages may watch, leave and come back to. Only `Reply.stop`, or nobody
watching for a long time, ends it early; what was written is kept either way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

from chatbot.chat import follow_up
from chatbot.chat import prompt as prompts
from chatbot.chat.citations import keep_real_citations, numbers_of, split_thinking
from chatbot.chat.history import History
from chatbot.chat.reply import Reply
from chatbot.errors import (
    Busy,
    Cancelled,
    ChatbotError,
    DiskFullError,
    EngineError,
    OutOfMemory,
)
from chatbot.i18n import N_, translate
from chatbot.text import language_of
from chatbot.types import (
    Conversation,
    Delta,
    Engine,
    GenerationOptions,
    Language,
    Message,
    MessageState,
    Phase,
    SearchFilter,
    SearchResult,
    SentenceSupport,
    Source,
    Turn,
)

log = logging.getLogger(__name__)

NOT_FOUND = N_("Not found in your documents. The nearest passages are below.")
NOTHING_TO_SEARCH = N_("There are no documents to search in the chosen scope.")
NEEDS_MODEL = N_(
    "Without a model Hearth can only quote your documents. Load a model, or let the answer use documents."
)
SEARCHED_WITH = N_("Searched with: {question}")
INTERRUPTED = N_("Hearth was closed while this answer was being written.")
UNWATCHED = N_("Nobody was watching, so the answer was ended here.")

SAVE_SECONDS = 1.0
UNWATCHED_SECONDS = 600.0
FILES_SECONDS = 300.0
TRIES = 4
"""Other ways that are tried by themselves when memory ran out, each a load: then the person is asked."""
_STOP_SECONDS = 0.2
_TICK = Delta()
"""Engines send it while they are silent, so that stop is heard."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search brought, and how strongly it speaks to the question (False: not in there)."""

    results: Sequence[SearchResult]
    answers: bool


Find = Callable[[str, SearchFilter], Findings]
EngineFor = Callable[[str | None], Engine]


@dataclass(frozen=True, slots=True)
class Otherwise:
    """How to answer other than the conversation's settings say: the engine, and what to say of it.

    `quoting` answers need documents, also where the conversation uses none. `tried` is how many ways
    were tried by themselves, with this one.
    """

    engine: Callable[[], Engine]
    notice: Callable[[Language], str]
    quoting: bool = False
    tried: int = 0


Instead = Callable[[OutOfMemory], Otherwise | None]
"""What to do at once when memory ran out; None to leave it to the person."""
FilesReady = Callable[[str], bool]
"""Whether every file attached to that conversation has been read."""


class Answers:
    """Starts answers and knows those that run."""

    def __init__(
        self,
        history_of: Callable[[str], History],
        find: Find,
        engine_for: EngineFor,
        style: Callable[[], str],
        files_ready: FilesReady = lambda _conversation_id: True,
        instead: Instead = lambda _error: None,
    ) -> None:
        self._history_of = history_of
        self._find = find
        self._engine_for = engine_for
        self._style = style
        self._files_ready = files_ready
        self._instead = instead
        self._running: dict[str, Reply] = {}
        self._lock = threading.Lock()

    def ask(self, conversation_id: str, question: str, parent_id: str | None = None) -> Reply:
        """Store the question below `parent_id` (None: at the end of the branch) and begin the answer.

        Raises Busy while this conversation's last answer is still being written.
        """
        history = self._history_of(conversation_id)
        with self._only_one(conversation_id):
            if parent_id is None:
                branch = history.branch(conversation_id)
                parent_id = branch[-1].id if branch else None
            asked = history.add(conversation_id, parent_id, "user", question.strip())
            return self._begin(history, asked)

    def edit(self, conversation_id: str, message_id: str, question: str) -> Reply:
        """Ask a changed question as a new branch beside the old one."""
        history = self._history_of(conversation_id)
        with self._only_one(conversation_id):
            old = history.message(message_id)
            asked = history.add(conversation_id, old.parent_id, "user", question.strip())
            return self._begin(history, asked)

    def regenerate(
        self, conversation_id: str, message_id: str, otherwise: Otherwise | None = None
    ) -> Reply:
        """Answer the same question once more, beside the old answer; `otherwise` than the settings say."""
        history = self._history_of(conversation_id)
        with self._only_one(conversation_id):
            asked = history.message(history.message(message_id).parent_id or "")
            return self._begin(history, asked, otherwise)

    def running(self, conversation_id: str) -> Reply | None:
        """The answer being written in that conversation, if any."""
        return self._running.get(conversation_id)

    def all_running(self) -> list[Reply]:
        """Every answer being written, the oldest first."""
        return list(self._running.values())

    def stop_all(self, wait: float = 5.0) -> None:
        """End every answer and wait until what was written is saved."""
        for reply in self.all_running():
            reply.stop()
        for reply in self.all_running():
            reply.wait(wait)

    def recover(self, history: History) -> None:
        """Close the answers that a crash left open: their text is kept and the reason said."""
        for message in history.unfinished():
            notices = (*message.notices, INTERRUPTED)
            history.save(replace(message, state="stopped", notices=notices))

    @contextmanager
    def _only_one(self, conversation_id: str) -> Iterator[None]:
        # Held until the answer is known to run, or two tabs could ask at the same moment.
        with self._lock:
            if conversation_id in self._running:
                raise Busy(waiting=1)
            yield

    def _begin(self, history: History, asked: Message, otherwise: Otherwise | None = None) -> Reply:
        message = history.add(asked.conversation_id, asked.id, "assistant", "", state="writing")
        reply = Reply(message, asked.text)
        self._running[asked.conversation_id] = reply
        threading.Thread(
            target=self._run, args=(history, asked, reply, otherwise), name="answer", daemon=True
        ).start()
        return reply

    def _run(
        self, history: History, asked: Message, reply: Reply, otherwise: Otherwise | None
    ) -> None:
        try:
            self._write(history, asked, reply, otherwise)
            state: MessageState = "stopped" if reply.stopped else "complete"
            self._finish(history, reply, replace(reply.message, state=state))
        except Cancelled:
            self._finish(history, reply, replace(reply.message, state="stopped"))
        except Exception as error:  # noqa: BLE001  shown on the page: an answer must never vanish
            failed = replace(reply.message, state="failed", error=_told(error).to_json())
            instead, tried = None, otherwise.tried if otherwise else 0
            if isinstance(error, OutOfMemory) and not reply.stopped and tried < TRIES:
                instead = self._instead(error)
            instead = replace(instead, tried=tried + 1) if instead else None
            self._finish(history, reply, failed, instead)

    def _finish(
        self, history: History, reply: Reply, message: Message, instead: Otherwise | None = None
    ) -> None:
        text = keep_real_citations(message.text, numbers_of(message.sources))
        message = replace(message, text=text)
        message = replace(message, support=_support(message))
        try:
            history.save(message)
        except Exception as error:  # noqa: BLE001  disk full or worse: the page still shows the text
            told = _told(error)
            log.warning("an answer could not be saved: %s", told.code)
            message = replace(message, error=message.error or told.to_json())
        with self._lock:
            self._running.pop(message.conversation_id, None)
            if instead:  # what was written stays, and the next version stands beside it
                try:
                    asked = history.message(message.parent_id or "")
                    reply.followed_by = self._begin(history, asked, instead)
                except ChatbotError as error:  # disk full: the person can still try it by hand
                    log.warning("not tried again: %s", error.code)
        reply.update(phase="done", message=message)

    def _write(
        self, history: History, asked: Message, reply: Reply, otherwise: Otherwise | None
    ) -> None:
        conversation = history.conversation(asked.conversation_id)
        settings = conversation.settings
        # Asked twice, for the rewriting and for the answer, it would unload and load again.
        choose = cache(otherwise.engine) if otherwise else partial(self._engine_for, settings.model)
        if otherwise:
            _notice(reply, otherwise.notice(language_of(asked.text)))
            if otherwise.quoting and settings.scope == "none":
                settings = replace(settings, scope="only")
        before = history.branch(conversation.id)
        before = before[: next(i for i, m in enumerate(before) if m.id == asked.id)]

        sources: tuple[Source, ...] = ()
        wanted = asked.text
        if settings.scope != "none":
            self._await_files(conversation.id, reply)
            reply.update(phase="searching")
            wanted = self._standalone(conversation, asked, before, reply, choose)
            if wanted != asked.text:
                said = translate(SEARCHED_WITH, language_of(asked.text)).format(question=wanted)
                _notice(reply, said)
            chosen = replace(settings.filter, conversation=conversation.id)
            findings = self._find(wanted, chosen)
            sources = prompts.sources_from(findings.results)
            if not findings.answers and settings.scope == "only":
                self._say_not_found(reply, asked, sources)
                return
            if not findings.answers:
                sources = ()
        _end_if_stopped(reply)

        reply.update(phase="loading")
        engine = _unless_stopped(reply, choose)
        _end_if_stopped(reply)
        info = engine.info
        if info.backend == "extractive" and not sources:
            self._say(reply, asked, NEEDS_MODEL)
            return
        built = prompts.build(
            asked.text,
            sources,
            before,
            scope=settings.scope,
            system_prompt=settings.system_prompt,
            style=self._style(),
            context=info.context,
            answer_tokens=settings.options.max_tokens,
            count_tokens=partial(engine.count_tokens, thinking=settings.options.thinking),
            standalone=wanted,
        )
        reply.update(
            phase="reading",
            message=replace(
                reply.message,
                sources=built.sources,
                notices=(*reply.message.notices, *built.notices),
                engine=info.backend,
                model=info.model,
            ),
        )
        kept_for = "" if conversation.incognito else conversation.id
        options = replace(settings.options, conversation=kept_for)
        if info.context:
            room = max(info.context - built.tokens, 1)
            options = replace(options, max_tokens=min(options.max_tokens, room))
        with _ended(engine.stream(built.turns, options)) as stream:
            self._follow(history, reply, stream)

    def _await_files(self, conversation_id: str, reply: Reply) -> None:
        deadline = time.monotonic() + FILES_SECONDS
        while not self._files_ready(conversation_id) and time.monotonic() < deadline:
            reply.update(phase="adding")
            _end_if_stopped(reply)
            time.sleep(0.2)

    def _standalone(
        self,
        conversation: Conversation,
        asked: Message,
        before: Sequence[Message],
        reply: Reply,
        choose: Callable[[], Engine],
    ) -> str:
        """What to search: a follow-up with what it leaves out, by the model that will answer, else by rules."""
        by_rules = follow_up.standalone(asked.text, before)
        if by_rules == asked.text:
            return by_rules
        settings = conversation.settings
        reply.update(phase="loading")
        engine = _unless_stopped(reply, choose)
        reply.update(phase="searching")
        if engine.info.backend == "extractive":
            return by_rules
        turns = prompts.rewriting(
            follow_up.request(asked.text),
            before,
            scope=settings.scope,
            system_prompt=settings.system_prompt,
            style=self._style(),
        )
        known = " ".join(f"{m.text} {' '.join(s.path for s in m.sources)}" for m in before)
        try:
            if engine.info.context and (
                engine.count_tokens(turns, thinking=False) + follow_up.LONGEST_ANSWER
                > engine.info.context
            ):
                return by_rules
            said = _said(reply, engine, turns)
        except EngineError as error:  # the answer itself will tell of it, if it meets it too
            log.warning("a follow-up could not be rewritten: %s", error.code)
            return by_rules
        return follow_up.accepted(said, asked.text, known) or by_rules

    def _follow(self, history: History, reply: Reply, stream: Iterator[Delta]) -> None:
        saved_at = time.monotonic()
        for delta in stream:
            message = reply.message
            if delta.notice:
                message = replace(message, notices=_once(message.notices, delta.notice))
            if delta.text:
                message = replace(message, text=message.text + delta.text)
            if delta.stats:
                message = replace(message, stats=delta.stats)
            if delta != _TICK:
                reply.update(
                    phase=_phase(reply, delta),
                    progress=delta.progress,
                    place=delta.queue_place,
                    message=message,
                )
            if reply.stopped:
                return
            if reply.unwatched_seconds > UNWATCHED_SECONDS:
                reply.update(message=replace(message, notices=_once(message.notices, UNWATCHED)))
                reply.stop()
                return
            if delta.text and time.monotonic() - saved_at > SAVE_SECONDS:
                with suppress(DiskFullError):  # written on all the same; the last save tells of it
                    history.save(message)
                saved_at = time.monotonic()

    def _say_not_found(self, reply: Reply, asked: Message, nearest: tuple[Source, ...]) -> None:
        sentence = NOT_FOUND if nearest else NOTHING_TO_SEARCH
        notices = (*reply.message.notices, sentence)
        reply.update(message=replace(reply.message, sources=nearest, notices=notices))
        self._say(reply, asked, sentence)

    @staticmethod
    def _say(reply: Reply, asked: Message, sentence: str) -> None:
        text = translate(sentence, language_of(asked.text))
        reply.update(
            phase="writing", message=replace(reply.message, text=text, engine="extractive")
        )


def _phase(reply: Reply, delta: Delta) -> Phase:
    if delta.text or reply.phase == "writing":
        return "writing"
    if delta.queue_place is not None:
        return "queued"
    return "reading"


def _notice(reply: Reply, said: str) -> None:
    reply.update(message=replace(reply.message, notices=_once(reply.message.notices, said)))


def _end_if_stopped(reply: Reply) -> None:
    if reply.stopped:
        raise Cancelled


@contextmanager
def _ended(stream: Iterator[Delta]) -> Iterator[Iterator[Delta]]:
    """The stream; left early, the engine hears of it."""
    try:
        yield stream
    finally:
        close = getattr(stream, "close", None)
        if close:
            close()


def _said(reply: Reply, engine: Engine, turns: Sequence[Turn]) -> str:
    """The model's short answer to `turns`; "" when it is not finished within the allowed tokens."""
    options = GenerationOptions(
        temperature=0.0, max_tokens=follow_up.LONGEST_ANSWER, thinking=False
    )
    text, finish = "", ""
    with _ended(engine.stream(turns, options)) as stream:
        for delta in stream:
            _end_if_stopped(reply)
            text += delta.text
            finish = delta.stats.finish if delta.stats else finish
    return text if finish == "stop" else ""


def _unless_stopped(reply: Reply, load: Callable[[], Engine]) -> Engine:
    """The engine that `load` brings; stop leaves a long load behind, to end by itself for the next question."""
    loaded: Future[Engine] = Future()

    def work() -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:  # noqa: BLE001  raised again below, in the answer's own thread
            loaded.set_exception(error)

    threading.Thread(target=work, name="load", daemon=True).start()
    while not loaded.done():
        wait([loaded], _STOP_SECONDS)
        _end_if_stopped(reply)
    return loaded.result()


def _once(notices: tuple[str, ...], notice: str) -> tuple[str, ...]:
    return notices if notice in notices else (*notices, notice)


def _told(error: Exception) -> ChatbotError:
    """The error as a person can be told it; one that nobody foresaw is logged with its trace."""
    if isinstance(error, ChatbotError):
        return error
    log.error("an answer failed", exc_info=error)
    return ChatbotError(f"{type(error).__name__}: {error}")


def _support(message: Message) -> tuple[SentenceSupport, ...]:
    """What the support check finds; an answer must never be lost because its check failed."""
    from chatbot.chat.support import check  # its word lists cost 45 ms that starting should not pay

    if NOT_FOUND in message.notices:
        return ()
    try:
        return check(split_thinking(message.text)[1], message.sources)
    except Exception as error:
        log.error("an answer could not be checked", exc_info=error)
        return ()


def summary(message: Message) -> dict[str, object]:
    """The answer as the command line prints it: {answer, sources, support, engine, stats}."""
    from chatbot.chat.support import support_text

    return {
        "answer": message.text,
        "sources": [
            {
                "number": s.number,
                "document": s.document,
                "page": s.page,
                "path": s.path,
                "text": s.text,
                "score": round(s.score, 4),
            }
            for s in message.sources
        ],
        "support": [
            {
                "start": s.start,
                "end": s.end,
                "sentence": split_thinking(message.text)[1][s.start : s.end],
                "supported": s.supported,
                "reason": support_text(s, language_of(message.text)),
                "cited": list(s.cited),
            }
            for s in message.support
        ],
        "engine": message.engine,
        "model": message.model,
        "notices": list(message.notices),
        "stats": asdict(message.stats) if message.stats else {},
    }
