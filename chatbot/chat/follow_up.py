"""A follow-up as it is searched: with what it leaves out, taken from what was asked before it.

`standalone` works by rules and leaves every question alone that can be understood alone. `request` and
`accepted` let the conversation's own model do the same, and refuse whatever else it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.chat.citations import cited_numbers, split_thinking
from chatbot.text import fold, folded_words, has_marks, joining_words, language_of, nfc, words
from chatbot.types import Language, Message

LONGEST_ANSWER = 64
"""Tokens the model may use to rewrite a question."""

_CHAIN = 12
"""How many messages a follow-up of a follow-up is followed back."""
_SHORT, _LONG = 8, 12
"""Words; most follow-ups are short."""
_LONGEST_EARLIER = 60

# What opens, ends or refers; the marked patterns are read on the text as written, for 'con' is a child,
# 'vay' a loan and 'ho' a surname when the marks are left out.
_OPENING = re.compile(
    r"(?:thế|vậy|và|nhưng|à)[\s,]+còn\b|còn(?! (?:bao|mấy|gì|ai|hiệu|nợ|trong|tồn|hạn|thời|đang|lại|phải|được|bị|sống|nguyên|giá)\b)\b"
    r"|(?:vậy|thế(?= (?:thì|nếu|có|mà|ai|khi|sao|bao|lúc|ở)\b)|nếu (?:vậy|thế)|như (?:vậy|thế)|và|nhưng)\b(?: thì)?"
)
_OPENING_UNMARKED = re.compile(
    r"(?:the|vay|va|nhung) con\b|con(?=.* (?:thi sao|thi the nao)$)\b|(?:neu|nhu) (?:vay|the)\b|(?:vay|the) thi\b"
)
_OPENING_ENGLISH = re.compile(
    r"(?:and |but |so |or )?(?:what|how) about\b|(?:and|but) (?:what|how) if\b|(?:and|but|so|or|also)\b"
    r"|(?:the )?same for\b"
)
_ENDING = re.compile(
    r"[\s,]*\b(?:thì sao|thì thế nào|thì như thế nào|ra sao|thi sao|thi the nao|thi nhu the nao)$"
)
_WHY = re.compile(
    r"(?:(?:tại|vì) sao|tai sao|vi sao|sao)(?: lại| lai)?(?: như| nhu)?(?: thế| vậy| the| vay)?"
    r"|why(?: not| so| is that| is it)?|how (?:so|come)"
)
_REFERRING = re.compile(
    r"\b(?:nó|họ(?! (?:tên|hàng|đạo|và tên|ngoại|nội))|chúng(?! (?:tôi|ta|em|mình|sinh))"
    r"|(?:điều|việc|cái|trường hợp|khoản|luật|quy định|mức|thời hạn|văn bản|thông tư|nghị định|hợp đồng"
    r"|người|loại|khoản tiền|số tiền|thời gian|ngày|thủ tục|giấy) (?:đó|này|ấy|trên|kia|vừa nêu))\b"
)
_REFERRING_UNMARKED = re.compile(r"\b(?:truong hop|viec|dieu|quy dinh) (?:do|nay|ay|tren)\b")
_REFERRING_ENGLISH = re.compile(
    r"\b(?:it|its|they|them|their|that|those|these|this|he|she|him|her|his)\b"
)
_TELLING = {"vi": 4, "en": 2}
"""A question that refers and has more words of its own than these is searched as it is."""
_PREPOSITION = re.compile(r"(?:for|during|after|before|without|under|as|with)\b")

_LEVELS = {
    "phan": 0, "chuong": 1, "muc": 2, "dieu": 3, "khoan": 4, "diem": 5, "phu luc": 1,
    "chapter": 1, "section": 3, "article": 3, "clause": 4, "paragraph": 4, "point": 5, "annex": 1,
}  # fmt: skip
_LABEL = re.compile(
    r"\b(phần|chương|mục|điều|khoản|điểm|phụ lục|phan|chuong|muc|dieu|khoan|diem|phu luc"
    r"|chapter|section|article|clause|paragraph|point|annex) ((?:\d+|[ivxlc]+)[a-zđ]?|[a-zđ])\b",
    re.IGNORECASE,
)
_LABELS_ONLY = re.compile(
    r"(?:thì|thi|nói|noi|quy định|quy dinh|nêu|neu|ghi|là|la|gì|gi|sao|thế nào|the nao|về|ve|của|cua|,|và|va|ở|o"
    r"|what|does|do|say|says|about|of|and|is|the|in|\s)*"
)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_WORD = re.compile(r"\w+")
_ARTICLE = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question as it is looked at: plain (lower case, no end mark), folded, its language."""

    text: str
    plain: str
    folded: str
    language: Language
    marked: bool

    @property
    def length(self) -> int:
        return len(folded_words(self.text))


