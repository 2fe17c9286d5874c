"""Kinds of files in words."""

from __future__ import annotations

from chatbot.i18n import N_
from chatbot.library.listing import Kind

FILE_KINDS: dict[Kind, str] = {
    "pdf": N_("PDF"),
    "office": N_("Word and the like"),
    "text": N_("Text and Markdown"),
    "sheet": N_("Tables"),
    "slides": N_("Slides"),
    "web": N_("Web pages"),
    "mail": N_("Mail"),
    "book": N_("E-books"),
    "picture": N_("Pictures"),
}
