"""What the models compute: δ between their logits on the same tokens, one model in memory at a time."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from chatbot.errors import BrokenModel, OutOfMemory
from chatbot.i18n import GB, N_
from chatbot.memory.headers import read_model
from chatbot.models.files import Report
from chatbot.models.verify import thresholds
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.number_types import Values
from chatbot.models.verify.runners import Prompt, Runner, run
from chatbot.models.verify.stored import StoredModel
from chatbot.models.verify.texts import PASSAGE, PROMPTS, long_text
from chatbot.models.verify.tokens import open_tokenizer

LONG = 2048
"""Tokens of the long prompt, of which the logits of the last KEPT are compared."""
KEPT = 32
PASSAGE_TOKENS = 256
REPEATS = 3
SPARE = 1_000_000_000
"""Bytes of memory that stay free for everything else."""
LARGER = 1.15
"""Memory of a loaded model against its weights."""

READING = N_("Comparing what the models answer")
NO_ROOM = N_("Running it takes {needed} GB of memory, and {free} GB are free.")
NO_LOAD = N_("The model cannot be loaded: {error}")
NO_REFERENCE = N_("The model it was made from cannot be loaded: {error}")
NOT_FINITE = N_("Its logits are not finite numbers.")
APART = N_("Its logits differ by {found} of their length; {allowed} can be explained.")
DIVERGES = N_(
    "Its choice of the next token diverges from the original’s (KL {found}, at most {allowed})."
)
OTHER_CHOICE = N_("It prefers other tokens where the original’s choice is clear.")
PERPLEXITY = N_("Its perplexity is {found} times the original’s.")
NO_PROMPTS = N_("its tokenizer makes no tokens of any text.")
UNSTEADY = N_("The same prompt gives other logits when it is repeated.")


def compare(
    made: StoredModel,
    origin: StoredModel,
    report: Report,
    *,
    error: float,
    adapter: Path | None = None,
    memory: int | None = None,
) -> list[Check]:
    """Run the origin (with the adapter), then the result, on the same tokens, and hold them together.

    `error` is the relative error of the weights that was measured; `memory` the bytes there are.
    """
    free = _free() if memory is None else memory
    routed = read_model(origin.path).experts > 1
    both_torch = made.form != "gguf" and origin.form != "gguf"
    wide = all(_needed(model, wide=True) <= free for model in (made, origin))
    needed = max(_needed(model, wide=wide) for model in (made, origin))
    if needed > free:
        shown = _room(needed, free)
        return [skipped("outputs", NO_ROOM, **shown), skipped("repeat", NO_ROOM, **shown)]
    try:
        prompts = _prompts(origin, made)
    except BrokenModel as error_:
        reason = str(error_.values["detail"])
        return [skipped("outputs", NO_REFERENCE, error=reason)]
    with tempfile.TemporaryFile(prefix="hearth-verify-") as kept:  # gone when we are killed, too
        try:
            with closing(run(origin, _longest(prompts), wide=wide, adapter=adapter)) as runner:
                prompts = _fitting(prompts, runner.context)
                widths = _keep(runner, prompts, kept, report)
        except (BrokenModel, OutOfMemory) as error_:
            return [
                skipped("outputs", NO_REFERENCE, error=str(error_.values.get("detail", error_)))
            ]
        gc.collect()
        try:
            with closing(run(made, _longest(prompts), wide=wide)) as runner:
                distance = _measure(runner, prompts, kept, widths, report, routed=routed)
                repeat = _repeat(runner, prompts)
                precision = runner.precision
        except BrokenModel as error_:
            return [check("outputs", NO_LOAD, error=str(error_.values.get("detail", error_)))]
        except OutOfMemory:
            shown = _room(needed, free)
            return [skipped("outputs", NO_ROOM, **shown)]
    arithmetic = _arithmetic(made, origin, wide=wide, adapter=adapter is not None)
    layers = _layers(made)
    limit = thresholds.output_limit(error, arithmetic, layers)
    if both_torch and not error and adapter is None:
        limit = thresholds.NOTHING
    return [distance.check(limit, error, precision), repeat]


def alone(made: StoredModel, report: Report, *, memory: int | None = None) -> list[Check]:
    """Whether a model without a parent loads, computes finite logits, and the same ones every time."""
    free = _free() if memory is None else memory
    wide = _needed(made, wide=True) <= free
    if (needed := _needed(made, wide=wide)) > free:
        return [skipped("outputs", NO_ROOM, **_room(needed, free))]
    try:
        prompts = _prompts(made, made)[: len(PROMPTS)]
        with closing(run(made, _longest(prompts), wide=wide)) as runner:
            finite = True
            losses: list[Values] = []
            prompts = _fitting(prompts, runner.context)
            for number, prompt in enumerate(prompts):
                report(number / len(prompts), READING)
                rows = np.concatenate(list(runner.logits(prompt)))
                finite = finite and bool(np.isfinite(rows).all())
                losses.append(_losses(rows[:-1], prompt.ids[1:]))
            repeat = _repeat(runner, prompts)
    except BrokenModel as error:
        return [check("outputs", NO_LOAD, error=str(error.values.get("detail", error)))]
    except OutOfMemory:
        return [skipped("outputs", NO_ROOM, **_room(needed, free))]
    found = np.concatenate(losses)
    measured = {"finite": finite, "perplexity": _perplexity(found), "positions": int(found.size)}
    return [check("outputs", "" if finite else NOT_FINITE, measured=measured), repeat]


@dataclass(slots=True)
class Distance:
    """How far two models' logits are apart, gathered position by position.

    Where a router chooses between experts, a rounding may turn a choice, and that position jumps: of
    `routed` models the usual position is held to the limits, not the worst piece.
    """

    routed: bool = False
    greatest: float = 0.0
    relatives: list[float] = field(default_factory=list)
    """‖Δlogit‖ / ‖logit‖ of each piece: what only shows late in a long prompt must not drown."""
    rows: list[float] = field(default_factory=list)
    """The same of each position."""
    divergences: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    leads: list[float] = field(default_factory=list)
    """By how much the original's first choice leads, in units of the logits' spread."""
    agreed: list[bool] = field(default_factory=list)
    losses: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    finite: bool = True
    vocabulary: int = 0

    def take(self, before: Values, after: Values, following: Sequence[int] | None) -> None:
        """One piece: positions × vocabulary of both; `following` the tokens that really came."""
        size = min(before.shape[1], after.shape[1])  # one may be padded
        before, after = before[:, :size].astype(np.float64), after[:, :size].astype(np.float64)
        if not np.isfinite(after).all():
            self.finite = False
            return
        # What is added to all logits changes nothing.
        difference = (after - after.mean(1, keepdims=True)) - (
            before - before.mean(1, keepdims=True)
        )
        centred = before - before.mean(1, keepdims=True)
        self.greatest = max(self.greatest, float(np.abs(difference).max()))
        length = max(float(np.linalg.norm(centred)), 1e-12)
        self.relatives.append(float(np.linalg.norm(difference)) / length)
        each = length / math.sqrt(len(centred))
        self.rows.extend((np.linalg.norm(difference, axis=1) / each).tolist())
        self.vocabulary = size
        ours, theirs = _log_softmax(after), _log_softmax(before)
        self.divergences.extend(np.sum(np.exp(theirs) * (theirs - ours), axis=1).tolist())
        spread = np.maximum(centred.std(1), 1e-12)
        self.spreads.extend(spread.tolist())
        top = np.partition(before, -2, axis=1)[:, -2:]
        self.leads.extend(((top[:, 1] - top[:, 0]) / spread).tolist())
        self.agreed.extend((before.argmax(1) == after.argmax(1)).tolist())
        if following is not None:
            rows = np.arange(len(following))
            self.losses[0].extend((-theirs[rows, following]).tolist())
            self.losses[1].extend((-ours[rows, following]).tolist())

    def check(self, limit: float, error: float, precision: str) -> Check:
        """The check `outputs`; `limit` is the allowed ‖Δlogit‖ / ‖logit‖, `error` that of the weights."""
        if not self.finite:
            return check("outputs", NOT_FINITE)
        usual = float(np.median(self.rows)), float(np.median(self.divergences))
        worst = max(self.relatives), float(np.mean(self.divergences))
        relative, divergence = usual if self.routed else worst
        spread = float(np.sqrt(np.mean(np.square(self.spreads))))
        # To second order KL is half the variance of Δlogit.
        most = (limit * spread) ** 2 + 1e-9
        clear = [
            a
            for a, lead in zip(self.agreed, self.leads, strict=True)
            if lead > thresholds.CLEAR * limit
        ]
        agreement = float(np.mean(clear)) if clear else 1.0
        before, after = (_perplexity(np.array(losses)) for losses in self.losses)
        ratio = after / before if before else 1.0
        bound = thresholds.perplexity_limit(
            error, before, self.vocabulary, math.exp(min(limit * spread + 1e-6, 50.0))
        )
        measured = {
            "greatest": self.greatest,
            "relative": relative,
            "relative_greatest": max(self.relatives),
            "relative_mean": float(np.mean(self.relatives)),
            "kl": divergence,
            "kl_greatest": float(np.max(self.divergences)),
            "top1": float(np.mean(self.agreed)),
            "clear": len(clear),
            "top1_clear": agreement,
            "perplexity": after or None,
            "perplexity_ratio": ratio,
            "positions": len(self.agreed),
            "precision": precision,
        }
        limits = {
            "relative": limit,
            "kl": most,
            "top1_clear": thresholds.AGREEMENT,
            "perplexity_ratio": bound,
        }
        fault, shown = "", {}
        if relative > limit:
            fault, shown = APART, {"found": f"{relative:.2g}", "allowed": f"{limit:.2g}"}
        elif divergence > most:
            fault, shown = DIVERGES, {"found": f"{divergence:.2g}", "allowed": f"{most:.2g}"}
        elif agreement < thresholds.AGREEMENT:
            fault = OTHER_CHOICE
        elif not 1 / bound <= ratio <= bound:
            fault, shown = PERPLEXITY, {"found": f"{ratio:.4g}"}
        return check("outputs", fault, measured=measured, limit=limits, **shown)


def _keep(runner: Runner, prompts: Sequence[Prompt], kept: IO[bytes], report: Report) -> list[int]:
    """Write the logits of every prompt one after another; the width of each prompt's rows."""
    widths = []
    for number, prompt in enumerate(prompts):
        for rows in runner.logits(prompt):
            report(0.5 * number / len(prompts), READING)
            if not np.isfinite(rows).all():
                raise BrokenModel(NOT_FINITE)
            width = rows.shape[1]
            kept.write(np.ascontiguousarray(rows, np.float32).data)
        widths.append(width)
    return widths


