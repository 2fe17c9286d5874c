"""Vietnamese written before Unicode: TCVN3 (ABC) and VNI, told by their words and converted.

Both put Vietnamese letters on the codes of Western ones, so 'được' reads '®­îc' or 'ñöôïc'. No file says
so; what tells is that nearly all odd words become Vietnamese syllables and that they hold signs which no
living language writes there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import product
from typing import Literal

from chatbot.i18n import N_

Scheme = Literal["tcvn3", "vni"]

NOTES: dict[Scheme, str] = {
    "tcvn3": N_("Converted from TCVN3 (ABC), an old Vietnamese encoding."),
    "vni": N_("Converted from VNI, an old Vietnamese encoding."),
}

SAMPLE = 200_000
MIN_WORDS = 4
"""How many different odd words a text must have before anything is concluded from them."""

_VIETNAMESE = "àáảãạăằắẳẵặâầấẩẫậđèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵ"
_TCVN3 = "µ¸¶·¹¨»¾¼½Æ©ÇÊÈÉË®ÌÐÎÏÑªÒÕÓÔÖ×ÝØÜÞßãáâä«åèæçé¬êíëìîóïñòô\xadõøö÷ùúýûüþ"
_TCVN3_CAPITALS = str.maketrans("¡¢£¤¥¦§", "ĂÂÊÔƠƯĐ")
_FROM_TCVN3 = {**str.maketrans(_TCVN3, _VIETNAMESE), **_TCVN3_CAPITALS}

# VNI writes a letter and its mark behind it: 'aù' is á, 'eä' is ệ, 'ôï' is ợ.
_TONES = {"ø": "\u0300", "ù": "\u0301", "û": "\u0309", "õ": "\u0303", "ï": "\u0323"}
_HATS = {"â": "", "à": "\u0300", "á": "\u0301", "å": "\u0309", "ã": "\u0303", "ä": "\u0323"}
_BREVES = {"ê": "", "è": "\u0300", "é": "\u0301", "ú": "\u0309", "ü": "\u0303", "ë": "\u0323"}
_VNI_LETTERS = {"ô": "ơ", "ö": "ư"}
_VNI_ALONE = {**_VNI_LETTERS, "ñ": "đ", "æ": "ỉ", "ó": "ĩ", "ò": "ị", "î": "ỵ", "ì": "ì", "í": "í"}
_FROM_VNI = {
    **{b + m: f"{_VNI_LETTERS.get(b, b)}{t}" for b, (m, t) in product("aeouyôö", _TONES.items())},
    **{b + m: f"{b}\u0302{t}" for b, (m, t) in product("aeo", _HATS.items())},
    **{f"a{m}": f"a\u0306{t}" for m, t in _BREVES.items()},
    **_VNI_ALONE,
}
_FROM_VNI = {key: unicodedata.normalize("NFC", value) for key, value in _FROM_VNI.items()}
_VNI = re.compile("|".join(sorted(map(re.escape, _FROM_VNI), key=len, reverse=True)), re.IGNORECASE)

# A word here is letters and whatever sign an old encoding may have put in the place of one.
_WORD = re.compile(r"(?:[^\W\d_]|[\u00a1-\u00bf\u00d7\u00f7])+")
_ODD = re.compile("[\u00a1-\u00ff]")
_TELLING: dict[Scheme, re.Pattern[str]] = {
    "tcvn3": re.compile("[µ¸¶·¹¨»¾¼½©®ª«¬\u00ad¡¢£¤¥¦§]"),  # signs, inside words
    "vni": re.compile("[øûïåäëüöñ]", re.IGNORECASE),  # letters that Vietnamese never has
}
_MODERN = re.compile("[ăđơư\u1ea0-\u1ef9]", re.IGNORECASE)
_TONE = re.compile("[\u0300\u0301\u0303\u0309\u0323]")
_ONSETS = frozenset(
    ["", "b", "c", "ch", "d", "đ", "g", "gh", "gi", "h", "k", "kh", "l", "m", "n", "ng", "ngh", "nh", "p", "ph",
     "qu", "r", "s", "t", "th", "tr", "v", "x"]
)  # fmt: skip
_RHYMES_WRITTEN = """
    a ac ach ai am an ang anh ao ap at au ay ăc ăm ăn ăng ăp ăt âc âm ân âng âp ât âu ây
    e ec em en eng eo ep et ê êch êm ên êng ênh êp êt êu i ia ich iêc iêm iên iêng iêp iêt iêu im in inh ip it
    iu o oa oac oach oai oam oan oang oanh oao oap oat oay oăc oăm oăn oăng oăt oc oe oen oeo oet oi om on ong
    ooc oong op ot ô ôc ôi ôm ôn ông ôp ôt ơ ơi ơm ơn ơp ơt u ua uân uâng uât uây uc uê uêch uên uênh ui um un
    ung uơ uôc uôi uôm uôn uông uôt up ut uy uya uych uyên uyêt uynh uyt uyu ư ưa ưc ưi ưm ưn ưng ươc ươi ươm
    ươn ương ươp ươt ươu ưt ưu y ych yêm yên yêng yêt yêu ynh yt
