"""The texts that models are compared on, written for this purpose: Vietnamese and English.

They hold what tokenizers differ in: diacritics composed and decomposed, digits, punctuation, white space,
capitals, code, other scripts.
"""

from __future__ import annotations

import unicodedata

_VIETNAMESE = (
    "Người lao động được nghỉ phép năm mười hai ngày làm việc, hưởng nguyên lương theo hợp đồng.",
    "Điều 20. Quyền và nghĩa vụ của các bên\n1. Bên thuê trả tiền trước ngày 05;\n2. Bên cho thuê giao nhà.",
    "Nghị định số 145/2020/NĐ-CP, có hiệu lực từ 01/02/2021; mức phạt: 1.500.000 đồng (7,5%).",
    "Chiều nay trời trở gió, mẹ bảo: “Con nhớ khép cửa sổ!” — rồi bà quay vào bếp nấu bữa tối…",
    "ĐẠI HỘI ĐỒNG CỔ ĐÔNG THƯỜNG NIÊN; Ưu đãi, ưỡn ẹo, nghiêng ngả, khúc khuỷu, quýnh quáng.",
)
_ENGLISH = (
    "The tenant shall return the keys within fourteen days; otherwise the deposit isn't refunded.",
    "They've said I'm wrong, but SHE'LL SEE: it's 3 o'clock, and we'd better go. Don't you think?",
    "In 1987, 2,345 of 10000 samples (23.45 %) weighed 0.007 kg each; 123456789 is a long number.",
    "A parcel travels from the harbour to the valley, past three bridges, and nobody asks what is inside.",
)
_FORMS = (
    "def total(values):\n    result = 0\n\tfor value in values:\n        result += value\n    return result\n",
    "  two spaces before,   three inside, and some after   \n\n\n  and empty lines\r\nand a return",
    "https://example.org/a?b=1&c=%20x#top me@example.org C:\\Tệp\\mới.txt",
    "😀 🇻🇳 👩‍🔬 ∑∫≈ 中文字符 한국어 العربية русский ½ ² №",
    '{"tên": "Lan", "tuổi": 20, "điểm": [9.5, 8, null], "ok": true}',
    "a",
    " ",
    "\n",
    "!!!???...---===***",
)
TEXTS = (*_VIETNAMESE, *_ENGLISH, *_FORMS, unicodedata.normalize("NFD", _VIETNAMESE[0]))
"""What tokenizers must agree on."""

PROMPTS = (
    "Once upon a time there was a little girl who",
    "Theo hợp đồng này, bên thuê có nghĩa vụ",
    "Q: How many days of leave does an employee have?\nA:",
    "1, 2, 3, 4, 5,",
)
"""What logits are compared on, every position."""

PASSAGE = (
    "The library of the village stood between the school and the river. Every evening the old keeper lit a"
    " lamp, opened the heavy door and read to the children who came in from the rain. One day a girl asked"
    " him why he never closed the window. He smiled and said that stories need air, as people do. "
    "Buổi tối, ông thủ thư già thắp đèn, mở cánh cửa gỗ nặng và đọc sách cho lũ trẻ vừa chạy mưa về. Có hôm"
    " một cô bé hỏi vì sao ông không bao giờ đóng cửa sổ. Ông cười, bảo rằng truyện kể cũng cần không khí,"
    " y như con người vậy. "
)
"""What perplexity is measured on."""

CONVERSATIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "Xin chào! Bạn giúp tôi được gì?"),),
    (
        ("system", "Answer in one sentence."),
        ("user", "What is a contract?"),
        ("assistant", "An agreement that the law enforces."),
        ("user", "Còn hợp đồng lao động thì sao?"),
    ),
    (
        ("user", "  spaces, {{ braces }} and <tags>\n"),
        ("assistant", "ok"),
        ("user", "Tiếp tục đi."),
    ),
)
"""What chat templates must write alike: (role, text) pairs."""

_SUBJECTS = ("The surveyor", "A neighbour", "Bên bán", "Người đại diện", "The court", "Hội đồng")
_VERBS = ("returns", "signs", "kiểm tra", "thông báo", "keeps", "sửa đổi")
_OBJECTS = ("the register", "một bản sao", "the second key", "danh sách", "an old map", "biên bản")


def long_text(sentences: int) -> str:
    """As much text as wanted, no sentence like another: what only long prompts show (position coding)."""
    parts = []
    for n in range(sentences):
        subject, verb = _SUBJECTS[n % 6], _VERBS[(n // 6 + n) % 6]
        parts.append(f"{n + 1}. {subject} {verb} {_OBJECTS[(n // 36 + 2 * n) % 6]}. ")
    return "".join(parts)
