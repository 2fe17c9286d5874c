"""The weights: names, shapes, counts, and how far every tensor is from what it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import numpy as np

from chatbot.i18n import N_
from chatbot.models.files import Report
from chatbot.models.verify import thresholds
from chatbot.models.verify.adapter import Change
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.figures import Compared, Figures, judge, ratio
from chatbot.models.verify.measuring import Measuring
from chatbot.models.verify.names import Matched, Pair
from chatbot.models.verify.number_types import FLOATS, Requantiser, Values, decode
from chatbot.models.verify.ones import is_embedding
from chatbot.models.verify.stored import StoredModel

PIECE = 1 << 20
"""Values compared at once: 4 MB as float32, and a few times that while they are worked on."""
RECOMPUTED = 200_000_000
"""Values that are quantised anew at most, spread over the model; more would take longer than quantising."""
WORST = 5

COMPARING = N_("Comparing the weights")
LOST = N_("Tensors are missing: {names}")
EXTRA = N_("There are tensors that its input does not have: {names}")
RESHAPED = N_("Tensors have another shape: {names}")
UNNAMED = N_("The counterparts of some tensors are not known for this architecture: {names}")
NOT_FINITE = N_("{count} weights are not numbers or infinite, first in {name}.")
OFF = N_("{count} tensors are not what they were made from, worst {name}.")
UNREAD = N_("Nothing here decodes the type {kind}.")


def structure(matched: Matched, made: StoredModel, origin: StoredModel) -> Check:
    """Names, shapes and counts: every tensor has its counterpart, nothing else is there."""
    missing = [*matched.missing, *(n for n in matched.computed if n not in made.tensors)]
    measured = {
        "tensors": len(made.tensors),
        "tensors_before": len(origin.tensors),
        "parameters": made.parameters,
        "parameters_before": origin.parameters,
        "pairs": len(matched.pairs),
        "missing": missing[:WORST],
        "unexpected": matched.unexpected[:WORST],
        "reshaped": matched.odd[:WORST],
    }
    if matched.odd:
        return check("structure", RESHAPED, measured=measured, names=_listed(matched.odd))
    if matched.unknown and (missing or matched.unexpected):
        alone = [*missing, *matched.unexpected]
        return Check("structure", "skipped", measured, {}, UNNAMED, {"names": _listed(alone)})
    if missing:
        return check("structure", LOST, measured=measured, names=_listed(missing))
    if matched.unexpected:
        return check("structure", EXTRA, measured=measured, names=_listed(matched.unexpected))
    return check("structure", measured=measured)


def compare(
    matched: Matched,
    report: Report,
    *,
    change: Change | None = None,
    importance: dict[str, Values] | None = None,
    importance_used: bool = False,
    direct: bool = False,
) -> Compared:
    """Read both models once, a few rows at a time, and measure every pair.

    `change` is what an adapter does to the origin; `importance` the matrix that llama.cpp quantised
    with, `importance_used` whether there was one at all; `direct` says that one step made the result, so
    that nothing was rounded to a narrower type on the way.
    """
    compared = Compared(importance_used=importance_used)
    total = sum(pair.made.elements for pair in matched.pairs)
    share = min(1.0, RECOMPUTED / max(total, 1))
    done = 0
    with ExitStack() as stack:
        requantiser: Requantiser | None = None
        with suppress(ImportError, OSError):  # the fixed limits of each type judge then
            requantiser = stack.enter_context(closing(Requantiser()))
        via = ""
        for pair in matched.pairs:
            weights = (importance or {}).get(pair.name)
            measuring = Measuring(pair, requantiser, weights, change, share, via, direct=direct)
            for begin, end in _pieces(pair):
                measuring.take(begin, end)
                done += (end - begin) * pair.made.width
                report(done / max(total, 1), COMPARING)
            via = measuring.via or ""
            compared.figures.append(measuring.figures)
    judge(compared, known=importance is not None)
    return compared


def weights(compared: Compared, matched: Matched, made: StoredModel) -> list[Check]:
    """The checks that read off what was compared: finite, weights, embedding."""
    figures = compared.figures
    checks = [_finite(figures, matched, made)]
    unknown = next((f for f in figures if f.unknown), None)
    faulty = sorted((f for f in figures if f.fault), key=lambda f: -f.relative)
    worst = faulty or sorted(figures, key=lambda f: -f.relative)
    measured = {
        "epsilon": math.sqrt(sum(f.squares for f in figures)),
        "relative": compared.relative(),
        "tensors": len(figures),
        "unchanged": sum(1 for f in figures if not f.squares),
        "wrong": len(faulty),
        "worst": [f.to_dict() for f in worst[:WORST]],
        "recomputed_rows": sum(f.recomputed for f in figures),
        "identical_rows": sum(f.identical for f in figures),
    }
    limit = {"wrong": 0}
    if faulty:
        values = {"count": len(faulty), "name": faulty[0].name}
        checks.append(check("weights", OFF, measured=measured, limit=limit, **values))
    elif unknown:
        checks.append(skipped("weights", UNREAD, kind=unknown.kind))
    else:
        checks.append(check("weights", measured=measured, limit=limit))
    table = next((f for f in figures if is_embedding(f.name)), None)
    if table is not None:
        found = {
            "type": table.kind,
            "distance": table.epsilon,
            "norm": math.sqrt(table.norm),
            "relative": table.relative,
        }
        fault = OFF if table.fault else ""
        checks.append(
            check(
                "embedding",
                fault,
                measured=found,
                limit={"relative": table.limit},
                **({"count": 1, "name": table.name} if fault else {}),
            )
        )
    return checks


def finite(model: StoredModel, report: Report) -> Check:
    """Whether every weight of a model without a parent is a finite number."""
    total, done, count, first = max(model.parameters, 1), 0, 0, ""
    for tensor in model.tensors.values():
        for begin, end in _rows(tensor.rows, tensor.width, 1):
            values = decode(tensor.read(begin, end), tensor.type, tensor.width)
            if values is None:
                return skipped("finite", UNREAD, kind=tensor.type)
            if bad := values.size - int(np.isfinite(values).sum()):
                count += bad
                first = first or tensor.name
            done += values.size
            report(done / total, N_("Looking for broken numbers"))
    fault = NOT_FINITE if count else ""
    values_ = {"count": count, "name": first} if count else {}
    return check("finite", fault, measured={"count": count}, limit={"count": 0}, **values_)


def by_type(made: StoredModel, compared: Compared | None) -> dict[str, dict[str, Any]]:
    """For every type really used: tensors, bytes, parameters, and its relative error where measured."""
    found: dict[str, dict[str, Any]] = {}
    for tensor in made.tensors.values():
        entry = found.setdefault(tensor.type, {"tensors": 0, "bytes": 0, "parameters": 0})
        entry["tensors"] += 1
        entry["bytes"] += tensor.size
        entry["parameters"] += tensor.elements
    for kind, entry in found.items():
        of_type = [f for f in compared.figures if f.kind == kind] if compared else []
        if of_type:
            entry["relative"] = ratio(sum(f.squares for f in of_type), sum(f.norm for f in of_type))
            entry["limit"] = 0.0 if kind in FLOATS else thresholds.RELATIVE.get(kind)
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))


def _finite(figures: list[Figures], matched: Matched, made: StoredModel) -> Check:
    count = sum(f.bad for f in figures)
    first = next((f.name for f in figures if f.bad), "")
    for name, expected in matched.computed.items():
        if (tensor := made.tensors.get(name)) is None:
            continue
        values = decode(tensor.read(0, tensor.rows), tensor.type, tensor.width)
        if values is None or not np.isfinite(values).all():
            count, first = count + 1, first or name
        elif expected is not None and not np.allclose(values.reshape(-1), expected, rtol=1e-5):
            return check(
                "finite", OFF, measured={"count": 1}, limit={"count": 0}, count=1, name=name
            )
    fault = NOT_FINITE if count else ""
    shown = {"count": count, "name": first} if count else {}
    return check("finite", fault, measured={"count": count}, limit={"count": 0}, **shown)


def _pieces(pair: Pair) -> Iterator[tuple[int, int]]:
    if pair.transposed:
        return iter([(0, pair.made.rows)])
    return _rows(pair.made.rows, pair.made.width, pair.group)


def _rows(count: int, width: int, group: int) -> Iterator[tuple[int, int]]:
    step = max(1, PIECE // max(width, 1) // group) * group
    for begin in range(0, count, step):
        yield begin, min(begin + step, count)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:WORST]) + (" …" if len(names) > WORST else "")
