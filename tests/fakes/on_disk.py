"""Cards in a file, for a process of its own: the whole app sees them and what happens to them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.fakes.nvidia import Card, addressed

ON_PATH = Path(__file__).parent / "on_path"
PROJECT = Path(__file__).resolve().parents[2]
VARIABLE = "HEARTH_FAKE_CARDS"


def environment(file: Path, cards: Sequence[Card]) -> dict[str, str]:
    """What a process needs so that `import pynvml` finds these cards."""
    write_cards(file, cards)
    places = [str(ON_PATH), str(PROJECT), os.environ.get("PYTHONPATH", "")]
    return {VARIABLE: str(file), "PYTHONPATH": os.pathsep.join(filter(None, places))}


def write_cards(file: Path, cards: Sequence[Card]) -> None:
    """Change what a running process sees, at once."""
    addressed(cards)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(card) for card in cards]), encoding="utf-8")
    fresh.replace(file)


def read_cards(file: Path) -> list[Card]:
    """The cards as the file has them now."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    for row in rows:
        for name in ("capability", "pcie", "refuses"):
            row[name] = tuple(row[name])
        for name in ("drawing", "processes"):
            row[name] = [tuple(pair) for pair in row[name]]
    return [Card(**row) for row in rows]
