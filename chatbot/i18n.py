"""Words in the person's language: gettext catalogues, English as the source.

English msgids stand in the code; `chatbot/locale/vi/LC_MESSAGES/hearth.po` holds the Vietnamese.
The .po file is read directly at first use, so a catalogue can never be staler than its source.
"""

from __future__ import annotations

import gettext
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from chatbot.types import Language

LANGUAGES: dict[Language, str] = {"vi": "Tiếng Việt", "en": "English"}
LOCALE_FOLDER = Path(__file__).parent / "locale"


def N_(text: str) -> str:
    """Mark a msgid for extraction; it is translated where it is shown."""
    return text


@cache
def catalogue(language: Language) -> gettext.NullTranslations:
    """The translations of that language; the empty catalogue where msgids are shown as they are."""
    po_file = LOCALE_FOLDER / language / "LC_MESSAGES" / "hearth.po"
    if not po_file.exists():
        return gettext.NullTranslations()
    # Imported here: Babel costs 40 ms that importing chatbot should not pay.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    with po_file.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def translate(text: str, language: Language) -> str:
    """That msgid in the language; itself where no translation exists."""
    return catalogue(language).gettext(text) if text else ""


def translate_plural(singular: str, plural: str, count: int, language: Language) -> str:
    """The right form for `count`, with {count} filled in."""
    return catalogue(language).ngettext(singular, plural, count).format(count=count)


def filled(message: str, values: Mapping[str, Any], language: Language) -> str:
    """That msgid in the language with its {places} filled: numbers as the language writes them, msgids translated."""
    shown = {
        name: figure(value, language)
        if isinstance(value, float)
        else translate(value, language)
        if isinstance(value, str)
        else value
        for name, value in values.items()
    }
    try:
        return translate(message, language).format_map(shown)
    except (KeyError, IndexError, ValueError):  # said by an older version, with other places
        return translate(message, language)


GB = 1 << 30
"""Bytes of memory in a GB, as every system shows them: an 8 GB card has 8.0. Files and disks count in 10**9."""


def figure(value: float, language: Language) -> str:
    """A number to one place, small ones to two, with the language's decimal sign."""
    shown = f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"
    return shown.replace(".", ",") if language == "vi" else shown


def preferred_language(accept_language: str | None) -> Language:
    """The language a browser asks for (an Accept-Language header or locale name); English when neither."""
    for part in (accept_language or "").lower().split(","):
        code = part.split(";")[0].strip()[:2]
        if code == "vi":
            return "vi"
        if code == "en":
            return "en"
    return "en"
