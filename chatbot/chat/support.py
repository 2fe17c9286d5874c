"""What an answer may claim: sentences that are backed by what they cite.

`check` holds every sentence against the passages it cites, without a model: what can be looked up
(numbers, dates, references, names, quotations) must be there, the small words that turn a sentence
round must agree, and enough of the words must be found in a few neighbouring sentences.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chatbot.chat import facts
from chatbot.chat.citations import MARKER, cited_numbers
from chatbot.chat.evidence import STOP, Passage, Sentence
from chatbot.chat.facts import Number
from chatbot.chat.polarity import OPPOSITE, Cue
from chatbot.i18n import N_, translate
from chatbot.text import fold, has_marks, language_of, nfc, sentences
from chatbot.types import Language, SentenceSupport, Source

NUMBER = N_("The number {number} is not in the cited passage.")
OTHER_NUMBER = N_("The cited passage has {found} here, not {number}.")
DATE = N_("The date {date} is not in the cited passage.")
REFERENCE = N_("The cited passage does not belong to {reference} and does not name it here.")
NAME = N_("The name {name} is not in the cited passage.")
QUOTE = N_("These words do not stand in the cited passage: “{quote}”.")
ADDED = N_("The answer says “{word}” here, the cited passage does not.")
MISSING = N_("The cited passage says “{word}” here, the answer does not.")
TURNED = N_("The answer says “{word}” where the cited passage says “{found}”.")
ELSEWHERE = N_("This stands in passage [{passage}], not in the cited one.")
UNBACKED = N_("Too little of this sentence is found in the cited passage.")

FLOOR = 0.35
"""At least this share of a sentence's weighted terms must be found."""
BETTER_BY = 0.25
"""Another passage that has so much more of the sentence shows that the citation is wrong."""
WELL_FOUND = 0.75
"""A sentence of which so much is found is not looked for elsewhere."""
_PAIR_WEIGHT = 0.5
"""What a pair of neighbours weighs beside a single word."""
_GAIN = 0.07
"""A further sentence of the passage counts when it holds this share of the answer's sentence."""
_MOST_SENTENCES = 4
_TIE = 0.02
"""What an equal figure or limiting word is worth between sentences of the same words."""
_FARTHER = 0.12
"""By how much a sentence must be closer for its figure to be the one that was meant."""

_LIMITS = ("not", "only", "except")
_BOUNDS = (*_LIMITS, "most", "least")

Problem = tuple[str, dict[str, str]]

_NO_CLAIM = re.compile(
    r"khong (?:tim thay|thay|co thong tin|neu|de cap|noi|quy dinh ro|duoc (?:neu|de cap))|khong du (?:thong tin|can cu)"
    r"|chua (?:tim thay|de cap|neu)|hieu biet chung|kien thuc chung|xin loi|xin chao|chao ban|cam on|hy vong|neu ban can"
    r"|(?:documents?|passages?|sources?|text|context|excerpts?) (?:do|does) (?:not|n.t)|(?:do|does)n.t (?:mention|say|tell|specify|state)"
    r"|found nothing|not (?:found|mentioned|stated|specified|provided|in (?:the|your) (?:documents?|passages?))|no (?:information|mention)"
    r"|general knowledge|^(?:hello|hi|dear|sorry|thank|i hope|let me know|i am sorry|i.m sorry|sure|certainly)\b"
)
_ABOUT_SOURCES = re.compile(
    r"tai lieu|doan|nguon|van ban|thong tin|document|passage|source|text|context|excerpt|information|mention"
)
_LIST_MARKER = re.compile(r"[ \t>]*(?:(?:[-*+•–]|\d{1,3}[.)]|[a-zđ]\))[ \t]+)?")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TABLE_RULE = re.compile(r"^[\s|:-]+$")
_DRESSING = re.compile(r"[*_`~#]")
_LEAD_IN_WORDS = 14


@dataclass(frozen=True, slots=True)
class _Claim:
    start: int
    end: int
    sentence: Sentence
    cited: tuple[int, ...]
    before: tuple[int, ...]
    """What the paragraph cited last before this sentence."""
    lead_in: bool


