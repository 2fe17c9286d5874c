"""Question files: good rows are added, each bad one has its reason, what is exported comes back."""

from __future__ import annotations

import csv
import io
import json

import pytest

from chatbot.evaluation.exchange import (
    COLUMNS,
    MOST_ROWS,
    export_questions,
    import_questions,
    template,
)
from chatbot.evaluation.gold import Target
from chatbot.evaluation.questions import Questions
from chatbot.library.chunking import Draft
from chatbot.library.readers import Reading
from chatbot.types import PageText, ReadDocument
from tests.evaluation.test_gold import END, LAW, START


@pytest.fixture
def questions(database, store) -> Questions:
    return Questions(database, store)


@pytest.fixture
def law(store):
    """Two pages, three articles of which the second has two passages."""
    kept = store.keep(LAW.encode(), "Quy chế đào tạo.pdf").document
    middle = START + 20
    drafts = tuple(
        Draft(LAW[start:end], start, end, page, path)
        for start, end, page, path in (
            (0, START, 1, "Chương I › Điều 1. Phạm vi"),
            (START, middle, 1, "Chương I › Điều 2. Học phí › Khoản 1"),
            (middle, END, 1, "Chương I › Điều 2. Học phí › Khoản 2"),
            (END, len(LAW), 2, "Chương II › Điều 3. Thư viện"),
        )
    )
    pages = (PageText(LAW[:END], 1), PageText(LAW[END:], 2))
    store.commit(kept.id, Reading(ReadDocument(pages), drafts, "vi"), "", None)
    return store.get(kept.id)


def imported(questions, store, text: str | bytes):
    return import_questions(questions, store, text if isinstance(text, bytes) else text.encode())


def target_of(questions) -> Target:
    ((case,), _) = questions.cases()
    (target,) = case.targets
    return target


@pytest.mark.parametrize(
    ("row", "span"),
    [
        ("hỏi,Quy chế đào tạo.pdf,,,", (0, None)),
        ("hỏi,quy che dao tao,,,", (0, None)),
        ("hỏi,Quy chế đào tạo.docx,2,,", (END, len(LAW))),
        ("hỏi,Quy chế đào tạo.pdf,trang 1,,", (0, END)),
        ("hỏi,Quy chế đào tạo.pdf,,Điều 2,", (START, END)),
        ("hỏi,Quy chế đào tạo.pdf,,2,", (START, END)),
        ("hỏi,Quy chế đào tạo.pdf,,Article 3,", (END, len(LAW))),
        ("hỏi,Quy chế đào tạo.pdf,,Chương I › Điều 2 › Khoản 2,", (START + 20, END)),
    ],
)
def test_a_row_names_its_place_by_document_page_or_article(questions, store, law, row, span):
    found = imported(questions, store, f"question,document,page,article,quote\n{row}\n")
    assert (found.added, found.bad) == (1, ())
    target = target_of(questions)
    assert (target.start, target.end) == span


def test_a_quotation_is_found_whatever_its_spaces_and_marks(questions, store, law):
    text = (
        'câu hỏi;tài liệu;trích dẫn\nhỏi;Quy chế đào tạo.pdf;"NOP hoc phi\ntrong vòng bốn tuần"\n'
    )
    assert imported(questions, store, text.encode("utf-16")).added == 1
    target = target_of(questions)
    assert LAW[target.start : target.end] == "nộp học phí trong vòng bốn tuần"


def test_rows_of_one_question_are_one_question_with_several_places(questions, store, law):
    rows = [
        {"question": "hỏi", "document": law.name, "article": "Điều 1"},
        {"question": "hỏi", "document": law.name, "article": "Điều 3"},
        {"question": "câu khác", "document": law.name, "page": 2},
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert imported(questions, store, text).added == 2
    assert sorted(len(case.targets) for case in questions.cases()[0]) == [1, 2]
    again = imported(questions, store, text)
    assert (again.added, again.known) == (0, 2)


def test_every_bad_row_has_its_line_and_reason_and_the_good_ones_are_kept(
    questions, store, add, law
):
    add("Trùng tên.txt", "một bản khác")
    add("Trùng tên.pdf", "một bản khác nữa")
    text = (
        "question,document,page,article,quote\n"
        "tốt,Quy chế đào tạo.pdf,,,\n"
        ",Quy chế đào tạo.pdf,,,\n"
        "hỏi,,,,\n"
        "hỏi,Không có.pdf,,,\n"
        "hỏi,Trùng tên,,,\n"
        "hỏi,Quy chế đào tạo.pdf,9,,\n"
        "hỏi,Quy chế đào tạo.pdf,,Điều 99,\n"
        "hỏi,Quy chế đào tạo.pdf,,,không có câu này trong đó\n"
    )
    found = imported(questions, store, text)
    assert found.added == 1
    said = {row.line: row.text("en") for row in found.bad}
    assert said == {
        3: "The question is empty.",
        4: "The document is not named.",
        5: "No document is called “Không có.pdf”.",
        6: "“Trùng tên” could mean several documents: Trùng tên.pdf (documents), Trùng tên.txt"
        " (documents).",
        7: "“Quy chế đào tạo.pdf” has no page 9.",
        8: "“Quy chế đào tạo.pdf” has no article “Điều 99”.",
        9: "These words are not in “Quy chế đào tạo.pdf”: không có câu này trong đó",
    }
    assert found.bad[2].text("vi") == "Không có tài liệu nào tên là “Không có.pdf”."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x00\x01\x02PK", "This is not a text file; save it as CSV (UTF-8) or JSONL."),
        (b"a,b\n1,2\n", "The first line must name the columns; “document” is missing."),
        (b'{"question": 1}\n[2]\n', "The document is not named."),
        (b"", None),
    ],
)
def test_what_is_no_question_file_is_said_and_adds_nothing(questions, store, content, reason):
    found = imported(questions, store, content)
    assert found.added == 0
    assert [row.text("en") for row in found.bad][:1] == ([reason] if reason else [])
    assert questions.all() == []


def test_a_huge_file_is_read_up_to_a_limit(questions, store, law):
    rows = "question,document\n" + f"hỏi,{law.name}\n" * (MOST_ROWS + 5)
    found = imported(questions, store, rows)
    assert (found.added, len(found.bad)) == (1, 1)
    assert str(MOST_ROWS) in found.bad[0].text("en")


def test_what_is_exported_comes_back_the_same(questions, store, law):
    questions.add(
        "nộp học phí khi nào", [Target(law.id, START, END), Target(law.id, END, len(LAW))]
    )
    questions.add("quy chế nói gì", [Target(law.id)])
    table = export_questions(questions, store)
    assert imported(questions, store, table).known == 2
    questions.purge()
    assert imported(questions, store, table).added == 2
    cases = {case.text: len(case.targets) for case in questions.cases()[0]}
    assert cases == {"nộp học phí khi nào": 2, "quy chế nói gì": 1}


@pytest.mark.parametrize("language", ["en", "vi"])
def test_the_template_is_a_table_that_the_import_understands(questions, store, law, language):
    table = template([law.name], language)
    rows = list(csv.reader(io.StringIO(table.removeprefix("\ufeff"))))
    assert rows[0] == [words[language] for words in COLUMNS.values()]
    assert rows[1][1] == law.name
    found = imported(questions, store, table)
    assert all("column" not in row.reason for row in found.bad)
