"""One thing that was checked: what was measured, against which limit, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """`detail` is a msgid that `values` fill in; it says what is wrong, or why nothing could be said."""

    name: str
    verdict: Verdict
    measured: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, Any] = field(default_factory=dict)
    detail: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON has it."""
        return asdict(self)


def check(
    name: str,
    fault: str = "",
    /,
    *,
    measured: dict[str, Any] | None = None,
    limit: dict[str, Any] | None = None,
    **values: Any,
) -> Check:
    """A check that passed, or failed for the reason `fault`, a msgid that `values` fill in."""
    return Check(name, "fail" if fault else "pass", measured or {}, limit or {}, fault, values)


def skipped(name: str, reason: str, /, **values: Any) -> Check:
    """A check that could not be made, and why."""
    return Check(name, "skipped", {}, {}, reason, values)
