"""Questions that name the place they want: 'Điều 35 Bộ luật Lao động', 'khoản 2 điều 16 quy chế đào tạo'.

Such a question goes straight there: to passages on that path, in the document that it names in words, by
official number ('nghị định 12/2022') or by initials ('dieu 35 blld').
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chatbot.text import folded_words

_ARTICLE = re.compile(r"\b(?:dieu|article|section) (\d+[a-z]?)\b")
_CLAUSE = re.compile(r"\b(?:khoan|clause) (\d+)\b")
_ON_PATH = re.compile(r"(?:^|› )[“\"]?(?:Điều|Article|Section) (\d+[a-zđ]?)\b", re.IGNORECASE)
_CLAUSES_ON_PATH = re.compile(r"(?:Khoản|Clause) (\d+)(?:–(\d+))?")
_KINDS = (
    "bo luat", "luat", "nghi dinh", "thong tu lien tich", "thong tu", "nghi quyet", "quyet dinh", "phap lenh",
    "hien phap", "quy che", "quy dinh", "noi quy", "dieu le", "hop dong", "chi thi", "huong dan",
)  # fmt: skip
_NAMED = re.compile(rf"\b(?:{'|'.join(_KINDS)})\b.*")
_AFTER_NAME = re.compile(
    r"\b(?:quy dinh (?:gi|the nao|nhu the nao|ra sao|ve)|noi (?:gi|ve)|la gi|co noi|the nao|nhu the nao|ve|thi)\b.*"
)


@dataclass(frozen=True, slots=True)
class Place:
    """An article, perhaps a clause of it, in a document as the question names it: folded words."""

    article: str
    clause: str
    document: tuple[str, ...]


def asked_place(question: str) -> Place | None:
    """The place that the question names; None when it names no article or no document."""
    said = " ".join(folded_words(question))
    article = _ARTICLE.search(said)
    if article is None:
        return None
    clause = _CLAUSE.search(said)
    rest = " ".join(_CLAUSE.sub(" ", _ARTICLE.sub(" ", said, 1), 1).split())
    rest = _AFTER_NAME.sub("", rest)
    named = _NAMED.search(rest)
    document = (named[0] if named else rest).split()
    document = [
        word for word in document if word not in ("cua", "trong", "theo", "so", "of", "the")
    ]
    if not document:
        return None
    return Place(article[1], clause[1] if clause else "", tuple(document))


def stands_there(place: Place, name: str, path: str) -> int:
    """How well a passage's document and path fit: 0 not at all, 1 the article, 2 the very clause."""
    name_words = folded_words(re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name).replace("_", " "))
    articles = [number.lower() for number in _ON_PATH.findall(path)]
    if not articles and not path and name_words and name_words[-1].isdigit():
        articles, name_words = [name_words[-1]], name_words[:-1]  # a file for each article
    if place.article not in articles or not _is_called(place.document, name_words):
        return 0
    clauses = _CLAUSES_ON_PATH.findall(path)
    if not place.clause:
        return 1
    if not clauses:
        return 2  # the article in one piece
    wanted = int(place.clause)
    return 2 if any(int(a) <= wanted <= int(b or a) for a, b in clauses) else 1


def _is_called(asked: tuple[str, ...], name: list[str]) -> bool:
    """Whether the words asked for name this document: all are in its name, or are its initials."""
    own = [word for word in name if not word.isdigit()]
    if len(asked) == 1 and len(own) > 1:
        return asked[0] == "".join(word[0] for word in own)
    in_a_row = f" {' '.join(own)} " in f" {' '.join(asked)} "
    return set(asked) <= set(name) or (len(own) > 1 and in_a_row)