def standalone(question: str, before: Sequence[Message]) -> str:
    """The question with what it leaves out; as it is where it can be understood alone."""
    earlier, place = "", ""
    for message in before[-_CHAIN:]:
        if message.role == "user":
            earlier = _with(message.text, earlier, place)
        else:
            place = _article_of(message) or place
    return _with(question, earlier, place)


def _with(question: str, earlier: str, place: str) -> str:
    asked = _asked(question)
    if not earlier or not _leaves_out(asked) or len(folded_words(earlier)) > _LONGEST_EARLIER:
        return question
    return _joined(asked, earlier.strip(), place)


def _asked(question: str) -> _Asked:
    text = " ".join(nfc(question).split())
    plain = text.lower().strip(" ?!.…")
    return _Asked(text, plain, fold(plain), language_of(text), has_marks(text))


def _leaves_out(asked: _Asked) -> bool:
    """Whether the question cannot be understood without the one before it."""
    if asked.length > _LONG:
        return False
    if _WHY.fullmatch(asked.plain) or _opening(asked) or _only_labels(asked):
        return True
    if asked.length <= _SHORT and _ENDING.search(asked.plain):
        return True
    if asked.length <= _SHORT // 2 and _PREPOSITION.match(asked.plain):
        return True
    return _refers(asked)


def _opening(asked: _Asked) -> int:
    """How many characters of the plain text only join it to what was said."""
    if asked.marked:
        found = _OPENING.match(asked.plain)
    elif asked.language == "vi":
        found = _OPENING_UNMARKED.match(asked.folded)
    else:
        found = _OPENING_ENGLISH.match(asked.plain)
    return found.end() if found else 0


def _only_labels(asked: _Asked) -> bool:
    """'Khoản 2 nói gì?': a place in a text that is not named."""
    labels = _LABEL.findall(asked.plain)
    return bool(labels) and bool(_LABELS_ONLY.fullmatch(_LABEL.sub("", asked.plain)))


def _refers(asked: _Asked) -> bool:
    if asked.marked:
        found = _REFERRING.search(asked.plain)
    elif asked.language == "vi":
        found = _REFERRING_UNMARKED.search(asked.folded)
    else:
        found = _REFERRING_ENGLISH.search(asked.plain)
    if not found or " and " in asked.plain[: found.start()]:  # it stands for what was just named
        return False
    joining = joining_words(asked.text) | set(folded_words(found.group()))
    telling = [word for word in folded_words(asked.text) if word not in joining]
    return len(telling) <= _TELLING[asked.language]


def _joined(asked: _Asked, earlier: str, place: str) -> str:
    if _WHY.fullmatch(asked.plain):
        return earlier
    if not _opening(asked) and not _only_labels(asked) and _refers(asked):
        return f"{_stem(earlier)} – {asked.text}"
    topic = _topic(asked)
    if not folded_words(topic):
        return earlier
    topic, earlier = _labels_moved(topic, earlier, place)
    topic, earlier = _year_moved(topic, earlier)
    if not (set(folded_words(topic)) - joining_words(topic)) and len(folded_words(topic)) < 2:
        return earlier
    return _exchanged(topic, earlier) or f"{_stem(earlier)} – {topic}?"


def _stem(text: str) -> str:
    return text.rstrip(" ?!.…")


def _topic(asked: _Asked) -> str:
    """What the follow-up is about: its words without those that open and end it, as they were written."""
    start = _opening(asked)
    ending = _ENDING.search(asked.plain)
    text = asked.text.rstrip(" ?!.…")[start : ending.start() if ending else None]
    return re.sub(
        r"^(?:về|với|đối với|for|in|with|on)\s+", "", text.strip(" ,"), flags=re.IGNORECASE
    )


