"""Every error tells what happened and what to do, in both languages, and survives a process border."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from string import Formatter

import pytest

import chatbot
from chatbot import errors
from chatbot.errors import Cancelled, ChatbotError, EmptyDocument, UnreadableDocument, every_error

ERRORS = every_error()


def values_for(cls: type[ChatbotError]) -> dict[str, str]:
    names = {
        name
        for text in (cls.happened, cls.next_step)
        for _, name, _, _ in Formatter().parse(text)
        if name and name != "detail"
    }
    return {name: f"‹{name}›" for name in names}


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_it_crosses_a_process_border_as_itself(cls):
    error = cls("chi tiết", **values_for(cls))
    travelled = ChatbotError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(travelled) is cls
    assert travelled.values == error.values
    assert str(travelled) == str(error)


@pytest.mark.parametrize("language", ["vi", "en"])
@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_it_says_what_happened_with_its_values(cls, language):
    values = values_for(cls)
    text = cls("chi tiết", **values).text(language)
    assert len(text) > 5
    assert "{" not in text
    assert all(value in text for value in values.values())


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_it_says_what_to_do_next(cls):
    assert cls.happened
    assert cls.next_step or cls is Cancelled


def test_codes_are_unique():
    codes = [cls.code for cls in ERRORS]
    assert sorted(set(codes)) == sorted(codes)


def test_the_tree_in_the_docstring_is_the_real_one():
    drawn = re.findall(r"(?:├──|└──|^    )\s?([A-Z][A-Za-z]+)\s", errors.__doc__, re.MULTILINE)
    assert sorted(drawn) == sorted(
        cls.__name__ for cls in ERRORS if cls.__module__ == "chatbot.errors"
    )


def test_every_error_lives_in_the_tree():
    """An error made elsewhere could not cross into a process that never imported its module."""
    for module in pkgutil.walk_packages(chatbot.__path__, "chatbot."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {cls.__module__ for cls in every_error()} == {"chatbot.errors"}


def test_an_unknown_code_is_still_an_error_to_show():
    error = ChatbotError.from_dict({"code": "of a newer Hearth", "values": {"detail": "x"}})
    assert type(error) is ChatbotError
    assert "x" in error.text("en")


def test_missing_values_never_make_a_second_error():
    assert EmptyDocument().text("vi")
    assert UnreadableDocument("{name} {0} {").text("en")


def test_the_message_is_the_english_text():
    assert str(EmptyDocument(name="a.pdf")) == EmptyDocument(name="a.pdf").text("en")
    assert "a.pdf" in str(EmptyDocument(name="a.pdf"))