def _measure(
    runner: Runner,
    prompts: Sequence[Prompt],
    kept: IO[bytes],
    widths: Sequence[int],
    report: Report,
    *,
    routed: bool,
) -> Distance:
    distance = Distance(routed)
    kept.seek(0)
    for number, (prompt, width) in enumerate(zip(prompts, widths, strict=True)):
        position = prompt.first
        for rows in runner.logits(prompt):
            report(0.5 + 0.5 * number / len(prompts), READING)
            logits = np.frombuffer(kept.read(rows.shape[0] * width * 4), np.float32)
            before = logits.reshape(-1, width)
            following = prompt.ids[position + 1 : position + 1 + len(rows)]
            if prompt.passage and following:
                distance.take(before[: len(following)], rows[: len(following)], following)
            else:
                distance.take(before, rows, None)
            position += len(rows)
    return distance


def _repeat(runner: Runner, prompts: Sequence[Prompt]) -> Check:
    """σ² of the logits of one prompt over several readings."""
    prompt = min(prompts, key=lambda p: len(p.ids))
    readings = [np.concatenate(list(runner.logits(prompt))) for _ in range(REPEATS)]
    variance = float(np.var(np.stack(readings).astype(np.float64), axis=0).max())
    on_gpu = "cuda" in runner.precision
    allowed = 1e-6 if on_gpu else 0.0
    measured, limit = {"variance": variance, "times": REPEATS}, {"variance": allowed}
    # NaN is a fault too
    return check("repeat", "" if variance <= allowed else UNSTEADY, measured=measured, limit=limit)


