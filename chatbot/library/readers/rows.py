"""Tables as text that a search understands: every row names its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer

MAX_HEADER = 80
BLOCK_ROWS = 60
"""How many rows of a table are looked at to tell whether its first one names the columns."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows; `is_number` also for dates, times and truth values."""

    text: str
    is_number: bool = False


Row = Sequence[Cell]


def write_tables(
    rows: Iterable[Row], composer: Composer, *, title: str = "", named: bool = False
) -> None:
    """Write the rows; an empty one may end a table and begin another.

    A first row of short, different words above other rows names the columns: 'Tên: An | Điểm: 9'.
    `named` says that the first row surely does; `title` is a heading for a table that is not empty.
    """
    block: list[Row] = []
    names: list[str] = []
    for row in rows:
        is_empty = not _filled(row)
        if not is_empty:
            if title:
                composer.paragraph(clean_line(title), level=1)
                title = ""
            block.append(row)
            if len(block) < BLOCK_ROWS:
                continue
        if block:
            names = _write(block, composer, names, named=named)
            named = False
            block = []
        if is_empty:
            composer.gap()
            names = []
    if block:
        _write(block, composer, names, named=named)
    composer.gap()


def _write(block: list[Row], composer: Composer, names: list[str], *, named: bool) -> list[str]:
    for place, row in enumerate(block):
        if not names and _names_columns(row, block[place + 1 :], named=named):
            names = [clean_line(cell.text) for cell in row]
            composer.paragraph(" | ".join(n for n in names if n))
        else:
            composer.paragraph(_line(row, names))
        if len(_filled(row)) > 1:
            named = False
    return names


def _names_columns(row: Row, below: list[Row], *, named: bool) -> bool:
    filled = _filled(row)
    texts = [cell.text for cell in filled]
    if len(filled) < 2 or len(set(texts)) < len(texts) or not below:
        return False
    if any(cell.is_number or len(cell.text) > MAX_HEADER for cell in filled):
        return False
    if named or len(filled) > 2:
        return max(len(_filled(r)) for r in below) > 1
    # Two columns may as well be a form, 'Họ tên | An'; numbers below tell that it is a table.
    below = [r for r in below if len(_filled(r)) > 1]
    return sum(_filled(r)[-1].is_number for r in below) * 2 > len(below)


def _line(row: Row, names: list[str]) -> str:
    if len(_filled(row)) == 1:
        return clean_line(_filled(row)[0].text)
    parts = []
    for place, cell in enumerate(row):
        if text := clean_line(cell.text):
            column = names[place] if place < len(names) else ""
            parts.append(f"{column}: {text}" if column else text)
    return " | ".join(parts)


def _filled(row: Row) -> list[Cell]:
    return [cell for cell in row if cell.text.strip()]
