"""How many planted errors the support check finds, and how many sound sentences it blames.

    python benchmarks/support.py [--data ../shared/data] [--half report|develop] [--answers 300] [--show 0]

Answers are built from real passages: each has three sentences, one of them with a planted error (changed
number, swapped article, invented quotation, negation, wrong citation; in turn), the others sound. Every
second sound sentence is a paraphrase by rule: other word order, synonyms, numbers written out, passive.
Documents are parted by a hash: `develop` was looked at while the check was written, `report` was not.
Prints one row for each kind and language, and the processor's milliseconds for one answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chatbot.chat.support import check
from chatbot.i18n import translate
from chatbot.library.chunking import cut
from chatbot.settings import PROJECT
from chatbot.text import language_of, nfc, sentences
from chatbot.types import PageText, Source

KINDS = ("number", "article", "quotation", "negation", "citation")


@dataclass(frozen=True)
class Piece:
    """A passage with the document it is of; `article` names its place as an answer would."""

    document: str
    path: str
    text: str
    article: str = ""


@dataclass(frozen=True)
class Item:
    """An answer, its sources, the span and kind of the planted error, and the sound spans by kind."""

    answer: str
    sources: tuple[Source, ...]
    planted: tuple[int, int]
    kind: str
    sound: tuple[tuple[int, int, str], ...]
    language: str


# --- passages ---------------------------------------------------------------------------------


def in_half(name: str, half: str) -> bool:
    return (hashlib.sha256(name.encode()).digest()[0] % 2 == 0) == (half == "develop")


def passages(data: Path, half: str) -> dict[str, list[list[Piece]]]:
    """For each language the documents of that half, each a list of passages."""
    found: dict[str, list[list[Piece]]] = {"vi": [], "en": []}
    laws: dict[str, list[Piece]] = defaultdict(list)
    for row in rows(data / "alqac-vi/corpus.jsonl"):
        law, article = row["metadata"]["law_id"], row["metadata"]["article_id"]
        laws[law].append(Piece(law, f"Điều {article}", row["text"], f"Điều {article}"))
    for file in sorted((data / "phapluat-vi").glob("*.txt")):
        for draft in cut([PageText(nfc(file.read_text(encoding="utf-8")))]):
            if match := re.search(r"Điều (\d+)", draft.path):
                piece = Piece(file.stem, draft.path, draft.text, match.group())
                laws[file.stem].append(piece)
    for document in (PROJECT / "data/samples").iterdir():
        for piece in sample(document):
            laws[document.name].append(piece)
    for name, pieces in laws.items():
        if len(pieces) >= 4 and in_half(name, half):
            found[language_of(pieces[1].text)].append(pieces)
    articles: dict[str, list[Piece]] = defaultdict(list)
    for name in ("xquad-en", "nq-en"):
        for row in rows(data / name / "corpus.jsonl"):
            group = row["title"] if name == "xquad-en" else "nq " + row["_id"][:-1]
            section = f"Section {len(articles[group]) + 1}"
            articles[group].append(Piece(row["title"], section, row["text"], section))
    for file in sorted((data / "kg-rag-10q/documents").glob("*.pdf")):
        for number, draft in enumerate(cut([PageText(nfc(pdf_text(file)))]), 1):
            articles[file.name].append(
                Piece(file.name, f"Item {number}", draft.text, f"Item {number}")
            )
    found["en"] += [p for name, p in articles.items() if len(p) >= 4 and in_half(name, half)]
    return found


def rows(file: Path) -> Iterator[dict]:
    for line in file.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def pdf_text(file: Path) -> str:
    import pypdfium2

    document = pypdfium2.PdfDocument(file)
    return "\n".join(page.get_textpage().get_text_bounded() for page in document).replace("\r", "")


def sample(file: Path) -> list[Piece]:
    from docx import Document

    if file.suffix == ".docx":
        text = "\n".join(p.text for p in Document(str(file)).paragraphs)
    else:
        text = pdf_text(file)
    return [
        Piece(file.name, d.path, d.text, match.group() if match else "")
        for d in cut([PageText(nfc(text))])
        for match in [re.search(r"(?:Điều|Article|Section) \d+", d.path)]
    ]


def usable(piece: Piece) -> list[str]:
    """The passage's sentences that say something on their own."""
    found = []
    text = re.sub(r"(?<=[^\n.:;]{45})\n(?=\S)", " ", nfc(piece.text))
    for start, end in sentences(text):
        said = re.sub(r"^(?:\d{1,3}[.)]|[a-zđ]\))\s+", "", " ".join(text[start:end].split()))
        words = said.split()
        if 9 <= len(words) <= 45 and re.search(r"[.]$", said) and said[0].isupper() and not re.search(r"[“”\"\[\]|@]|\.{2}", said):  # fmt: skip
            found.append(said)
    return found


