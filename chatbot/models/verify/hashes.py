"""The files of a model against the hashes that its manifest has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatbot.i18n import N_
from chatbot.models.files import Report, stored
from chatbot.models.verify.check import Check, check, skipped

READING = N_("Checking the files")
NO_HASHES = N_("Nobody wrote down the hashes of these files.")
GONE = N_("{name} is missing.")
CHANGED = N_("{name} is not what it was: its hash differs.")


def files(home: Path, listed: Sequence[dict[str, Any]], report: Report) -> Check:
    """Whether every listed file has the size and SHA-256 that were written down."""
    if not listed:
        return skipped("files", NO_HASHES)
    total = max(sum(int(entry["size"]) for entry in listed), 1)
    done, gone, changed = 0, [], []
    for entry in listed:
        name = str(entry["name"])

        def read(size: int) -> None:
            nonlocal done
            done += size
            report(min(done / total, 1.0), READING)

        try:
            found = stored(home / name, name, read)
        except OSError:
            gone.append(name)
            continue
        if (found.size, found.sha256) != (entry["size"], entry["sha256"]):
            changed.append(name)
    measured = {"files": len(listed), "bytes": done, "missing": gone, "changed": changed}
    limit = {"missing": 0, "changed": 0}
    fault = GONE if gone else CHANGED if changed else ""
    shown = {"name": (gone or changed)[0]} if fault else {}
    return check("files", fault, measured=measured, limit=limit, **shown)