def _prompts(origin: StoredModel, made: StoredModel) -> list[Prompt]:
    """The texts in the origin's tokens, only such as both models have. Raises BrokenModel without any."""
    with closing(open_tokenizer(origin)) as tokenizer:
        size = min(_rows(origin), _rows(made))

        def ids(text: str) -> list[int]:
            return [i for i in tokenizer.encode(text, special=True) if i < size]

        found = [Prompt(ids(text), 0) for text in PROMPTS]
        found.append(Prompt(ids(PASSAGE)[:PASSAGE_TOKENS], 0, passage=True))
        long = ids(long_text(250))[:LONG]
        found.append(Prompt(long, max(0, len(long) - KEPT)))
    usable = [prompt for prompt in found if len(prompt.ids) > 1]
    if not usable:
        raise BrokenModel(NO_PROMPTS, name=origin.path.name)
    return usable


def _fitting(prompts: Sequence[Prompt], context: int) -> list[Prompt]:
    """The prompts cut to the context, the long one at its beginning."""
    found = []
    for prompt in prompts:
        ids = prompt.ids[:context]
        first = max(0, len(ids) - KEPT) if prompt.first else 0
        found.append(Prompt(ids, first, prompt.passage))
    return found


def _longest(prompts: Sequence[Prompt]) -> int:
    return max(len(prompt.ids) for prompt in prompts)