def check(answer: str, sources: Sequence[Source]) -> tuple[SentenceSupport, ...]:
    """Every sentence of the answer that claims something, and whether its passages back it.

    A sentence is held to what it cites. Without a citation it may rest on what its paragraph cited last
    or on any one passage. Questions, greetings, headings, lead-ins and "not found" claim nothing. When
    answer and passage are in different languages only figures, dates and references are compared.
    """
    if not sources:
        return ()
    passages = {source.number: Passage(source) for source in sources}
    weigh = _weights(list(passages.values()))
    return tuple(_judged(claim, passages, weigh) for claim in _claims(answer))


def support_text(verdict: SentenceSupport, language: Language) -> str:
    """Why the sentence is not supported, in the language; empty when it is."""
    return translate(verdict.reason, language).format(**verdict.values) if verdict.reason else ""


def _judged(
    claim: _Claim, passages: dict[int, Passage], weigh: Callable[[str], float]
) -> SentenceSupport:
    cited = tuple(n for n in claim.cited if n in passages)
    if cited:
        problem, share = _problem(claim, [passages[n] for n in cited], weigh)
        if problem or share < WELL_FOUND:
            elsewhere = _better_passage(claim, passages, cited, weigh, share)
            if elsewhere is not None:
                problem = (ELSEWHERE, {"passage": str(elsewhere)})
    else:
        before = tuple(n for n in claim.before if n in passages)
        groups = [[passages[n] for n in before]] if before else []
        groups += sorted(
            ([p] for p in passages.values()), key=lambda g: -_cover(claim.sentence, g, weigh)[1]
        )[:4]
        verdicts = [_problem(claim, group, weigh) for group in groups]
        problem = None
        if all(verdict[0] for verdict in verdicts):
            problem = max(verdicts, key=lambda verdict: verdict[1])[0]
        cited = before
    if problem is None:
        return SentenceSupport(claim.start, claim.end, supported=True, cited=cited)
    reason, values = problem
    return SentenceSupport(claim.start, claim.end, False, reason, values, cited)  # noqa: FBT003


def _better_passage(
    claim: _Claim,
    passages: dict[int, Passage],
    cited: Collection[int],
    weigh: Callable[[str], float],
    share: float,
) -> int | None:
    """The passage that backs the claim so much better that it must be the one meant."""
    best: tuple[float, int] | None = None
    for number, passage in passages.items():
        if number not in cited and passage.language == claim.sentence.language:
            problem, other = _problem(claim, [passage], weigh)
            if not problem and other >= share + BETTER_BY and (best is None or other > best[0]):
                best = (other, number)
    return best[1] if best else None


def _problem(
    claim: _Claim, passages: Sequence[Passage], weigh: Callable[[str], float]
) -> tuple[Problem | None, float]:
    """The first thing these passages do not back, and the share of the sentence found in them."""
    same = [p for p in passages if p.language == claim.sentence.language]
    nearest, share = _cover(claim.sentence, passages, weigh)
    found = _quote_problem(claim, passages) or _reference_problem(claim, nearest, passages)
    found = found or _date_problem(claim, passages)
    if not claim.lead_in:
        found = found or _number_problem(claim, nearest if same else [], passages, weigh)
        if same:
            found = found or _name_problem(claim, passages)
            if not facts.quotations(claim.sentence.text):
                found = found or _turned(claim.sentence, nearest)
                if share < FLOOR and len(claim.sentence.content) >= 3:
                    found = found or (UNBACKED, {})
    return found, share if same else WELL_FOUND


# --- sentences of the answer ----------------------------------------------------------------


def _claims(answer: str) -> Iterator[_Claim]:
    """The sentences that claim something, with the numbers they cite."""
    text = _FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), answer)
    spoken = _DRESSING.sub(" ", MARKER.sub(lambda m: " " * len(m.group()), text))
    language = language_of(spoken)
    offset = 0
    before: tuple[int, ...] = ()
    lines = text.split("\n")
    for place, line in enumerate(lines):
        following = lines[place + 1] if place + 1 < len(lines) else ""
        if not line.strip():
            before = ()
        elif not _is_heading(line, following):
            for start, end, after in _spans(spoken, offset, offset + len(line)):
                cited = tuple(cited_numbers(text[start:after]))
                sentence = Sentence(nfc(spoken[start:end]), _language(spoken[start:end], language))
                last = (
                    end >= offset + len(line.rstrip())
                    or not spoken[end : offset + len(line)].strip()
                )
                lead_in = sentence.text.endswith(":") and last
                if _claims_something(sentence, lead_in=lead_in):
                    short = lead_in and len(sentence.words) <= _LEAD_IN_WORDS
                    yield _Claim(start, end, sentence, cited, before, short)
                before = cited or before
        offset += len(line) + 1


