"""Each sentence of an answer is held against its passages: what is wrong is found, what is right is left alone."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest

from chatbot.chat import facts
from chatbot.chat.support import check
from chatbot.i18n import translate
from chatbot.types import Source

STUDY = """Điều 16. Xử lý kết quả học tập
1. Sinh viên bị cảnh báo học tập khi điểm trung bình học kỳ đạt dưới 1,0 đối với các học kỳ tiếp theo.
2. Sinh viên bị buộc thôi học nếu số lần cảnh báo kết quả học tập vượt quá 02 lần liên tiếp.
3. Chậm nhất là 30 ngày sau khi sinh viên bị buộc thôi học, trường phải gửi thông báo trả về địa phương nơi
sinh viên có hộ khẩu thường trú. Quy chế này có hiệu lực từ ngày 15 tháng 9 năm 2024."""
LABOUR = """Điều 35. Quyền đơn phương chấm dứt hợp đồng lao động của người lao động
1. Người lao động có quyền đơn phương chấm dứt hợp đồng lao động nhưng phải báo trước như sau:
a) Ít nhất 45 ngày nếu làm việc theo hợp đồng lao động không xác định thời hạn;
b) Ít nhất 30 ngày nếu làm việc theo hợp đồng lao động xác định thời hạn từ 12 tháng đến 36 tháng;
2. Người lao động có quyền đơn phương chấm dứt hợp đồng lao động không cần báo trước trong trường hợp không
được trả đủ lương; bị người sử dụng lao động ngược đãi, đánh đập; bị quấy rối tình dục tại nơi làm việc.
3. Mức phạt là 50.000 đồng, bằng 25% mức lương ngày theo Thông tư 06/2024/TT-BLĐTBXH."""
LEAVE = """4.2 Annual leave. Full-time employees receive 20 working days of paid annual leave per calendar year.
Up to 5 unused days may be carried over to the next year and must be taken before 31 March 2025. Leave requests
must be submitted at least two weeks in advance and approved by the line manager."""
REMOTE = """6.1 Remote work. Employees may work from home up to three days a week after completing their probation
period of six months. Confidential documents must not be printed at home. Equipment is provided by the company
except for office chairs. The rules were written by Anna Berg and cost 1,250,000 dollars."""


def source(number: int, text: str, document: str, path: str = "") -> Source:
    return Source(number, f"p{number}", f"d{number}", document, 1, path, text, 1.0)


SOURCES = (
    source(1, STUDY, "Quy chế đào tạo.pdf", "Chương II › Điều 16"),
    source(2, LABOUR, "Bộ luật Lao động 2019.docx", "Điều 35"),
    source(3, LEAVE, "Employee Handbook.docx"),
    source(4, REMOTE, "Employee Handbook.docx"),
)

SOUND = [
    "Sinh viên bị cảnh báo học tập khi điểm trung bình học kỳ đạt dưới 1,0 đối với các học kỳ tiếp theo [1].",
    "Nếu điểm trung bình của một học kỳ thấp hơn 1.0 thì sinh viên sẽ bị cảnh báo học tập [1].",
    "Trường phải báo về địa phương nơi sinh viên thường trú trong vòng ba mươi ngày kể từ khi em bị buộc thôi học [1].",
    "Theo khoản 2 Điều 16, bị cảnh báo hơn hai lần liên tiếp thì sinh viên bị buộc thôi học [1].",
    "Quy chế có hiệu lực từ 15/9/2024 [1].",
    "Người làm theo hợp đồng không xác định thời hạn cần báo trước tối thiểu bốn mươi lăm ngày [2].",
    "Theo điểm a khoản 1 Điều 35 Bộ luật Lao động, phải báo trước ít nhất 45 ngày [2].",
    "Không phải báo trước nếu bị quấy rối tình dục ở nơi làm việc hoặc không được trả đủ lương [2].",
    "Mức phạt là năm mươi nghìn đồng, tức hai mươi lăm phần trăm mức lương ngày [2].",
    "Mức phạt theo Thông tư 06/2024/TT-BLĐTBXH là 50 000 đồng [2].",
    "Văn bản ghi: “bị quấy rối tình dục tại nơi làm việc” [2].",
    'Văn bản ghi: "bi quay roi tinh duc tai noi lam viec" [2].',
    "Full-time staff get twenty days of paid leave every year [3].",
    "At most five unused days can be carried over to the next year, and have to be taken before March 31, 2025 [3].",
    "Leave requests have to be submitted no less than 2 weeks in advance [3].",
    "After six months of probation, staff are allowed to work at home for a maximum of 3 days per week [4].",
    "It is forbidden to print confidential documents at home [4].",
    "The company provides equipment, but not office chairs [4].",
    "The rules by Anna Berg cost 1.25 million dollars [4].",
    "Nhân viên toàn thời gian được nghỉ phép 20 ngày mỗi năm [3].",
    "Under Article 35, employees must give at least 45 days' notice [2].",
]
WRONG = {
    "number": [
        "Sinh viên bị cảnh báo học tập khi điểm trung bình học kỳ đạt dưới 2,0 đối với các học kỳ tiếp theo [1].",
        "Người làm theo hợp đồng không xác định thời hạn cần báo trước tối thiểu 30 ngày [2].",
        "Mức phạt là sáu mươi nghìn đồng [2].",
        "Quy chế có hiệu lực từ ngày 16 tháng 9 năm 2024 [1].",
        "Full-time employees receive 25 working days of paid annual leave per calendar year [3].",
        "Leave requests must be submitted at least two months in advance [3].",
        "Unused days must be taken before 30 April 2025 [3].",
        "Nhân viên toàn thời gian được nghỉ phép 25 ngày mỗi năm [3].",
    ],
    "article": [
        "Theo Điều 36, người lao động có quyền đơn phương chấm dứt hợp đồng lao động [2].",
        "Theo khoản 3 Điều 16, sinh viên bị cảnh báo học tập khi điểm trung bình học kỳ đạt dưới 1,0 [1].",
        "Under Article 53, employees must give at least 45 days' notice [2].",
    ],
    "quotation": [
        "Quy chế nêu “sinh viên bị đình chỉ học tập một năm” [1].",
        'Văn bản ghi: "bị quấy rối tình dục tại nhà riêng" [2].',
        "The handbook says “leave requests must be submitted by e-mail” [3].",
    ],
    "negation": [
        "Sinh viên không bị buộc thôi học nếu số lần cảnh báo kết quả học tập vượt quá 02 lần liên tiếp [1].",
        "Người lao động phải báo trước nếu không được trả đủ lương [2].",
        "Cần báo trước tối đa 45 ngày nếu hợp đồng không xác định thời hạn [2].",
        "Chậm nhất là 30 ngày trước khi sinh viên bị buộc thôi học, trường phải gửi thông báo [1].",
        "Employees may not work from home after completing their probation period [4].",
        "Confidential documents must be printed at home [4].",
        "Unused days must be taken after 31 March 2025 [3].",
    ],
    "citation": [
        "Full-time staff get twenty days of paid leave every year [4].",
        "Sinh viên bị cảnh báo học tập khi điểm trung bình học kỳ đạt dưới 1,0 [2].",
    ],
    "name": ["Equipment is provided by Microsoft [4].", "Theo Thông tư 07/2024/TT-BLĐTBXH, mức phạt là 50.000 đồng [2]."],
    "nothing": [
        "Employees receive a yearly bonus equal to a month's salary [3].",
        "Công ty thưởng tháng lương thứ mười ba cho nhân viên [2].",
    ],
}  # fmt: skip


@pytest.mark.parametrize("sentence", SOUND)
def test_what_the_passage_says_in_other_words_is_supported(sentence):
    (verdict,) = check(sentence, SOURCES)
    assert verdict.supported, verdict.reason.format(**verdict.values)


@pytest.mark.parametrize(
    ("kind", "sentence"), [(k, s) for k, group in WRONG.items() for s in group]
)
def test_an_error_is_found_and_told(kind, sentence):
    verdicts = [v for v in check(sentence, SOURCES) if not v.supported]
    assert verdicts, kind
    for language in ("vi", "en"):
        told = translate(verdicts[0].reason, language).format(**verdicts[0].values)
        assert told
        assert "{" not in told


def test_the_offsets_name_the_sentence_and_a_wrong_citation_names_the_right_passage():
    right = (
        "Full-time employees receive 20 working days of paid annual leave per calendar year [3]."
    )
    wrong = "Leave requests must be submitted at least two weeks in advance [4]."
    answer = f"**Leave**\n\n- {right}\n- {wrong}\n"
    first, second = check(answer, SOURCES)
    assert answer[first.start : first.end] == right
    assert answer[second.start : second.end] == wrong
    assert (first.supported, second.supported) == (True, False)
    assert second.values == {"passage": "3"}
    assert second.cited == (4,)


@pytest.mark.parametrize(
    "sentence",
    [
        "Theo tài liệu:",
        "Xin chào!",
        "Bạn muốn biết thêm về Điều 99 không?",
        "Tài liệu không nêu mức lương tối thiểu.",
        "The documents do not mention parental leave.",
        "## Điều kiện",
        "**Summary:**",
        "```\nx = 99\n```",
        "| Ngày | Mức |\n|---|---|",
    ],
)
def test_what_claims_nothing_is_left_alone(sentence):
    assert all(v.supported for v in check(sentence, SOURCES))


def test_without_citation_a_sentence_rests_on_its_paragraph_or_any_passage():
    good = "Confidential documents must not be printed at home."
    bad = "Confidential documents must not be printed at work or on 40 pages."
    for before in ("", "Employees may work from home up to three days a week [4]. "):
        assert all(v.supported for v in check(before + good, SOURCES))
        assert [v.supported for v in check(before + bad, SOURCES)][-1] is False


def test_without_passages_nothing_is_judged():
    assert check("Trời xanh vì tán xạ ánh sáng.", ()) == ()


def test_decomposed_text_is_the_same_text():
    for sentence in SOUND[:6]:
        decomposed = unicodedata.normalize("NFD", sentence)
        (verdict,) = check(decomposed, SOURCES)
        assert verdict.supported
        assert decomposed[verdict.start : verdict.end] == decomposed


def test_a_quotation_of_all_passages_is_clean():
    for item in SOURCES:
        parts = re.split(r"\s(?=\d\. |[a-z]\) )|(?<=\.) (?=[A-Z])", item.text.replace("\n", " "))
        lines = [re.sub(r"^(?:\d\.|[a-z]\)) ", "", part) for part in parts if len(part) > 40]
        assert len(lines) >= 3
        answer = "\n".join(f"- {line} [{item.number}]" for line in lines)
        blamed = [v for v in check(answer, SOURCES) if not v.supported]
        assert not blamed, [answer[v.start : v.end] for v in blamed]


@pytest.mark.parametrize(
    ("one", "other", "language"),
    [
        ("1,0", "1.0", "vi"),
        ("50.000", "50 000", "vi"),
        ("50.000", "năm mươi nghìn", "vi"),
        ("3,5 triệu", "3.500.000", "vi"),
        ("mười hai", "12", "vi"),
        ("một trăm linh năm", "105", "vi"),
        ("hai phần ba", "2/3", "vi"),
        ("twenty-five", "25", "en"),
        ("1,000", "one thousand", "en"),
        ("two and a half", "2.5", "en"),
        ("6½", "6.5", "en"),
    ],
)
def test_a_number_is_the_same_however_it_is_written(one, other, language):
    def values(text):
        (number,) = facts.numbers(text, facts.tokens(text), language)
        return number.values

    assert values(one) & values(other)


def test_a_year_is_no_five_and_a_comma_parts_numbers():
    def values(text):
        return [max(n.values) for n in facts.numbers(text, facts.tokens(text), "vi") if n.certain]

    assert values("mười năm sau") == [10]
    assert values("năm mươi, ba triệu") == [50, 3_000_000]


def test_an_answer_is_checked_at_once():
    answer = "\n".join(SOUND + [s for group in WRONG.values() for s in group])
    passages = tuple(
        source(n, f"{text}\n" * 4, "a.pdf")
        for n, text in enumerate((STUDY, LABOUR, LEAVE, REMOTE) * 2, 1)
    )
    check(answer[:200], passages)
    started = time.process_time()
    check("\n".join(SOUND[:8]), passages)
    assert time.process_time() - started < 0.5  # 0.03 s on a quiet machine
