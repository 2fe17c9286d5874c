"""The small words that turn a sentence round: not, only, except, at most, before, more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.chat.facts import Token

_PHRASES = {
    "not": "không|không được|không phải|không cần|không cần phải|không bắt buộc|không thể|không có|chưa|chẳng|đừng|cấm|nghiêm cấm|bị cấm"
    "|not|never|no|none|cannot|neither|nor|without|prohibited|forbidden|unable|fails to|failed to|fail to|prohibits",
    "only": "chỉ|duy nhất|only|solely|exclusively",
    "except": "trừ|trừ trường hợp|ngoại trừ|except|except for|unless|excluding|other than|apart from",
    "most": "tối đa|không quá|không vượt quá|không lớn hơn|không nhiều hơn|không trên|nhiều nhất|cao nhất"
    "|at most|no more than|not more than|not exceed|up to|maximum|not exceeding|not to exceed|a maximum of",
    "least": "tối thiểu|ít nhất|không dưới|không ít hơn|không thấp hơn|không nhỏ hơn|thấp nhất|trở lên"
    "|at least|no less than|not less than|no fewer than|minimum|a minimum of",
    "below": "dưới|thấp hơn|ít hơn|nhỏ hơn|chưa đến|below|under|less than|fewer than|lower than|lower",
    "above": "trên|cao hơn|nhiều hơn|lớn hơn|vượt quá|above|over|more than|exceeding|exceeds|higher than|higher|greater than",
    "before": "trước|trước khi|trước ngày|before|prior to|earlier than|no later than",
    "after": "sau|sau khi|sau ngày|after|following|later than",
    "more": "tăng|nâng|tăng lên|increase|increases|increased|increasing|rise|rose|grew|grow|growth",
    "less": "giảm|hạ|giảm xuống|decrease|decreases|decreased|decreasing|decline|declined|fell|drop|dropped",
    "must": "phải|bắt buộc|có trách nhiệm|có nghĩa vụ|must|shall|required to|has to|have to|obliged to",
    "may": "được|được phép|có thể|có quyền|may|can|allowed to|permitted to|entitled to|optional",
}  # fmt: skip
# Longer phrases in which such a word says something else.
_OTHER = (
    "không những|không chỉ|không gian|không khí|không quân|không phận|không trung|hàng không|hay không|hoặc không"
    "|có không|not only|whether or not|or not|no longer than|số không"
    "|chỉ tiêu|chỉ số|chỉ đạo|chỉ thị|chỉ định|chỉ dẫn|chỉ huy|chỉ ra|chỉ rõ|địa chỉ|tín chỉ|chứng chỉ|chỉ giới|chỉ báo|đình chỉ"
    "|loại trừ|khấu trừ|khai trừ|bù trừ|phòng trừ|bài trừ|giảm trừ|trừ đi|diệt trừ"
    "|trên cơ sở|trên địa bàn|dưới đây|sau đây|dưới hình thức|dưới dạng|sau đại học|trước hết|trước mắt"
    "|as follows|the following|following the|not applicable"
)
OPPOSITE = {
    "most": "least", "least": "most", "below": "above", "above": "below", "before": "after", "after": "before",
    "more": "less", "less": "more", "must": "may", "may": "must",
}  # fmt: skip
_TABLE: dict[tuple[str, ...], str] = {
    tuple(phrase.split()): kind
    for kind, phrases in _PHRASES.items()
    for phrase in phrases.split("|")
} | {tuple(phrase.split()): "" for phrase in _OTHER.split("|")}
_STARTS: dict[str, list[tuple[str, ...]]] = {}
for _phrase in sorted(_TABLE, key=len, reverse=True):
    _STARTS.setdefault(_phrase[0], []).append(_phrase)


@dataclass(frozen=True, slots=True)
class Cue:
    """One such word: its kind and the indices of its tokens."""

    kind: str
    start: int
    end: int


def cues(words: Sequence[Token]) -> list[Cue]:
    """Every word of the sentence that limits or turns it round, the longest phrase first."""
    found = []
    at = 0
    while at < len(words):
        word = words[at].word
        if word.endswith(("n't", "n’t")):
            found.append(Cue("not", at, at + 1))
            at += 1
            continue
        if word == "no" and at + 1 < len(words) and words[at + 1].word[0].isdigit():
            at += 1  # 'No. 2'
            continue
        for phrase in _STARTS.get(word, ()):
            if tuple(w.word for w in words[at : at + len(phrase)]) == phrase:
                if kind := _TABLE[phrase]:
                    found.append(Cue(kind, at, at + len(phrase)))
                at += len(phrase)
                break
        else:
            at += 1
    return found
