"""The chat template: conversations must be written the same, by the same rules as when the model chats."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from chatbot.engines.templates import ChatTemplate, Rendered
from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.stored import StoredModel
from chatbot.models.verify.texts import CONVERSATIONS
from chatbot.models.verify.tokens import NO_TOKENIZER, Tokenizer, open_tokenizer
from chatbot.types import Turn

LOST = N_("The chat template is missing; the model it was made from has one.")
APPEARED = N_("There is a chat template, and the model it was made from has none.")
OTHER_PROMPT = N_("Conversation {number} is written in another way.")


def compare(made: StoredModel, origin: StoredModel, template: StoredModel | None = None) -> Check:
    """Whether both models' templates write the same prompts, with and without thinking.

    `template` is where the template came from, when that is not where the tokenizer came from.
    """
    try:
        with closing(open_tokenizer(made)) as after, closing(open_tokenizer(origin)) as before:
            if template is not None:
                with closing(open_tokenizer(template)) as other:
                    before.template = other.template
            return _compared(after, before)
    except BrokenModel as error:
        return skipped("template", NO_TOKENIZER, error=str(error.values["detail"]))


def _compared(after: Tokenizer, before: Tokenizer) -> Check:
    measured: dict[str, Any] = {
        "template": bool(after.template),
        "template_before": bool(before.template),
    }
    limit = {"different": 0}
    if before.template and not after.template:
        return check("template", LOST, measured=measured, limit=limit)
    if after.template and not before.template:
        return check("template", APPEARED, measured=measured, limit=limit)
    if not before.template:
        return check("template", measured=measured, limit=limit)
    ours = _rendered(after)
    same = (after.template, _tokens(after)) == (before.template, _tokens(before))
    theirs = ours if same else _rendered(before)
    measured["works"] = all(prompt.template == "model" for prompt in ours)
    measured["prompts"] = len(theirs)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if (one.text, one.template) != (other.text, other.template):
            shown = {"number": number // 2 + 1}
            return check("template", OTHER_PROMPT, measured=measured, limit=limit, **shown)
    return check("template", measured=measured, limit=limit)


def _rendered(tokenizer: Tokenizer) -> list[Rendered]:
    with closing(ChatTemplate(tokenizer.template, _tokens(tokenizer))) as template:
        return [
            template.render([Turn(role, text) for role, text in turns], thinking=thinking)  # type: ignore[arg-type]
            for turns in CONVERSATIONS
            for thinking in (True, False)
        ]


def _tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens that the engines hand to a template."""
    ends = ("bos", "eos")
    return {f"{name}_token": text for name, text in tokenizer.special.items() if name in ends}
