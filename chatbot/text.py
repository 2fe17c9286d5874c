"""Text as Hearth compares it: NFC, folded words, sentences, language.

Vietnamese is typed with or without its marks, composed or decomposed; both sides of every comparison
go through these functions, so 'Điều', 'điều' (NFD) and 'dieu' meet.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import chain

from chatbot.types import Language

_WORD = re.compile(r"\w+", re.UNICODE)
_ASKING = re.compile(
    r"\b(?:(?:dieu |nhung )?(?:nao|gi) (?:sau|duoi) day|chon (?:cau tra loi|dap an) dung(?: nhat)?"
    r"|dung hay sai|(?:phai|duoc|hay) khong|khi nao|bao gio|luc nao|(?:nhu )?the nao|bao nhieu|bao lau"
    r"|may|gi|nao|ai|o dau|(?:tai|vi|lam|thi|ra) sao|phai|duoc|muon|thi|la|lam gi|co the|cho biet"
    r"|va|cua|cac|nhung|voi|khong"
    r"|when|what|which|who|whom|whose|where|why|how (?:many|much|long|often)|how|do|does|did|is|are|was"
    r"|were|can|could|should|would|will|i|my|me|we|our|you|your|the|a|an|of|to|in|for|get|have|has|had"
    r"|and|or|on|at|by|from|with|as|that|this|it|its|be|been)\b"
)
"""Words that only ask, and the commonest that only join; folded."""
# A sentence ends at .!?… before white space, or at a line break; not after "Điều 5." and "1." numbering.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’)\]]*\s+|\n+")
_NUMBERING = re.compile(
    r"(?:^|\s)(?:\d{1,3}|[a-zđ]|[IVXLC]+|Điều \d+|khoản \d+|tr|Nr|No|Mr|Mrs|Ms|Dr|vs|e\.g|i\.e|TP|TS|ThS|PGS|GS)\.$",
    re.IGNORECASE,
)
_VIETNAMESE_ONLY = re.compile(
    "[ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE
)
_VIETNAMESE_WORDS = frozenset(
    [
        "la",
        "va",
        "cua",
        "co",
        "khong",
        "duoc",
        "cho",
        "cac",
        "nhung",
        "trong",
        "nguoi",
        "khi",
        "nao",
        "nhu",
        "the",
        "dieu",
        "khoan",
        "theo",
        "phai",
        "bi",
        "hoc",
        "vien",
        "sinh",
        "luat",
        "quy",
        "dinh",
        "bao",
        "nhieu",
        "toi",
        "gi",
        "voi",
        "mot",
        "ve",
        "tai",
        "hay",
        "den",
        "tu",
        "nay",
        "do",
        "thi",
    ]
)
_ENGLISH_WORDS = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "in",
        "is",
        "are",
        "what",
        "when",
        "how",
        "who",
        "which",
        "for",
        "a",
        "an",
        "be",
        "with",
        "on",
        "by",
        "must",
        "may",
        "can",
        "does",
        "do",
        "i",
        "my",
    ]
)

_JOINING_VIETNAMESE = frozenset(
    """gì nào ai đâu sao nhiêu thế vậy à hả nhỉ nhé ạ thì là mà rồi đã đang sẽ cũng vẫn nữa luôn cứ cái
    những các của và với cho để bị được có ở tại này kia đó ấy tôi mình em chúng nếu khi vì do bởi nhưng
    hoặc hay như theo về từ trong không phải bao mấy muốn xin hỏi giúp chỉ rằng thôi lại vào ra lên""".split()  # noqa: SIM905  words read as words
)
_JOINING_ENGLISH = frozenset(
    """what when where who whom whose which why how is are was were be been do does did can could should
    would will may might i me my we us our you your he she it its they their the a an of to in on at by
    for from with as and or that this these those there have has had get much many long often if
    not""".split()  # noqa: SIM905
)

_MOST_REMEMBERED, _LONGEST_REMEMBERED = 50_000, 40
"""Pieces of text, and characters of one, of which the folded words are kept; some 10 MB."""


def nfc(text: str) -> str:
    """Composed form (Unicode NFC), the one form that is stored and compared."""
    return unicodedata.normalize("NFC", text)


class _Folding(dict[int, str]):
    """Each character's folded form, worked out once; `str.translate` is ten times a loop."""

    def __missing__(self, code: int) -> str:
        decomposed = unicodedata.normalize("NFD", chr(code))
        kept = "".join(c for c in decomposed if not unicodedata.combining(c))
        self[code] = unicodedata.normalize("NFC", kept).replace("đ", "d")
        return self[code]