def _language(sentence: str, answer: Language) -> Language:
    return "vi" if has_marks(sentence) else answer


def _is_heading(line: str, following: str) -> bool:
    stripped = line.strip()
    if stripped.startswith("#") or _TABLE_RULE.match(stripped):
        return True
    if stripped.startswith("|"):
        return bool(_TABLE_RULE.match(following.strip())) and "-" in following
    bold = stripped.startswith("**") and stripped.rstrip(":").endswith("**")
    return bold and stripped.count("**") == 2 and len(stripped) < 90


def _spans(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, start of the next) of the line's sentences; quotations are not cut."""
    line = text[start:end]
    inset = _LIST_MARKER.match(line)
    skip = inset.end() if inset else 0
    quoted = facts.quotations(line)
    spans: list[list[int]] = []
    for first, last in sentences(line[skip:]):
        first, last = first + skip, last + skip
        if spans and any(s < first < e for s, e, _ in quoted):
            spans[-1][1] = last
        else:
            spans.append([first, last])
    for place, (first, last) in enumerate(spans):
        after = spans[place + 1][0] if place + 1 < len(spans) else len(line)
        yield start + first, start + last, start + after


def _claims_something(sentence: Sentence, *, lead_in: bool) -> bool:
    text = sentence.text
    if text.endswith("?") or len(sentence.words) < 2:
        return False
    if lead_in:
        return bool(sentence.references or facts.quotations(text))
    folded = fold(text)
    if (
        _NO_CLAIM.search(folded)
        and (len(sentence.words) <= 30)
        and (_ABOUT_SOURCES.search(folded) or not sentence.numbers)
    ):
        return False
    return len(sentence.content) >= 2 or bool(sentence.numbers or sentence.dates)


# --- the sentences of a passage that are meant ------------------------------------------------


def _weights(passages: Sequence[Passage]) -> Callable[[str], float]:
    """How much a term tells: rare ones more, pairs half of what a word would."""
    every = [s.terms for p in passages for s in p.sentences]
    seen = Counter(term for terms in every for term in terms)
    known = {
        term: math.log(1 + len(every) / count) * (_PAIR_WEIGHT if " " in term else 1)
        for term, count in seen.items()
    }
    usual = math.log(1 + len(every) / 2)
    return lambda term: known.get(term, usual * (_PAIR_WEIGHT if " " in term else 1))


def _cover(
    sentence: Sentence, passages: Sequence[Passage], weigh: Callable[[str], float]
) -> tuple[list[Sentence], float]:
    """The few sentences that together hold most of this one, and the weighted share they hold."""
    worth = {term: weigh(term) for term in sentence.terms}
    total = sum(worth.values())
    if not total:
        return [s for p in passages for s in p.sentences][:_MOST_SENTENCES], 1.0
    for p in passages:
        for term in worth.keys() & p.heading.terms:
            worth[term] *= 0.5  # the heading says where we are, not what is said
    total = sum(worth.values())
    left = set(worth)
    chosen: list[Sentence] = []
    held = 0.0
    pool = [s for p in passages for s in p.sentences]
    marks = sentence.marks | {f"{v:g}" for n in sentence.numbers for v in n.values}
    ties = [_TIE * total * len(marks & s.marks) for s in pool]
    while len(chosen) < _MOST_SENTENCES and pool:
        gains = [sum(worth[t] for t in left & s.terms) for s in pool]
        best = max(range(len(pool)), key=lambda i: gains[i] + ties[i])
        if gains[best] < (_GAIN if chosen else 0.001) * total:
            break
        chosen.append(pool[best])
        held += gains[best]
        left -= pool[best].terms
    for p in passages:
        held += sum(worth[t] for t in left & p.heading.terms)
        left -= p.heading.terms
    return chosen, held / total


# --- what can be looked up --------------------------------------------------------------------