"""
_RHYMES = frozenset(_RHYMES_WRITTEN.split())


def modernised(text: str) -> tuple[str, str | None]:
    """The text in Unicode, and a note when it was in an old encoding."""
    scheme = detect(text)
    return modern(text, scheme), NOTES[scheme] if scheme else None


def detect(text: str) -> Scheme | None:
    """The old encoding of that text; None for text that is in none, which is never to be touched."""
    found = [w for w in _WORD.findall(text[:SAMPLE]) if len(w) > 1]
    odd = [w for w in found if _ODD.search(w)]
    if len(set(odd)) < MIN_WORDS or len(odd) < 0.15 * len(found):
        return None
    schemes: tuple[Scheme, ...] = ("tcvn3", "vni")
    return next((scheme for scheme in schemes if _fits(odd, scheme)), None)


def modern(text: str, scheme: Scheme | None) -> str:
    """The text with those of its lines converted that are in that encoding."""
    if scheme is None or not _ODD.search(text):
        return text
    return "".join(_modern_line(line, scheme) for line in text.splitlines(keepends=True))


def _fits(odd: list[str], scheme: Scheme) -> bool:
    fitting = [w for w in odd if is_syllable(_converted(w, scheme))]
    telling = sum(bool(_TELLING[scheme].search(w)) for w in fitting)
    return (
        len(set(fitting)) >= MIN_WORDS
        and len(fitting) >= 0.85 * len(odd)
        and telling >= max(2, 0.2 * len(odd))
    )


def is_syllable(word: str) -> bool:
    """Whether that could be one Vietnamese syllable, whatever it means."""
    split = unicodedata.normalize("NFD", word.lower())
    tones = _TONE.findall(split)
    bare = unicodedata.normalize("NFC", _TONE.sub("", split))
    if len(tones) > 1:
        return False
    if bare.endswith(("c", "ch", "p", "t")) and tones not in (["\u0301"], ["\u0323"]):
        return False
    return any(bare[:n] in _ONSETS and bare[n:] in _RHYMES for n in range(4))


def _modern_line(line: str, scheme: Scheme) -> str:
    odd = [w for w in _WORD.findall(line) if len(w) > 1 and _ODD.search(w)]
    if not odd or _MODERN.search(line):
        return line
    if sum(is_syllable(_converted(w, scheme)) for w in odd) * 2 < len(odd):
        return line
    shouted = scheme == "tcvn3" and _is_shouted(_WORD.findall(line))

    def convert(match: re.Match[str]) -> str:
        word = match.group()
        if len(word) == 1 and not word.isalpha() and word not in "«®":
            return word  # a sign of its own: ©, ·, ½; but "đ)" and "ô" are words
        new = _converted(word, scheme)
        return new.upper() if shouted or (scheme == "tcvn3" and _is_shouted([word])) else new

    return _WORD.sub(convert, line)


def _is_shouted(found: Iterable[str]) -> bool:
    """Whether these words are in capitals; TCVN3 has none with tones and leaves those small."""
    latin = [[c for c in word if c.isascii() and c.isalpha()] for word in found]
    return not any(c.islower() for w in latin for c in w) and any(len(w) > 1 for w in latin)


def _converted(word: str, scheme: Scheme) -> str:
    if scheme == "tcvn3":
        return word.translate(_FROM_TCVN3)

    def letter(match: re.Match[str]) -> str:
        old = match.group()
        new = _FROM_VNI[old.lower()]
        return new.upper() if old[0].isupper() else new

    return _VNI.sub(letter, word)
