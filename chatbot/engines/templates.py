"""From turns to the one text a model reads: its own chat template, or the built-in one.

A chat template is a program that came with a downloaded model. It runs in Jinja's sandbox, which
stops code, and in a child process with limits on time, memory and output, which stops loops and bombs.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn

from chatbot.child import Child, Event, Request, serve
from chatbot.errors import ChatbotError, ChildError, EngineError
from chatbot.i18n import N_
from chatbot.types import Turn

NO_TEMPLATE = N_("This model brings no chat template, so Hearth's built-in one is used.")
BAD_TEMPLATE = N_("This model's chat template does not work, so Hearth's built-in one is used.")

SOURCE_LIMIT = 64 * 1024
OUTPUT_LIMIT = 1024 * 1024
MEMORY_LIMIT = 512 * 1024 * 1024
SECONDS = 2.0
START_SECONDS = 60.0
REMEMBERED = 16

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The prompt text, and how it came about; `notice` is a msgid for the person, or None.

    `stops` end an answer that begins to write the person's next question itself.
    """

    text: str
    template: Literal["model", "built-in"]
    notice: str | None = None
    stops: tuple[str, ...] = ()


class ChatTemplate:
    """Renders conversations for one model; safe to use from several threads.

    `source` is the model's Jinja template or None; `tokens` names its special tokens, such as
    {"bos_token": "<s>"}. Falls back to the built-in template, never to an error.
    """

    def __init__(self, source: str | None, tokens: dict[str, str]) -> None:
        self._source = source
        self._tokens = tokens
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, Rendered] = OrderedDict()
        self._broken = bool(source) and len(source or "") > SOURCE_LIMIT

    @property
    def kind(self) -> Literal["model", "built-in"]:
        """Which template a plain question is rendered with."""
        return self.render([Turn("user", "?")]).template

    def render(self, turns: Sequence[Turn], *, thinking: bool = True) -> Rendered:
        """The prompt for these turns, ready for the answer to follow."""
        key = json.dumps([[(turn.role, turn.text) for turn in turns], thinking])
        with self._lock:
            if key not in self._remembered:
                self._remembered[key] = self._render(turns, thinking)
                if len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)
            return self._remembered[key]

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.close()

    def _render(self, turns: Sequence[Turn], thinking: bool) -> Rendered:
        if not self._source:
            return _built_in(turns, NO_TEMPLATE)
        for messages in () if self._broken else _layouts(turns):
            text = self._try(messages, thinking)
            if self._broken:
                break
            if text is not None and _complete(text, turns):
                return Rendered(text, "model")
        return _built_in(turns, BAD_TEMPLATE)

    def _try(self, messages: list[Message], thinking: bool) -> str | None:
        # None when the template refuses these messages; a template that hangs or bursts is not tried again.
        params = {
            "source": self._source,
            "messages": messages,
            "tokens": self._tokens,
            "thinking": thinking,
        }
        try:
            if self._child is None:
                self._child = Child("chatbot.engines.templates", name="template")
            if self._child.pid is None:
                self._child.call("ready", timeout=START_SECONDS)
            result, _ = self._child.call("render", params, timeout=SECONDS)
        except ChildError:
            self._broken = True
            return None
        except ChatbotError:
            return None
        return str(result["text"])


def _layouts(turns: Sequence[Turn]) -> list[list[Message]]:
    """The same conversation as different templates want it: as it is, without system role, in parts."""
    plain = [{"role": turn.role, "content": turn.text} for turn in turns]
    merged = _alternating(plain)
    parted = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in plain]
    return [plain, merged, parted] if merged != plain else [plain, parted]


def _alternating(messages: list[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + message["content"]
        else:
            merged.append({"role": role, "content": message["content"]})
    return merged


def _complete(text: str, turns: Sequence[Turn]) -> bool:
    # A template may drop a role it does not know; what the person and Hearth said must all be there.
    return all(turn.text.strip() in text for turn in turns if turn.role != "assistant")


def _built_in(turns: Sequence[Turn], notice: str) -> Rendered:
    """A plain script of the conversation, which a model without any chat training can go on with."""
    names = {"user": "User:", "assistant": "Assistant:"}
    blocks = [_block(names.get(turn.role, ""), turn.text) for turn in turns]
    text = "\n\n".join([*blocks, "Assistant:"])
    return Rendered(text, "built-in", notice, stops=("\nUser:",))


def _block(name: str, text: str) -> str:
    # An answer that was written after "Assistant:" begins with its own white space.
    return f"{name}{text}" if not name or text[:1].isspace() else f"{name} {text}"


# --- the child's side -----------------------------------------------------------------------


def render(request: Request) -> Event:
    """Render one conversation with the model's template; EngineError says why that did not work."""
    import jinja2

    params = request.params
    try:
        template = _environment().from_string(params["source"])
        text = template.render(
            messages=params["messages"],
            add_generation_prompt=True,
            enable_thinking=params["thinking"],
            tools=None,
            documents=None,
            **params["tokens"],
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise EngineError(f"{type(error).__name__}: {error}") from error
    except (AttributeError, RecursionError, MemoryError) as error:
        raise EngineError(type(error).__name__) from error
    said = sum(len(str(message["content"])) for message in params["messages"])
    if len(text) > OUTPUT_LIMIT + said:
        raise EngineError("the output is too long")
    return {"text": text}


def _environment() -> Any:
    """Jinja as Hugging Face sets it up for chat templates, sandboxed."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a model was trained to write; for prompts it means nothing."""

        tags = {"generation"}  # noqa: RUF012  (Jinja's own protocol)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(layout: str) -> str:
        return datetime.now().strftime(layout)  # noqa: DTZ005  (the person's own clock)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _limit_memory() -> None:
    """What this process may still ask for, where the system can hold it to that."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    taken = psutil.Process().memory_info().vms
    # macOS reports huge address spaces and refuses such limits; there the time limit alone holds.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_LIMIT, taken + MEMORY_LIMIT))


def main() -> None:
    """Serve `ready` and `render`."""
    _environment()  # so that the first render pays no import
    _limit_memory()
    serve({"ready": lambda _request: {}, "render": render})


if __name__ == "__main__":
    main()
