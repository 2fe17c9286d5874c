"""Every sentence a person sees exists in Vietnamese, with the same values to fill in."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from chatbot import i18n
from chatbot.i18n import LOCALE_FOLDER, preferred_language, translate, translate_plural
from chatbot.settings import PROJECT

CATALOGUE = LOCALE_FOLDER / "vi" / "LC_MESSAGES" / "hearth.po"
MARKERS = {"_": 1, "N_": 1, "translate": 1, "plural": 2, "translate_plural": 2}


def messages() -> dict[str | tuple[str, str], str]:
    """Every marked msgid (a pair for plurals) and where it stands first."""
    found: dict[str | tuple[str, str], str] = {}
    files = [
        *sorted((PROJECT / "chatbot").rglob("*.py")),
        *sorted((PROJECT / "pages").rglob("*.py")),
    ]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            count = MARKERS.get(_name(node.func), 0)
            texts = tuple(_literal(a) for a in node.args[:count])
            if count and len(texts) == count and all(texts):
                key = texts[0] if count == 1 else texts
                found.setdefault(key, f"{file.relative_to(PROJECT)}:{node.lineno}")
    return found


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


def _literal(argument: ast.expr) -> str:
    value = argument.value if isinstance(argument, ast.Constant) else None
    return value if isinstance(value, str) else ""


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    if not CATALOGUE.exists():
        return Catalog(locale="vi")  # the first test then lists all that is missing
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="vi")


def test_every_message_is_translated(catalogue):
    missing = []
    for key, place in messages().items():
        entry = catalogue.get(key[0] if isinstance(key, tuple) else key)
        texts = (
            [entry.string]
            if entry and isinstance(entry.string, str)
            else list(entry.string)
            if entry
            else []
        )
        if not entry or entry.fuzzy or not texts or not all(texts):
            missing.append(f"{place}: {key!r}")
        elif isinstance(key, tuple) and (not entry.pluralizable or entry.id != key):
            missing.append(f"{place}: {key!r} needs msgid_plural")
    assert not missing, "not in vi.po:\n" + "\n".join(missing)


def test_translations_fill_in_the_same_values(catalogue):
    wrong = []
    for entry in catalogue:
        if not entry.id:
            continue
        ids = entry.id if isinstance(entry.id, tuple) else (entry.id,)
        strings = entry.string if isinstance(entry.string, tuple) else (entry.string,)
        wanted = set().union(*(placeholders(text) for text in ids))
        wrong += [
            f"{text!r}: {wanted}" for text in strings if text and placeholders(text) != wanted
        ]
    assert not wrong


def test_vietnamese_is_written_composed(catalogue):
    import unicodedata

    for entry in catalogue:
        for text in entry.string if isinstance(entry.string, tuple) else (entry.string,):
            assert unicodedata.normalize("NFC", text) == text


def test_the_catalogue_knows_one_plural_form(catalogue):
    assert catalogue.num_plurals == 1


def test_no_message_is_put_together_from_pieces():
    """An f-string or a sum inside a marker can never be found in a catalogue."""
    wrong = []
    for file in [*(PROJECT / "chatbot").rglob("*.py"), *(PROJECT / "pages").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            count = MARKERS.get(_name(node.func), 0) if isinstance(node, ast.Call) else 0
            if count and any(isinstance(a, ast.JoinedStr | ast.BinOp) for a in node.args[:count]):
                wrong.append(f"{file.relative_to(PROJECT)}:{node.lineno}")
    assert not wrong


def test_pages_hold_no_words_in_one_language_only():
    """Text handed to Streamlit as a plain sentence would stay English for everyone."""
    shown = re.compile(r"[A-Za-zÀ-ỹ]{2,} [A-Za-zÀ-ỹ]{2,}")
    wrong = []
    for file in (PROJECT / "pages").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if not isinstance(node.func.value, ast.Name) or node.func.value.id != "st":
                continue
            if node.func.attr in ("html", "Page"):
                continue
            wrong += [
                f"{file.relative_to(PROJECT)}:{node.lineno}: {_literal(a)!r}"
                for a in node.args[:1]
                if shown.search(_literal(a))
            ]
    assert not wrong


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("en-US,en;q=0.9", "en"),
        ("vi_VN.UTF-8", "vi"),
        ("fr-FR,vi;q=0.5", "vi"),
        ("ja", "en"),
        ("", "en"),
        (None, "en"),
        ("VI", "vi"),
    ],
)
def test_the_language_follows_the_browser(asked, language):
    assert preferred_language(asked) == language


@pytest.fixture
def small_catalogue(tmp_path: Path, monkeypatch):
    folder = tmp_path / "vi" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "hearth.po").write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n'
        'Plural-Forms: nplurals=1; plural=0;\\n"\n\n'
        'msgid "Yes"\nmsgstr "Vâng"\n\n'
        'msgid "{count} page"\nmsgid_plural "{count} pages"\nmsgstr[0] "{count} trang"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(i18n, "LOCALE_FOLDER", tmp_path)
    i18n.catalogue.cache_clear()
    yield
    i18n.catalogue.cache_clear()


@pytest.mark.usefixtures("small_catalogue")
def test_the_catalogue_is_read_as_it_is_written():
    assert translate("Yes", "vi") == "Vâng"
    assert translate("Yes", "en") == "Yes"
    assert translate("No such sentence", "vi") == "No such sentence"
    assert translate("", "vi") == ""  # gettext would answer with the catalogue's header
    assert translate_plural("{count} page", "{count} pages", 3, "vi") == "3 trang"
    assert translate_plural("{count} page", "{count} pages", 1, "en") == "1 page"
    assert translate_plural("{count} page", "{count} pages", 3, "en") == "3 pages"
