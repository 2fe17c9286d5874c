"""Question sets as files: one row for each question and right place, read with a reason for every bad row.

Columns: question, document, and optionally page, article, quote; in English or Vietnamese, as CSV (comma,
semicolon or tab) or as one JSON object a line. Rows with the same question are one question with several
right places.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from chatbot.evaluation.gold import Target, contiguous
from chatbot.evaluation.questions import Finder, Questions
from chatbot.i18n import N_, translate
from chatbot.library.store import DocumentStore
from chatbot.text import fold, folded_words, nfc
from chatbot.types import Document, Language

SAMPLE_QUESTIONS = Path(__file__).with_name("sample_questions.csv")
"""Questions about the sample documents, asked the way people ask."""

MOST_ROWS = 5000
_SHOWN = 80

COLUMNS: dict[str, dict[Language, str]] = {
    "question": {"en": "question", "vi": "câu hỏi"},
    "document": {"en": "document", "vi": "tài liệu"},
    "page": {"en": "page", "vi": "trang"},
    "article": {"en": "article", "vi": "điều"},
    "quote": {"en": "quote", "vi": "trích dẫn"},
}
_BY_WORDS = {fold(words): name for name, each in COLUMNS.items() for words in each.values()}
_ENCODINGS = ("utf-8-sig", "utf-16", "cp1258")
_ARTICLE = {"dieu", "article"}

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: its line in the file, and why as a msgid with values."""

    line: int
    reason: str
    values: dict[str, str] = field(default_factory=dict, hash=False)

    def text(self, language: Language) -> str:
        return translate(self.reason, language).format_map(self.values)


@dataclass(frozen=True, slots=True)
class Imported:
    """What reading a file came to."""

    added: int
    known: int
    bad: tuple[BadRow, ...]


class _Refused(Exception):
    """Why this row cannot be used."""

    def __init__(self, reason: str, **values: str) -> None:
        super().__init__(reason)
        self.reason, self.values = reason, {k: v[:_SHOWN] for k, v in values.items()}


def import_questions(questions: Questions, store: DocumentStore, content: bytes) -> Imported:
    """Add every good row of a CSV or JSONL file to the set; tell of each bad one."""
    places = _Places(store)
    golds: dict[str, list[Target]] = {}
    bad: list[BadRow] = []
    for line, row in _rows(content):
        try:
            if isinstance(row, _Refused):
                raise row
            text = row.get("question", "")
            if not text:
                raise _Refused(N_("The question is empty."))
            target = places.target(row)
            golds.setdefault(text, []).append(target)
        except _Refused as refused:
            bad.append(BadRow(line, refused.reason, refused.values))
    added = questions.add_all(golds.items(), "imported")
    new = sum(each is not None for each in added)
    return Imported(new, len(added) - new, tuple(bad))


def export_questions(questions: Questions, store: DocumentStore) -> str:
    """The set as CSV that `import_questions` reads, also on another PC with the same documents.

    The right words are quoted whole; places that are gone are left out.
    """
    rows = []
    finder = Finder(store)
    for question in reversed(questions.all()):
        for target in finder.targets(question):
            row = {"question": question.text, "document": store.get(target.document_id).name}
            if target.end is not None:
                row["quote"] = store.contents.text(target.document_id)[
                    target.start : target.end
                ].strip()
            rows.append(row)
    return _csv(rows, "en")


def template(names: Sequence[str], language: Language) -> str:
    """A CSV with a header and two rows that show how to fill it in, with documents of the person's."""
    first, second = (*names[:2], *["…"] * 2)[:2]
    examples = [
        (N_("When does a student get an academic warning?"), first, "", N_("Article 16"), ""),
        (N_("How many days of leave are there a year?"), second, "2", "", ""),
    ]
    rows = [
        dict(zip(COLUMNS, (translate(cell, language) for cell in row), strict=True))
        for row in examples
    ]
    return _csv(rows, language)


def _csv(rows: Sequence[Row], language: Language) -> str:
    out = io.StringIO()
    out.write("\ufeff")  # without it Excel takes UTF-8 for something else
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(each[language] for each in COLUMNS.values())
    writer.writerows([row.get(name, "") for name in COLUMNS] for row in rows)
    return out.getvalue()


# --- reading --------------------------------------------------------------------------------


def _rows(content: bytes) -> Iterator[tuple[int, Row | _Refused]]:
    """Line numbers and rows; a row that is none, or a file that is none, as the reason."""
    text = _decoded(content)
    if text is None:
        yield 1, _Refused(N_("This is not a text file; save it as CSV (UTF-8) or JSONL."))
        return
    reader = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    for number, (line, row) in enumerate(reader):
        if number == MOST_ROWS:
            reason = N_("Only the first {count} rows are read.")
            yield line, _Refused(reason, count=str(MOST_ROWS))
            return
        yield line, row