def _labels_moved(topic: str, earlier: str, place: str) -> tuple[str, str]:
    """The follow-up's article or clause in the place of the earlier question's; what is below it goes."""
    labels = list(_LABEL.finditer(topic))
    if not labels:
        return topic, earlier
    highest = min(_level(label) for label in labels)
    new = " ".join(label.group() for label in labels)
    rest = _LABEL.sub("", topic)
    rest = "" if _LABELS_ONLY.fullmatch(rest.lower()) else " ".join(rest.split())
    old = [label for label in _LABEL.finditer(earlier) if _level(label) >= highest]
    if old:
        start, end = old[0].start(), old[-1].end()
        return rest, earlier[:start] + new + earlier[end:]
    if highest > _ARTICLE and place and not _LABEL.search(earlier):
        new = f"{new} {place}"
    above = _LABEL.search(earlier)
    if above:
        return rest, f"{earlier[: above.start()]}{new} {earlier[above.start() :]}"
    return rest, f"{new} – {earlier}"


def _level(label: re.Match[str]) -> int:
    return _LEVELS[fold(label.group(1))]


def _year_moved(topic: str, earlier: str) -> tuple[str, str]:
    new, old = _YEAR.findall(topic), _YEAR.findall(earlier)
    if len(new) != 1 or len(old) != 1:
        return topic, earlier
    rest = _YEAR.sub("", topic).strip(" ,")
    return ("" if fold(rest) in ("nam", "in", "") else rest), _YEAR.sub(new[0], earlier)


def _exchanged(topic: str, earlier: str) -> str:
    """The earlier question with `topic` in the place of the words it is set against; "" where none is.

    'sinh viên năm nhất' takes the place of 'sinh viên năm cuối', 'part-time staff' of 'full-time staff'.
    """
    new = [fold(word.group()) for word in _WORD.finditer(topic)]
    old = list(_WORD.finditer(earlier))
    known = [fold(word.group()) for word in old]
    size = len(new)
    for alike in range(size - 1, max(size // 2, 2) - 1, -1):
        for at in range(len(known) - size + 1):
            if known[at : at + alike] == new[:alike]:
                return earlier[: old[at].start()] + topic + earlier[old[at + size - 1].end() :]
    if language_of(topic) == "en" and size > 1:  # the noun comes last
        for at in range(1, len(known) - size + 1):
            end = at + size - 1
            if known[end] == new[-1] and known[at:end] != new[:-1]:
                return earlier[: old[at].start()] + topic + earlier[old[end].end() :]
    return ""


def _article_of(answer: Message) -> str:
    """The article that the answer's first citation lies in, such as 'Điều 16'."""
    cited = cited_numbers(answer.text)
    for source in answer.sources:
        if not cited or source.number == cited[0]:
            found = [label for label in _LABEL.finditer(source.path) if _level(label) == _ARTICLE]
            return found[0].group() if found else ""
    return ""


# --- by the model ---------------------------------------------------------------------------------

_REQUEST: dict[Language, str] = {
    "vi": "Viết lại câu hỏi dưới đây thành một câu hỏi đầy đủ, hiểu được mà không cần đọc cuộc trò chuyện. "
    "Giữ nguyên ý và ngôn ngữ, không trả lời, chỉ viết một câu hỏi.\n\nCâu hỏi: {question}",
    "en": "Rewrite the question below as one complete question that can be understood without the "
    "conversation. Keep its meaning and language, do not answer it, write the question only."
    "\n\nQuestion: {question}",
}
_LABELLED = re.compile(
    r"^(?:câu hỏi(?: đầy đủ)?|question|rewritten question)\s*:\s*", re.IGNORECASE
)
_ODD = re.compile(r"[<>{}\[\]`|]|https?:")


def request(question: str) -> str:
    """What the model is asked, in the question's language."""
    return _REQUEST[language_of(question)].format(question=question)


def accepted(said: str, question: str, known: str) -> str | None:
    """The model's rewritten question; None for anything but one plain question made of known words.

    `known` is what the conversation holds: earlier questions, answers and their passages' headings.
    """
    text = _LABELLED.sub("", split_thinking(said)[1].strip().strip('"“”*').strip())
    if not text or "\n" in text or len(text) > 300 or _ODD.search(text):
        return None
    if language_of(text) != language_of(question):
        return None
    told = set(folded_words(f"{known} {question}"))
    new = [w for w in words(text) if fold(w) not in told and fold(w) not in joining_words(text)]
    if any(c.isdigit() for w in new for c in w) or len(new) > max(1, len(words(text)) // 6):
        return None
    own = set(folded_words(question)) - joining_words(question)
    kept = own & set(folded_words(text))
    return text if len(kept) * 2 >= len(own) else None
