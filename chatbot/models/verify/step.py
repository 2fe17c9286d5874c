"""Step `verify`: is a model what it should be, given what it was made from?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, ChatbotError
from chatbot.i18n import N_
from chatbot.memory.folder import TOKENIZERS, has_template
from chatbot.memory.headers import read_model
from chatbot.models.files import Report
from chatbot.models.verify import hashes, outputs, settings, templates, tensors, tokens
from chatbot.models.verify.adapter import Change
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.names import match
from chatbot.models.verify.ones import ones
from chatbot.models.verify.stored import StoredModel, open_model

BROKEN = N_("It cannot be read: {error}")
NO_PARENT = N_("The model it was made from cannot be read: {error}")
NOT_RUN = N_("Its weights or its tokenizer are wrong already, so it was not run.")
NO_CHAT = N_("It does not chat, so it was not run.")
DAMAGED_PARENT = N_(
    "{name} of the model it was made from is damaged or missing, so nothing can be held against it. Get that"
    " model again, then make this one again."
)
NO_ADAPTER = N_(
    "The adapter is no longer here as it was, so the merge was not held against its base."
)
UNPROVEN = N_("Neither its structure nor its answers could be looked at.")
PARTS = {
    "files": (0.0, 0.05), "parent": (0.05, 0.1), "weights": (0.1, 0.6), "tokens": (0.6, 0.7),
    "outputs": (0.7, 1.0),
}  # fmt: skip
"""Which part of the progress each group of checks takes."""


def verify(
    report: Report,
    *,
    source: Path,
    parent: Path | None = None,
    adapter: Path | None = None,
    importance: Path | None = None,
    step: str | None = None,
    files: Sequence[dict[str, Any]] = (),
    parent_files: Sequence[dict[str, Any]] = (),
    run: bool = True,
    memory: int | None = None,
) -> dict[str, Any]:
    """{verdict, step, checks, types, seconds}: every check with what was measured and the limit it was held to.

    `source` is the model, `parent` what it was made from: GGUF files or model folders; without a parent
    hashes, structure, finite weights, and that it loads and computes. `adapter` was merged into the parent;
    a `step` "merge" without either is a merge whose adapter is gone.
    `importance` is the matrix it was quantised with; `files` and `parent_files` are the manifests', with their
    hashes: a parent that is damaged itself is the check "parent", and nothing is held against it; `run` False
    leaves the outputs out; `memory` bytes may be used instead of what is free.
    A broken model is a verdict, not an error; one whose structure and outputs could both not be looked at
    has not passed. Raises Cancelled.
    """
    started = time.monotonic()
    verification = _Verification(
        report, source, parent, adapter, importance, step=step, run=run, memory=memory
    )
    verification.files(files)
    if step == "merge" and parent is None:
        verification.checks.append(skipped("adapter", NO_ADAPTER))
    verification.everything(parent_files)
    checks = verification.checks
    if _is_unproven(checks):
        checks.append(check("proof", UNPROVEN))
    failed = any(found.verdict == "fail" for found in checks)
    return {
        "verdict": "fail" if failed else "pass",
        "step": step,
        "checks": [found.to_dict() for found in checks],
        "types": verification.types,
        "seconds": round(time.monotonic() - started, 3),
    }


class _Verification:
    def __init__(
        self,
        report: Report,
        source: Path,
        parent: Path | None,
        adapter: Path | None,
        importance: Path | None,
        *,
        step: str | None,
        run: bool,
        memory: int | None,
    ) -> None:
        self.checks: list[Check] = []
        self.types: dict[str, Any] = {}
        self._report = report
        self._source = source
        self._parent = parent
        self._adapter = adapter
        self._importance = importance
        self._step = step
        self._run = run
        self._memory = memory

    def files(self, listed: Sequence[dict[str, Any]]) -> None:
        self.checks.append(hashes.files(_home(self._source), listed, self._part("files")))

    def everything(self, parent_files: Sequence[dict[str, Any]]) -> None:
        """All checks that look inside."""
        try:
            facts = read_model(self._source)
            made = open_model(self._source)
            chats = facts.writes_text
        except ChatbotError as error:
            self.checks.append(check("structure", BROKEN, error=_reason(error)))
            return
        self.types = tensors.by_type(made, None)
        if made.settings.get("general.type") == "adapter":  # a LoRA in GGUF: no model of its own
            self._alone(made, chats=False)
            return
        if self._parent is None:
            self._alone(made, chats=chats)
            return
        whole = self._held(self._parent, parent_files)
        if whole and whole.verdict == "fail":
            self.checks.append(whole)
            self._alone(made, chats=chats)
            return
        try:
            origin = open_model(self._parent)
            change = Change(self._adapter, origin) if self._adapter else None
        except ChatbotError as error:
            self.checks.append(skipped("parent", NO_PARENT, error=_reason(error)))
            self._alone(made, chats=chats)
            return
        if whole:
            self.checks.append(whole)
        try:
            self._against(made, origin, change, chats=chats)
        except BrokenModel as error:  # a file ended while it was read
            self.checks.append(check("structure", BROKEN, error=_reason(error)))

    def _held(self, parent: Path, listed: Sequence[dict[str, Any]]) -> Check | None:
        """The parent against its own manifest: what damaged it is not this model's fault."""
        if not listed:
            return None
        found = hashes.files(_home(parent), listed, self._part("parent"))
        fault, named = (DAMAGED_PARENT, found.values) if found.verdict == "fail" else ("", {})
        return check("parent", fault, measured=found.measured, limit=found.limit, **named)

    def _alone(self, made: StoredModel, *, chats: bool) -> None:
        count = {"tensors": len(made.tensors), "parameters": made.parameters}
        self.checks.append(check("structure", measured=count))
        self.checks.append(tensors.finite(made, self._part("weights")))
        if made.form != "adapter":
            self.checks.append(ones(made))
        if self._may_run(made, chats=chats):
            self.checks += outputs.alone(made, self._part("outputs"), memory=self._memory)

    def _against(
        self, made: StoredModel, origin: StoredModel, change: Change | None, *, chats: bool
    ) -> None:
        before = change.base(origin) if change else origin
        matched = match(made, before)
        self.checks.append(tensors.structure(matched, made, before))
        if made.form != "adapter":
            self.checks.append(settings.compare(made, origin))
        importance = _importance(self._importance)
        used = importance is not None or any(
            key.startswith("quantize.imatrix") for key in made.settings
        )
        compared = tensors.compare(
            matched,
            self._part("weights"),
            change=change,
            importance=importance,
            importance_used=used,
            direct=self._step == "convert",
        )
        self.types = tensors.by_type(made, compared)
        self.checks += tensors.weights(compared, matched, made)
        if change:
            self.checks.append(change.check({f.name for f in compared.figures if f.fault}))
        if made.form == "adapter":
            return
        self.checks.append(ones(made))
        self._part("tokens")(0.0, N_("Comparing the tokenizers"))
        words, prompts = self._words(origin)
        self.checks.append(
            tokens.compare(made, words, grown=words is origin and change is not None)
        )
        self._part("tokens")(0.5, N_("Comparing the chat templates"))
        self.checks.append(templates.compare(made, words, None if prompts is words else prompts))
        if self._may_run(made, chats=chats):
            self.checks += outputs.compare(
                made,
                origin,
                self._part("outputs"),
                error=compared.noise(),
                adapter=self._adapter,
                memory=self._memory,
            )

    def _words(self, origin: StoredModel) -> tuple[StoredModel, StoredModel]:
        """Where tokenizer and chat template come from: what an adapter brings wins over the base's."""
        if self._adapter is None:
            return origin, origin
        own = StoredModel("hf", self._adapter, {}, {})
        words = own if any((self._adapter / name).is_file() for name in TOKENIZERS) else origin
        return words, own if words is own and has_template(self._adapter) else origin

    def _may_run(self, made: StoredModel, *, chats: bool) -> bool:
        """Whether the model is worth running; the reason is a check where it is not."""
        inside = ("structure", "finite", "weights", "tokens")
        if not self._run:
            return False
        if any(found.verdict == "fail" and found.name in inside for found in self.checks):
            self.checks.append(skipped("outputs", NOT_RUN))
            return False
        if made.form == "adapter" or not chats:
            self.checks.append(skipped("outputs", NO_CHAT))
            return False
        return True

    def _part(self, name: str) -> Report:
        low, high = PARTS[name]

        def report(fraction: float, message: str = "", **values: Any) -> None:
            self._report(low + (high - low) * fraction, message, **values)

        return report


def _home(model: Path) -> Path:
    return model.parent if model.is_file() else model


def _is_unproven(checks: Sequence[Check]) -> bool:
    """Whether the structure could not be held against anything, and nobody saw the model compute."""
    ended = {found.name: found.verdict for found in checks}
    return (ended.get("structure"), ended.get("outputs", "skipped")) == ("skipped", "skipped")


def _importance(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    from chatbot.models.importance import read_importance

    return read_importance(file)


def _reason(error: ChatbotError) -> str:
    return str(error.values.get("detail") or error)
