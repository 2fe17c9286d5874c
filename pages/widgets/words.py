"""The language of this browser, and every word and figure in it."""

from __future__ import annotations

import time
from datetime import datetime

import streamlit as st

from chatbot.i18n import GB, preferred_language, translate, translate_plural
from chatbot.services import services
from chatbot.types import Language


def language() -> Language:
    """The chosen language; until one is chosen, the browser's."""
    return services().settings.language or preferred_language(st.context.locale)


def _(text: str) -> str:
    return translate(text, language())


def plural(singular: str, many: str, count: int) -> str:
    return translate_plural(singular, many, count, language())


def size(number: float) -> str:
    """Bytes of files and disks in the unit people use."""
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{decimal(number, 0)} {unit}"
        number /= 1000
    return f"{decimal(number, 1)} GB"


def memory(number: float) -> str:
    """Bytes of memory, where an 8 GB card has 8.0 GB and not 8.6."""
    if number >= GB / 10:
        return f"{decimal(number / GB)} GB"
    return f"{decimal(number / (1 << 20), 0)} MB"


def decimal(number: float, digits: int = 1) -> str:
    """A number with the language's decimal sign."""
    text = f"{number:,.{digits}f}"
    return text.translate(str.maketrans(",.", ".,")) if language() == "vi" else text


def seconds(number: float) -> str:
    """A duration: '4.2 s', '1 min 20 s'."""
    if number < 60:
        return f"{decimal(number, 1 if number < 10 else 0)} s"
    return f"{int(number // 60)} {_('min')} {int(number % 60)} s"


def day(moment: float) -> str:
    """The heading a conversation stands under."""
    days = (datetime.now().date() - datetime.fromtimestamp(moment).date()).days  # noqa: DTZ005, DTZ006 - the person's own clock
    if days <= 0:
        return _("Today")
    if days == 1:
        return _("Yesterday")
    if days < 7:
        return _("Last 7 days")
    return time.strftime("%m/%Y", time.localtime(moment))


def moment(seconds_since_epoch: float) -> str:
    """A day and time as the language writes it."""
    layout = "%d/%m/%Y %H:%M" if language() == "vi" else "%Y-%m-%d %H:%M"
    return time.strftime(layout, time.localtime(seconds_since_epoch))


def iso_day(day: str) -> str:
    """A day given as 2024-07-30, as the language writes it."""
    return "/".join(reversed(day.split("-"))) if language() == "vi" else day