def _quote_problem(claim: _Claim, passages: Sequence[Passage]) -> Problem | None:
    for _start, _end, quote in facts.quotations(claim.sentence.text):
        for piece in facts.pieces(quote):
            words = facts.tokens(piece)
            if has_marks(piece):
                wanted = " " + " ".join(w.word for w in words) + " "
                there = any(wanted in p.spoken for p in passages)
            else:
                wanted = " " + " ".join(w.folded for w in words) + " "
                there = any(wanted in p.folded for p in passages)
            if words and not there:
                return QUOTE, {"quote": " ".join(quote.split())}
    return None


def _reference_problem(
    claim: _Claim, nearest: Sequence[Sentence], passages: Sequence[Passage]
) -> Problem | None:
    for reference in claim.sentence.references:
        named = (reference.kind, reference.number)
        here = {(r.kind, r.number) for s in nearest for r in s.references}
        places = [s.place[reference.kind] for s in nearest if reference.kind in s.place]
        if named in here or any(reference.number in place for place in places):
            continue
        everywhere = {(r.kind, r.number) for p in passages for s in [p.heading, *p.sentences] for r in s.references}  # fmt: skip
        everywhere |= {
            (kind, n)
            for p in passages
            for s in p.sentences
            for kind, ns in s.place.items()
            for n in ns
        }
        if named not in everywhere or places:
            return REFERENCE, {"reference": reference.text}
    return None


def _date_problem(claim: _Claim, passages: Sequence[Passage]) -> Problem | None:
    known = [d for p in passages for d in p.dates]
    for date in claim.sentence.dates:
        if not any(date.within(other) for other in known):
            return DATE, {"date": date.text}
    return None


def _name_problem(claim: _Claim, passages: Sequence[Passage]) -> Problem | None:
    text = claim.sentence.text
    quoted = [(s, e) for s, e, _ in facts.quotations(text)]
    everything = " ".join(p.folded for p in passages)
    for start, end, code in facts.document_numbers(text):
        wanted = " ".join(t.folded for t in facts.tokens(code))
        if not _within(start, end, quoted) and f" {wanted} " not in everything:
            return NAME, {"name": code}
    labels = [(r.start, r.end) for r in claim.sentence.references]
    labels += [(d.start, d.end) for d in claim.sentence.dates]
    for run in facts.names(text, claim.sentence.words):
        kept = [t for t in run if not _within(t.start, t.end, [*quoted, *labels])]
        if kept and kept[0].start == claim.sentence.words[0].start:
            kept = kept[1:]  # capital because it comes first
        if kept and not _known_name([t.folded for t in kept], everything, passages):
            return NAME, {"name": text[kept[0].start : kept[-1].end]}
    return None


def _known_name(name: Sequence[str], everything: str, passages: Sequence[Passage]) -> bool:
    pairs = [f" {a} {b} " in everything for a, b in pairwise(name)]
    words = [f" {word} " in everything or f" {word}s " in everything for word in name]
    if all(words) and sum(pairs) * 2 >= len(pairs):
        return True
    if len(name) == 1 and len(name[0]) >= 3 and any(name[0] in p.initials for p in passages):
        return True
    initials = "".join(word[0] for word in name)
    return len(name) >= 3 and f" {initials} " in everything