def _decoded(content: bytes) -> str | None:
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in _ENCODINGS:
        if (encoding == "utf-16") != utf16:
            continue
        try:
            text = nfc(content.decode(encoding))
        except UnicodeDecodeError:
            continue
        return None if "\0" in text else text
    return None


def _json_rows(text: str) -> Iterator[tuple[int, Row | _Refused]]:
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield line, _named(row)
        else:
            yield line, _Refused(N_("This line is not a JSON object."))


def _csv_rows(text: str) -> Iterator[tuple[int, Row | _Refused]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = cells
                missing = {"question", "document"} - _named(dict.fromkeys(names)).keys()
                if missing:
                    reason = N_("The first line must name the columns; “{column}” is missing.")
                    yield reader.line_num, _Refused(reason, column=min(missing))
                    return
                continue
            yield reader.line_num, _named(dict(zip(names, cells, strict=False)))
    except csv.Error as error:
        yield reader.line_num, _Refused(N_("The row cannot be read: {detail}"), detail=str(error))


def _named(row: dict[str, Any]) -> Row:
    """The columns we know, by their English names."""
    return {
        name: " ".join(str(value if value is not None else "").split())
        for words, value in row.items()
        if (name := _BY_WORDS.get(" ".join(folded_words(str(words)))))
    }


# --- places ---------------------------------------------------------------------------------


class _Places:
    """Finds what rows name among the documents."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._finder = Finder(store)
        self._documents = [d for d in store.list() if d.passages]

    def target(self, row: Row) -> Target:
        """Where the row's answer lies: the quotation, else the article, else the page, else anywhere."""
        document = self._document(row.get("document", ""))
        start, end = 0, None
        if row.get("page"):
            start, end = self._page(document, row["page"])
        if row.get("article"):
            start, end = self._article(document, row["article"], start, end)
        if row.get("quote"):
            start, end = self._quote(document, row["quote"], start, end)
        return Target(document.id, start, end)

    def _document(self, name: str) -> Document:
        if not name:
            raise _Refused(N_("The document is not named."))
        for same in (
            lambda d: d.name == name,
            lambda d: fold(d.name) == fold(name),
            lambda d: fold(PurePath(d.name).stem) in (fold(name), fold(PurePath(name).stem)),
        ):
            found = [d for d in self._documents if same(d)]
            if len({d.sha256 for d in found}) > 1:
                reason = N_("“{name}” could mean several documents: {names}.")
                names = ", ".join(f"{d.name} ({d.collection})" for d in found)
                raise _Refused(reason, name=name, names=names)
            if found:
                return found[0]
        raise _Refused(N_("No document is called “{name}”."), name=name)

    def _page(self, document: Document, number: str) -> tuple[int, int]:
        digits = re.search(r"\d+", number)
        start = 0
        for page in self._store.contents.pages(document.id):
            if digits and page.number == int(digits.group()):
                return start, start + len(page.text)
            start += len(page.text)
        raise _Refused(N_("“{name}” has no page {page}."), name=document.name, page=number)

    def _article(
        self, document: Document, article: str, start: int, end: int | None
    ) -> tuple[int, int]:
        """The passages whose place in the document is that article, or lies below it."""
        wanted = [folded_words(part) for part in article.split("›")]
        if len(wanted) == 1 and wanted[0] and wanted[0][0].isdecimal():
            wanted[0].insert(0, "dieu")
        passages = self._store.contents.passages(document.id)
        numbers = [
            n
            for n, p in enumerate(passages)
            if _stands_under(p.path, wanted) and p.end > start and (end is None or p.start < end)
        ]
        if not numbers or not all(wanted):
            reason = N_("“{name}” has no article “{article}”.")
            raise _Refused(reason, name=document.name, article=article)
        run = contiguous(numbers)
        return passages[run[0]].start, passages[run[-1]].end

    def _quote(
        self, document: Document, quote: str, start: int, end: int | None
    ) -> tuple[int, int]:
        words, wanted = self._finder.words(document.id), folded_words(quote)
        places = words.find(wanted, start, end) if wanted else []
        if not places:
            reason = N_("These words are not in “{name}”: {quote}")
            raise _Refused(reason, name=document.name, quote=quote)
        return words.spans[places[0]][0], words.spans[places[0] + len(wanted) - 1][1]


def _stands_under(path: str, wanted: Sequence[Sequence[str]]) -> bool:
    """Whether the path has these parts in this order; 'Điều 12' also means 'Điều 12. Phạm vi'."""
    parts = iter(folded_words(part) for part in path.split("›"))
    return all(any(_begins(part, each) for part in parts) for each in wanted)


def _begins(part: Sequence[str], wanted: Sequence[str]) -> bool:
    same = [part[0] in _ARTICLE and wanted[0] in _ARTICLE] if part and wanted else [False]
    same += [a == b for a, b in zip(part[1:], wanted[1:], strict=False)]
    return len(part) >= len(wanted) and (list(part[: len(wanted)]) == list(wanted) or all(same))
