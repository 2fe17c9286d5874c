"""The samples as a CSV file, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime

from chatbot.hardware.monitor import Sample

_COLUMNS = (
    "cpu", "ram_total", "ram_available", "hearth", "swap_total", "swap_used", "disk_total",
    "disk_free", "disk_read", "disk_written",
)  # fmt: skip
_OF_GPU = ("name", "total", "free", "used_by_hearth", "load", "temperature", "power", "clock")


def csv_of(samples: Sequence[Sample]) -> str:
    """One line a sample: UTC time, percent, bytes, bytes a second; a card that was away leaves gaps."""
    cores = max((len(sample.cores) for sample in samples), default=0)
    cards = {gpu.key: gpu for sample in reversed(samples) for gpu in sample.gpus}
    numbered = sorted(cards.items(), key=lambda card: (card[1].kind, card[1].index, card[0]))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        [
            "time",
            *_COLUMNS,
            *(f"core_{number}" for number in range(cores)),
            *(
                f"{gpu.kind}_{number}_{name}"
                for number, (_, gpu) in enumerate(numbered)
                for name in _OF_GPU
            ),
        ]
    )
    for sample in samples:
        gpus = {gpu.key: gpu for gpu in sample.gpus}
        rows.writerow(
            [
                datetime.fromtimestamp(sample.at, UTC).isoformat(timespec="seconds"),
                *(_plain(getattr(sample, name)) for name in _COLUMNS),
                *(_plain(load) for load in (*sample.cores, *[None] * cores)[:cores]),
                *(
                    _plain(getattr(gpus.get(card), name, None))
                    for card, _ in numbered
                    for name in _OF_GPU
                ),
            ]
        )
    return text.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 1)
    return "" if value is None else value