def _within(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(s <= start and end <= e for s, e in spans)


def _number_problem(
    claim: _Claim,
    nearest: Sequence[Sentence],
    passages: Sequence[Passage],
    weigh: Callable[[str], float],
) -> Problem | None:
    sentence = claim.sentence
    quoted = [(s, e) for s, e, _ in facts.quotations(sentence.text)]
    mine = [n for n in sentence.numbers if n.certain and not _within(n.start, n.end, quoted)]
    known = [n for p in passages for n in p.numbers] + [n for s in nearest for n in s.all_numbers]
    years = {float(d.year) for p in passages for d in p.dates if d.year}
    closeness = {id(s): _closeness(sentence, s, weigh) for s in nearest} if mine else {}
    for number in mine:
        equal = [n for n in known if _equal(number, n, sentence.text)]
        if not equal and not number.values & years:
            return NUMBER, {"number": number.text}
        unit = facts.TIME_UNITS.get(number.unit)
        units = {facts.TIME_UNITS.get(n.unit) for n in equal}
        if unit and equal and unit not in units and None not in units:
            return OTHER_NUMBER, {
                "number": f"{number.text} {number.unit}",
                "found": f"{equal[0].text} {equal[0].unit}",
            }
        if found := _other_number(number, mine, sentence, nearest, closeness):
            return OTHER_NUMBER, {"number": number.text, "found": found}
    return None


def _closeness(sentence: Sentence, near: Sentence, weigh: Callable[[str], float]) -> float:
    """0..1: the share of the sentence's words and limits that this one has."""
    kinds = {c.kind for c in sentence.cues}
    shared = kinds & {c.kind for c in near.cues}
    worth = {t: weigh(t) for t in sentence.terms}
    each = sum(worth.values()) / max(len(worth), 1)
    total = sum(worth.values()) + each * len(kinds)
    held = sum(w for t, w in worth.items() if t in near.terms) + each * len(shared)
    return held / total if total else 0.0


def _other_number(
    number: Number,
    mine: Sequence[Number],
    sentence: Sentence,
    nearest: Sequence[Sentence],
    closeness: dict[int, float],
) -> str:
    """What the passage has in this number's place when the number stands there for something else."""
    context = sentence.around(number.start, number.end)
    same, other, text = (0.0, -1), (0.0, 0), ""
    for candidate, near in ((n, s) for s in nearest for n in s.numbers):
        score = closeness[id(near)], len(context & near.around(candidate.start, candidate.end))
        if _equal(number, candidate, sentence.text):
            same = max(same[0], score[0]), max(same[1], score[1])
            continue
        alike = candidate.certain and _alike(number, candidate)
        claimed = any(_alike(m, candidate) and _equal(m, candidate, sentence.text) for m in mine)
        if alike and not claimed:
            if score[1] >= other[1]:
                text = candidate.text
            other = max(other[0], score[0]), max(other[1], score[1])
    if other[1] >= 2 and other[1] > same[1] + 1:
        return text
    # The closest sentence has another figure for it, and the one with this figure is farther off.
    return text if other[1] and other[0] > same[0] + _FARTHER else ""


def _alike(number: Number, other: Number) -> bool:
    """Whether both may count the same thing; without a word after it a number may be a bare mark or sum."""
    if number.unit and number.unit not in STOP:
        return number.unit == other.unit
    return other.unit != "%" and other.unit not in facts.TIME_UNITS


_ROUGHLY = re.compile(r"(?:khoảng|gần|hơn|xấp xỉ|about|around|approximately|roughly|nearly|almost|over)\s+\W?$", re.IGNORECASE)  # fmt: skip
_IN_SCALE = re.compile(r"triệu|tỷ|tỉ|nghìn|ngàn|million|billion|thousand|trillion", re.IGNORECASE)


def _equal(mine: Number, other: Number, text: str) -> bool:
    """The same value, or what a table 'in millions' or a rounded '81.8 billion' says of it."""
    if mine.values & other.values:
        # 'a', 'each' and 'năm' (year) are numbers only when the same thing is counted.
        return other.certain or not mine.text[0].isdigit() or mine.unit == other.unit
    if mine.unit == "%" and any(abs(v - 100 * o) < 1e-6 for v in mine.values for o in other.values):
        return True
    roughly = _ROUGHLY.search(text[max(0, mine.start - 16) : mine.start])
    roughly = roughly if len(re.sub(r"\D|0+\D*$", "", mine.text)) <= 2 else None
    if not roughly and not _IN_SCALE.search(mine.text):
        return False
    digits = re.match(r"\d+(?:[.,](\d+))?", mine.text)
    value = next(iter(mine.values))
    if not digits or not value:
        return False
    written = float(digits.group().replace(",", "."))
    step = value / written * 10 ** -len(digits.group(1) or "") if written else 0.0
    allowed = max(
        step / 2 if _IN_SCALE.search(mine.text) else 0.0, 0.05 * value if roughly else 0.0
    )
    return any(abs(o * k - value) <= allowed for o in other.values for k in (1, 1e3, 1e6, 1e9) if o)


# --- words that turn a sentence round -----------------------------------------------------------


def _turned(sentence: Sentence, nearest: Sequence[Sentence]) -> Problem | None:
    if sentence.language == "vi" and not has_marks(sentence.text):
        return None
    quoted = [(s, e) for s, e, _ in facts.quotations(sentence.text)]
    mine = [
        c
        for c in sentence.cues
        if not _within(sentence.words[c.start].start, sentence.words[c.end - 1].end, quoted)
    ]
    limits = [(near, c) for near in nearest for c in near.cues if c.kind in _LIMITS]
    free = [c for c in mine if c.kind in _BOUNDS]
    for cue in mine:
        if cue.kind in OPPOSITE:
            if found := _opposite(sentence, cue, nearest):
                return TURNED, {"word": _said(sentence, cue), "found": found}
        elif cue.kind in _LIMITS:
            limit, same_words = _limit_for(sentence, cue, nearest, limits)
            if limit is None:
                return ADDED, {"word": _said(sentence, cue)}
            limits.remove(limit)
            if same_words:
                free.remove(cue)
    for near, cue in limits:
        if near not in nearest[:2] or not _left_out(near, cue, sentence, free):
            continue
        if not any(_left_out(near, cue, other, other.cues) for other in nearest):
            return MISSING, {"word": _said(near, cue)}
    return None


def _said(sentence: Sentence, cue: Cue) -> str:
    words = sentence.words[cue.start : cue.end]
    return sentence.text[words[0].start : words[-1].end]


def _after(sentence: Sentence, cue: Cue, count: int = 3) -> list[str]:
    """The next comparable words, a number as it is written."""
    found = []
    for place in range(cue.end, min(len(sentence.words), cue.end + 8)):
        word = sentence.words[place]
        term = sentence.stems[place] or (word.word if word.word[0].isdigit() else "")
        if term:
            found.append(term)
        if len(found) == count:
            break
    return found


def _before(sentence: Sentence, cue: Cue, count: int = 2) -> list[str]:
    terms = [t for t in sentence.stems[max(0, cue.start - 6) : cue.start] if t]
    return terms[-count:]


def _opposite(sentence: Sentence, cue: Cue, nearest: Sequence[Sentence]) -> str:
    after, before = _after(sentence, cue), _before(sentence, cue)
    same, other, found = 0, 0, ""
    for near in nearest:
        for candidate in near.cues:
            if candidate.kind not in (cue.kind, OPPOSITE[cue.kind]):
                continue
            following = _after(near, candidate)
            score = 2 * len({*after} & {*following}) + len({*before} & {*_before(near, candidate)})
            score += 2 if after[:1] == following[:1] and after else 0
            if candidate.kind == cue.kind:
                same = max(same, score)
            elif score > other:
                other, found = score, _said(near, candidate)
    return found if other >= 4 and other > same else ""


def _limit_for(
    sentence: Sentence,
    cue: Cue,
    nearest: Sequence[Sentence],
    limits: Sequence[tuple[Sentence, Cue]],
) -> tuple[tuple[Sentence, Cue] | None, bool]:
    """The passage's limit that backs this one, and whether it limits the very same words.

    Words that the passage does not have at all (a synonym) may take any limit that is left.
    """
    after, before = _after(sentence, cue), _before(sentence, cue)
    loose = None
    for limit in limits:
        following, ahead = _after(*limit), _before(*limit)
        if {*after[:1]} & {*following[:2]} or {*following[:1]} & {*after[:2]}:
            return limit, True
        if {*after} & {*following} or ({*before} & {*ahead}):
            loose = loose or limit
    if after and any(after[0] in near.stems for near in nearest):
        return (loose if loose and before and before[-1] in _before(*loose) else None), False
    return loose or (limits[0] if limits else None), False


def _left_out(near: Sentence, cue: Cue, sentence: Sentence, guards: Sequence[Cue]) -> bool:
    """Whether the sentence repeats the words that the passage limits, with none of the guards about."""
    after, before = _after(near, cue, 2), _before(near, cue, 2)
    if not after or not before:
        return False
    terms = sentence.stems
    for place in (i for i, t in enumerate(terms) if t == after[0]):
        close = terms[max(0, place - 6) : place + 7]
        if len(after) > 1 and after[1] not in close and before[-1] not in close[:6]:
            continue
        if before[-1] not in close and before[0] not in close:
            continue
        if not any(c.kind in _BOUNDS and -8 <= c.start - place <= 8 for c in guards):
            return True
    return False