# --- paraphrases ------------------------------------------------------------------------------

SAME_VI = {
    "phải": "cần phải", "có trách nhiệm": "có nghĩa vụ", "được phép": "có quyền", "trong trường hợp": "nếu",
    "quy định tại": "nêu tại", "thực hiện": "tiến hành", "bao gồm": "gồm có", "đối với": "với",
    "nhằm": "để", "khi": "lúc", "tổ chức, cá nhân": "cá nhân, tổ chức", "kể từ ngày": "tính từ ngày",
    "theo quy định của": "căn cứ quy định của", "và": "cùng với", "các": "những", "sử dụng": "dùng",
    "bảo đảm": "đảm bảo", "không quá": "tối đa", "ít nhất": "tối thiểu", "do": "bởi", "nộp": "gửi",
    "hoặc": "hay", "cơ quan có thẩm quyền": "cơ quan chức năng", "công bố": "thông báo",
}  # fmt: skip
SAME_EN = {
    "however": "though", "many": "numerous", "began": "started", "built": "constructed", "large": "big",
    "often": "frequently", "because": "since", "must": "has to", "may": "can", "during": "in the course of",
    "but": "yet", "also": "in addition", "found": "discovered", "became": "turned into", "shows": "displays",
    "about": "approximately", "around": "roughly", "such as": "for example", "including": "among them",
    "first": "earliest", "main": "principal", "employees": "staff members", "received": "got", "increased": "rose",
    "decreased": "fell", "primarily": "mainly", "used": "employed", "named": "called", "located": "situated",
}  # fmt: skip


