"""Tables as plain text (CSV, TSV): which character parts the columns, rows with their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.legacy import modernised
from chatbot.library.readers.rows import Cell, write_tables
from chatbot.library.readers.text import MAX_BYTES, TOO_LARGE, decode
from chatbot.types import ReadDocument

_SAMPLE_LINES = 50
_NUMBER = re.compile(r"[-+(]?[\d.,\s:/\u00a0-]*\d[\d.,\s:/-]*[%)₫đ$€]?")


def read_delimited(path: Path, name: str) -> ReadDocument:
    """A CSV or TSV file as one page; its first row names the columns. Raises UnreadableDocument."""
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    text, guessed = decode(path.read_bytes(), name)
    text, converted = modernised(text.replace("\0", ""))
    composer = Composer()
    write_tables(_rows(text), composer, named=True)
    return composer.document("text/csv", warning=notes(guessed, converted))


def _rows(text: str) -> Iterator[list[Cell]]:
    csv.field_size_limit(MAX_BYTES)
    lines = text.splitlines(keepends=True)
    separator = ""
    if lines and (declared := re.fullmatch(r"sep=(.)\s*", lines[0])):  # as Excel writes it
        separator = declared.group(1)
        lines = lines[1:]
    for row in csv.reader(lines, delimiter=separator or _separator(lines[:_SAMPLE_LINES])):
        yield [Cell(field, is_number=bool(_NUMBER.fullmatch(field.strip()))) for field in row]


def _separator(lines: list[str]) -> str:
    """The character that parts most lines into the same number of columns."""

    def agreement(candidate: str) -> tuple[float, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=candidate) if row]
        usual = max(set(counts), key=counts.count) if counts else 1
        return (counts.count(usual) / len(counts), usual) if usual > 1 else (0.0, 0)

    return max((",", ";", "\t", "|"), key=agreement)