_folding = _Folding()


def fold(text: str) -> str:
    """Lower case without marks, đ as d: 'Điều lệ' → 'dieu le'. The length may change."""
    return nfc(text).lower().translate(_folding)


_JOINING_UNMARKED = frozenset(fold(word) for word in _JOINING_VIETNAMESE)


def words(text: str) -> list[str]:
    """The words (Vietnamese: syllables) of the text, as they are written."""
    return _WORD.findall(nfc(text))


class Remembered(dict[str, tuple[str, ...]]):
    """What `work` makes of each short piece of text, worked out once: most of what is written was written before."""

    def __init__(self, work: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._work = work

    def __missing__(self, written: str) -> tuple[str, ...]:
        found = tuple(self._work(written))
        if len(written) <= _LONGEST_REMEMBERED:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()
            self[written] = found
        return found


_folded_words = Remembered(lambda written: _WORD.findall(fold(written)))


def folded_words(text: str) -> list[str]:
    """The words of the text, folded."""
    return list(chain.from_iterable(map(_folded_words.__getitem__, text.split())))


def asked_about(question: str) -> list[list[str]]:
    """What the question is about: its runs of folded words between the words that only ask.

    All its words in one run when nothing else is there.
    """
    runs = [_WORD.findall(part) for part in _ASKING.split(fold(question))]
    return [run for run in runs if run] or [folded_words(question)]


def joining_words(question: str) -> frozenset[str]:
    """The question's folded words that only ask or join, and tell little of what is sought.

    With marks 'ma' (drugs) is kept apart from 'mà' (which); typed without them it counts as joining.
    """
    about = {word for run in asked_about(question) for word in run}
    if language_of(question) == "en":
        return frozenset(
            w for w in folded_words(question) if w in _JOINING_ENGLISH or w not in about
        )
    if not has_marks(question):
        return frozenset(
            w for w in folded_words(question) if w in _JOINING_UNMARKED or w not in about
        )
    telling = {fold(w) for w in words(question) if w.lower() not in _JOINING_VIETNAMESE}
    return frozenset(w for w in folded_words(question) if w not in telling or w not in about)


def has_marks(text: str) -> bool:
    """Whether the text uses any letter that only Vietnamese has, so its typist writes accents."""
    return bool(_VIETNAMESE_ONLY.search(nfc(text)))


def language_of(text: str) -> Language:
    """Vietnamese or English: by letters only Vietnamese has, else by frequent words of either."""
    sample = nfc(text[:4000])
    # Letters with two marks (ạ, ế, ỹ) lie together in Unicode; nearly every Vietnamese text is told by
    # counting them as bytes, in a fiftieth of the time.
    written = sample.encode("utf-8", "surrogatepass")
    if written.count(b"\xe1\xba") + written.count(b"\xe1\xbb") > 0.03 * len(sample):
        return "vi"
    letters = 0 if sample.isascii() else sum(map(str.isalpha, sample))
    if letters and len(_VIETNAMESE_ONLY.findall(sample)) / letters > 0.03:
        return "vi"
    found = folded_words(sample)
    vietnamese = sum(w in _VIETNAMESE_WORDS for w in found)
    english = sum(w in _ENGLISH_WORDS for w in found)
    return "vi" if vietnamese > english else "en"


def sentences(text: str) -> list[tuple[int, int]]:
    """The (start, end) spans of the text's sentences, white space at the edges left out."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if "\n" not in match.group() and _NUMBERING.search(
            text[max(start, match.start() - 24) : match.start()]
        ):
            continue
        _append_trimmed(spans, text, start, match.start())
        start = match.end()
    _append_trimmed(spans, text, start, len(text))
    return spans


def _append_trimmed(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        spans.append((start, end))