def vietnamese_number(n: int) -> str:
    digit = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]
    if n < 10:
        return digit[n]
    if n < 20:
        return "mười" + {0: "", 5: " lăm"}.get(n % 10, " " + digit[n % 10])
    if n < 100:
        tail = {0: "", 1: " mốt", 5: " lăm"}.get(n % 10, " " + digit[n % 10])
        return digit[n // 10] + " mươi" + tail
    if n < 1000:
        rest = n % 100
        tail = (
            ""
            if not rest
            else " linh " + digit[rest]
            if rest < 10
            else " " + vietnamese_number(rest)
        )
        return digit[n // 100] + " trăm" + tail
    for size, name in ((10**9, "tỷ"), (10**6, "triệu"), (1000, "nghìn")):
        if n >= size:
            rest = n % size
            return f"{vietnamese_number(n // size)} {name}" + (
                f" {vietnamese_number(rest)}" if rest else ""
            )
    raise ValueError


def english_number(n: int) -> str:
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return small[n]
    if n < 100:
        return tens[n // 10] + (f"-{small[n % 10]}" if n % 10 else "")
    for size, name in (
        (10**9, "billion"),
        (10**6, "million"),
        (1000, "thousand"),
        (100, "hundred"),
    ):
        if n >= size:
            rest = n % size
            return f"{english_number(n // size)} {name}" + (
                f" {english_number(rest)}" if rest else ""
            )
    raise ValueError


# A number that stands for an amount: no date, reference, year, document number or piece of a longer one.
AMOUNT = re.compile(
    r"(?<![\w/.,:$€£+-])(?<!Điều )(?<!điều )(?<!khoản )(?<!Khoản )(?<!ngày )(?<!tháng )(?<!năm )(?<!số )(?<!mục )(?<!Chương )"
    r"(\d{1,3}(?:[.,]\d{3})+|\d{1,3})(?![\w/:]|[.,-]\d|\s?(?:January|February|March|April|May|June|July|August|September|October|November|December|[–-]\s?\d)|, (?:19|20)\d\d|\s\d{3})"
)  # fmt: skip
MONTH_BEFORE = re.compile(r"(?:January|February|March|April|May|June|July|August|September|October|November|December|Note|Item|Section|Article|Part|Super Bowl|No\.?)\s$")  # fmt: skip


def amounts(text: str) -> list[re.Match[str]]:
    return [m for m in AMOUNT.finditer(text) if not MONTH_BEFORE.search(text[: m.start()])]


def paraphrase(text: str, language: str, draw: random.Random) -> str:
    """The sentence in other words; the same text when no rule fits."""
    made = reordered(text, language)
    for match in reversed(amounts(made)):
        value = int(re.sub(r"[.,]", "", match.group()))
        words = (vietnamese_number if language == "vi" else english_number)(value)
        if draw.random() < 0.6 and len(words) < 60:
            made = made[: match.start()] + words + made[match.end() :]
    table = list((SAME_VI if language == "vi" else SAME_EN).items())
    draw.shuffle(table)
    changed = 0
    for word, other in table:
        swapped = re.sub(rf"(?<![\w-]){word}(?![\w-])", other, made, count=1)
        changed += swapped != made
        made = swapped
        if changed == 4:
            break
    return made[0].upper() + made[1:]


def reordered(text: str, language: str) -> str:
    body = text.rstrip(".")
    if language == "vi":
        if match := re.fullmatch(
            r"((?:Trường hợp|Khi|Nếu|Trong thời hạn|Đối với|Căn cứ) [^,]{12,}), (.{20,})", body
        ):
            return f"{match[2]}, {lower(match[1])}."
        if match := re.fullmatch(
            r"((?:Chính phủ|Bộ trưởng [^,]{4,40}?|Thủ tướng Chính phủ|Quốc hội)) (quy định|quyết định|ban hành) (.{15,})",
            body,
        ):
            return f"{match[3]} do {match[1]} {match[2]}."
        if match := re.fullmatch(
            r"([^,]{20,}) (khi|nếu|trong thời hạn|trong trường hợp) ([^,]{12,})", body
        ):
            return f"{match[2]} {match[3]}, {lower(match[1])}."
        return text
    if match := re.fullmatch(
        r"((?:In|On|At|After|Before|During|When|While|As|By|For|If) [^,]{4,}), (.{20,})", body
    ):
        return f"{match[2]} {lower(match[1])}."
    if match := re.fullmatch(
        r"([^,]{20,}) ((?:in|during|after|before|when|while|because) [^,]{8,})", body
    ):
        return f"{match[2]}, {lower(match[1])}."
    if match := re.fullmatch(
        r"((?:The|A) [^,]{4,40}?) (won|made|built|wrote|published|produced|discovered|released|defeated|led) (the .{10,})",
        body,
    ):
        verb = {"wrote": "written", "led": "led"}.get(match[2], match[2])
        return f"{match[3]} was {verb} by {lower(match[1])}."
    return text


def lower(text: str) -> str:
    first = text.split(maxsplit=1)[0]
    common = ["The", "A", "An", "In", "On", "At", "After", "Before", "During", "When", "While", "As", "By", "For", "If", "This", "These", "It", "They", "Người", "Các", "Trường", "Khi", "Nếu", "Trong", "Đối", "Căn", "Việc", "Tổ", "Cơ", "Cá", "Doanh", "Mọi", "Những", "Công", "Hoạt", "Thời", "Mức", "Hồ", "Nhà"]  # fmt: skip
    return text[0].lower() + text[1:] if first in common else text


# --- planted errors ---------------------------------------------------------------------------


def wrong_number(text: str, piece: Piece, _language: str, draw: random.Random) -> str | None:
    places = amounts(text)
    if not places:
        return None
    match = draw.choice(places)
    written = match.group()
    value = int(re.sub(r"[.,]", "", written))
    own = {re.sub(r"[.,]", "", m.group()) for m in amounts(text)}
    others = [m.group() for m in amounts(piece.text) if re.sub(r"[.,]", "", m.group()) not in own]
    if others and draw.random() < 0.2:
        new = draw.choice(others)
    else:
        wrong = draw.choice(
            [value * 2 + 1, value + draw.randint(1, 9), value * 10, max(value - 1, 0)]
        )
        new = (
            str(wrong)
            if len(written) <= 3
            else f"{wrong:,}".replace(",", "." if "." in written else ",")
        )
    if int(re.sub(r"[.,]", "", new)) in (value, 0):
        return None
    return text[: match.start()] + new + text[match.end() :]


FLIPS = {
    "vi": [
        ("không được", "được"), ("không phải", "phải"), ("phải", "không phải"), ("được", "không được"),
        ("tối đa", "tối thiểu"), ("ít nhất", "nhiều nhất"), ("không quá", "ít nhất"), ("trước khi", "sau khi"),
        ("tăng", "giảm"), ("có", "không có"), ("trừ", "kể cả"), ("dưới", "trên"), ("là", "không phải là"),
        ("bao gồm", "không bao gồm"), ("cấm", "cho phép"),
    ],
    "en": [
        ("is not", "is"), ("was not", "was"), ("did not", "did"), ("is", "is not"), ("was", "was not"),
        ("are", "are not"), ("were", "were not"), ("must", "must not"), ("may", "may not"), ("can", "cannot"),
        ("has", "has not"), ("had", "had not"), ("before", "after"), ("after", "before"), ("increased", "decreased"),
        ("decreased", "increased"), ("at least", "at most"), ("more than", "less than"), ("only", "not only"),
        ("higher", "lower"), ("will", "will not"), ("without", "with"),
    ],
}  # fmt: skip


def negated(text: str, _piece: Piece, language: str, draw: random.Random) -> str | None:
    fitting = [
        (old, new) for old, new in FLIPS[language]
        if len(re.findall(rf"(?<![\w-]){old}(?![\w-])", text)) == 1
        and not (old in ("phải", "được", "có") and re.search(rf"(?:không|chưa|chỉ|phải) {old}|{old} (?:quy định|ban hành|hiểu|thẩm quyền|liên quan|hiệu lực)", text))
        and not (language == "en" and re.search(rf"\b{old} (?:not|n't|only)", text) and "not" not in old)
    ]  # fmt: skip
    if not fitting:
        return None
    old, new = draw.choice(fitting)
    if old == "only":
        return None
    return re.sub(rf"(?<![\w-]){old}(?![\w-])", new, text, count=1)


def invented(text: str, piece: Piece, language: str, draw: random.Random) -> str | None:
    words = text.rstrip(".").split()
    if len(words) < 12:
        return None
    begin = draw.randrange(0, len(words) - 9)
    part = words[begin : begin + draw.randint(8, 14)]
    pool = [w for w in piece.text.split() if w.isalpha() and len(w) > 3]
    if len(pool) < 20:
        return None
    for place in draw.sample(range(1, len(part) - 1), draw.randint(1, 3)):
        part[place] = draw.choice(pool)
    said = " ".join(part)
    return None if said in text else quoting(said, language, draw)


def quoting(said: str, language: str, draw: random.Random) -> str:
    forms = {
        "vi": ["Văn bản ghi rõ: “{}”.", "Theo tài liệu, “{}”.", "Quy định nêu \"{}\"."],
        "en": ["The document says: “{}”.", "According to the text, “{}”.", "It states that \"{}\"."],
    }  # fmt: skip
    return draw.choice(forms[language]).format(said)


def attributed(text: str, article: str, language: str) -> str:
    said = lower(text)
    return f"Theo {article}, {said}" if language == "vi" else f"According to {article}, {said}"


# --- answers ----------------------------------------------------------------------------------


def items(documents: dict[str, list[list[Piece]]], count: int, seed: int) -> list[Item]:
    draw = random.Random(seed)
    found: list[Item] = []
    per = Counter[tuple[str, str]]()
    wanted = -(-count // (2 * len(KINDS)))
    tries = 0
    while len(found) < count and tries < 400 * count:
        tries += 1
        language = draw.choice(["vi", "en"])
        open_kinds = [k for k in KINDS if per[language, k] < wanted]
        if open_kinds and documents[language]:
            kind = draw.choice(open_kinds)
            item = one(documents[language], language, kind, draw)
            if item:
                found.append(item)
                per[language, kind] += 1
    return found


def one(documents: list[list[Piece]], language: str, kind: str, draw: random.Random) -> Item | None:
    document = draw.choice(documents)
    main = draw.choice(document)
    others = [p for p in document if p.article != main.article and p.text != main.text]
    stranger = draw.choice(draw.choice(documents))
    if len(others) < 2 or stranger.document == main.document:
        return None
    said = usable(main)
    if len(said) < 3 or language_of(main.text) != language:
        return None
    shown = [main, *draw.sample(others, 2), stranger]
    draw.shuffle(shown)
    number = shown.index(main) + 1
    sources = tuple(
        Source(n, f"p{n}", p.document, p.document, 1, p.path, p.text, 1.0)
        for n, p in enumerate(shown, 1)
    )
    draw.shuffle(said)
    cited = number
    for sentence in said:
        base = paraphrase(sentence, language, draw) if draw.random() < 0.4 and kind in ("negation", "citation", "article") else sentence  # fmt: skip
        wrong = None
        if kind == "number":
            wrong = wrong_number(sentence, main, language, draw)
        elif kind == "negation":
            wrong = negated(base, main, language, draw)
        elif kind == "quotation":
            wrong = invented(sentence, main, language, draw)
        elif kind == "citation":
            cited = draw.choice([n for n in range(1, 5) if n != number])
            wrong = base
        elif main.article:
            word, own = main.article.split()
            near = [p.article.split()[1] for p in others if p.article]
            new = draw.choice(near) if near and draw.random() < 0.5 else str(int(re.sub(r"\D", "", own)) + draw.randint(1, 30))  # fmt: skip
            wrong = attributed(base, f"{word} {new}", language) if new != own else None
        if (wrong and wrong != sentence) or (kind == "citation" and wrong):
            break
    else:
        return None
    rest = [s for s in said if s != sentence][:2]
    lines: list[tuple[str, str]] = [("planted", marked(wrong, cited))]
    for i, sentence in enumerate(rest):
        sort, form = "quoted", sentence
        if i % 2:
            form = paraphrase(sentence, language, draw)
            sort = "paraphrased"
        elif draw.random() < 0.2 and main.article:
            form = attributed(sentence, main.article, language)
        elif draw.random() < 0.2:
            form = quoting(" ".join(sentence.rstrip(".").split()[:12]), language, draw)
        lines.append((sort, marked(form, number)))
    draw.shuffle(lines)
    return laid_out(lines, sources, kind, language, draw)


def marked(text: str, number: int) -> str:
    return f"{text[:-1]} [{number}]." if text.endswith(".") else f"{text} [{number}]"


def laid_out(
    lines: list[tuple[str, str]],
    sources: tuple[Source, ...],
    kind: str,
    language: str,
    draw: random.Random,
) -> Item:
    lead = {"vi": "Theo tài liệu:\n\n", "en": "Here is what the documents say:\n\n"}[language]
    as_list = draw.random() < 0.4
    answer = lead if as_list else ""
    planted, sound = (0, 0), []
    for sort, line in lines:
        answer += "- " if as_list else ""
        span = (len(answer), len(answer) + len(line))
        answer += line + ("\n" if as_list else " ")
        if sort == "planted":
            planted = span
        else:
            sound.append((*span, sort))
    return Item(answer, sources, planted, kind, tuple(sound), language)


# --- the table --------------------------------------------------------------------------------

Checker = Callable[[str, tuple[Source, ...]], tuple]


def measure(
    made: list[Item], show: int = 0, checker: Checker = check
) -> dict[str, dict[str, tuple[int, int]]]:
    """flagged and all, by kind and language; planted kinds first, then the sound sentences."""
    table: dict[str, dict[str, tuple[int, int]]] = defaultdict(lambda: defaultdict(lambda: (0, 0)))
    for item in made:
        verdicts = [v for v in checker(item.answer, item.sources) if not v.supported]
        for (start, end), row in [
            (item.planted, item.kind),
            *(((s, e), k) for s, e, k in item.sound),
        ]:
            blamed = [v for v in verdicts if v.start < end and start < v.end]
            for column in (item.language, "all"):
                flagged, every = table[row][column]
                table[row][column] = (flagged + bool(blamed), every + 1)
            wrong = bool(blamed) != (row in KINDS)
            if wrong and show > 0:
                show -= 1
                number = re.findall(r"\[(\d)\]", item.answer[start:end])
                reason = (
                    translate(blamed[0].reason, "en").format(**blamed[0].values)
                    if blamed
                    else "missed"
                )
                print(f"--- {row} {item.language}: {reason}\n{item.answer[start:end]}")
                for n in number:
                    source = item.sources[int(n) - 1]
                    print(
                        f"    <{source.document} | {source.path}> {' '.join(source.text.split())[:900]}"
                    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--half", choices=("report", "develop"), default="report")
    parser.add_argument("--answers", type=int, default=300)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2026)
    wanted = parser.parse_args()
    made = items(passages(wanted.data, wanted.half), wanted.answers, wanted.seed)
    took = []
    for item in made:
        started = time.process_time()
        check(item.answer, item.sources)
        took.append(1000 * (time.process_time() - started))
    table = measure(made, wanted.show)
    print(f"{len(made)} answers, half: {wanted.half}, seed {wanted.seed}; flagged / all")
    print(f"{'':14}{'all':>18}{'vi':>18}{'en':>18}")
    for name, parts in (("PLANTED", KINDS), ("SOUND", ("quoted", "paraphrased"))):
        sums = {
            c: (sum(table[k][c][0] for k in parts), sum(table[k][c][1] for k in parts))
            for c in ("all", "vi", "en")
        }
        for row, values in [*((k, table[k]) for k in parts), (name, sums)]:
            cells = "".join(
                f"{f'{a}/{b} = {a / b:.3f}' if b else '-':>18}"
                for a, b in (values[c] for c in ("all", "vi", "en"))
            )
            print(f"{row:14}{cells}")
    took.sort()
    print(f"processor milliseconds an answer: median {took[len(took) // 2]:.1f}, p95 {took[int(0.95 * len(took))]:.1f}, longest {took[-1]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