def _arithmetic(made: StoredModel, origin: StoredModel, *, wide: bool, adapter: bool) -> float:
    """The relative rounding of the engines' own arithmetic, the coarser of the two."""
    rounding = [1e-6]
    for model in (made, origin):
        if model.form == "gguf":
            kinds = {t.type for t in model.tensors.values() if len(t.shape) > 1}
            rounding += [
                thresholds.ARITHMETIC.get(kind, thresholds.OTHER_ARITHMETIC) for kind in kinds
            ]
        elif not wide:
            rounding.append(thresholds.ARITHMETIC["BF16"])
    if adapter:
        rounding.append(1e-5)
    return max(rounding)


def _needed(model: StoredModel, *, wide: bool) -> int:
    if model.form == "gguf":
        return int(model.size * LARGER) + SPARE // 4
    return int(model.parameters * (4 if wide else 2) * LARGER) + SPARE // 4


def _room(needed: int, free: int) -> dict[str, str]:
    return {"needed": f"{needed / GB:.1f}", "free": f"{free / GB:.1f}"}


def _free() -> int:
    import psutil

    return max(0, int(psutil.virtual_memory().available) - SPARE)


def _layers(model: StoredModel) -> int:
    numbers = {int(part) for name in model.tensors for part in name.split(".") if part.isdecimal()}
    return max(numbers, default=0) + 1


def _rows(model: StoredModel) -> int:
    names = ("token_embd.weight", "embed_tokens.weight", "wte.weight", "word_embeddings.weight")
    return next((t.rows for n, t in model.tensors.items() if n.endswith(names)), 1 << 31)


def _log_softmax(logits: Values) -> Values:
    shifted = logits - logits.max(1, keepdims=True)
    found: Values = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def _losses(rows: Values, following: Sequence[int]) -> Values:
    logs = _log_softmax(rows.astype(np.float64))
    found: Values = -logs[np.arange(len(following)), list(following)]
    return found


def _perplexity(losses: Values) -> float:
    return float(np.exp(min(float(np.mean(losses)), 50.0))) if losses.size else 0.0
