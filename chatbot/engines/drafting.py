"""Guessing the next tokens from what was read before, so that one reading of the weights checks many.

An answer that quotes its passages repeats runs of the prompt. `PromptLookup` finds where the last tokens
stood before and guesses that they go on as they did there. `Drafter` decides how many of the guessed
tokens to have checked: as many as bring most tokens per second, by what `Experience` says about how
often such guesses are right and what a longer batch costs in this engine. Every guess is held against the
token that was really written, also while none is drafted: so the rate is known without a price, and
drafting starts and ends by itself.

The engine checks a draft by sampling at each of its positions as it always would, and keeps what it
sampled. The text is the same with drafting and without.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Protocol

LENGTHS = (1, 3, 7, 15)
"""How many tokens a draft may have: with the token before it a batch of 2, 4, 8 or 16, which kernels like."""
LONGEST = LENGTHS[-1]
RUN = 3
"""So many tokens must have stood together before; fewer say little about the next."""
WORTH = 1.05
"""A draft must promise 5 % more speed: below that the guess about the gain is all noise."""
PRIOR_SLOPE = 0.3
"""What one more token in a batch is taken to cost until it was measured: a CPU's 0.2 to 0.7, a GPU's 0.01."""
_REMEMBERED = 32
"""A rate follows about so many of the last guesses."""
_PRIOR_WEIGHT = 4
_FORGOTTEN_AFTER = 200
_PLAIN_FIRST = 3
# From this many agreeing tokens on, and how often the next one is then right before anything is known.
_PRIORS = {RUN: 0.3, 4: 0.4, 6: 0.5, 9: 0.6, 13: 0.7}


class Guesses(Protocol):
    """Somebody who guesses how the answer goes on."""

    @property
    def matched(self) -> int:
        """How many tokens before the guess agree with what it is taken from; 0 without a guess."""
        ...

    def ahead(self, count: int) -> list[int]:
        """The next `count` tokens as guessed, or fewer; none without a guess."""
        ...

    def took(self, token: int) -> bool:
        """This token was written next; returns whether it had been guessed."""
        ...


class PromptLookup:
    """Guesses that the text goes on as it did where its last tokens stood before."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        runs = zip(*(self._tokens[start:] for start in range(RUN)), strict=False)
        # The last run of all is left out: what follows it is the question.
        self._after = dict(zip(runs, range(RUN, len(self._tokens)), strict=False))
        self._at = 0
        self.matched = 0
        self._find()

    def ahead(self, count: int) -> list[int]:
        if not self.matched:
            return []
        found = self._tokens[self._at : self._at + count]
        while len(found) < count:  # the text runs in a circle, and here it is closed
            found += found[: count - len(found)]
        return found

    def took(self, token: int) -> bool:
        tokens = self._tokens
        right = self.matched > 0 and tokens[self._at] == token
        self._after[tuple(tokens[-RUN:])] = len(tokens)
        tokens.append(token)
        if right:
            self._at += 1
            self.matched += 1
        else:
            self._find()
        return right

    def _find(self) -> None:
        tokens, end = self._tokens, len(self._tokens)
        self._at = at = self._after.get(tuple(tokens[-RUN:]), 0)
        self.matched = RUN if at else 0
        if at:
            # How long the agreement is says how far it will carry.
            while self.matched < min(at, _LONG) and (
                tokens[at - self.matched - 1] == tokens[end - self.matched - 1]
            ):
                self.matched += 1


class Experience:
    """What drafting has cost and brought in one engine; lives as long as the engine does."""

    def __init__(self) -> None:
        self._rates = list(_PRIORS.values())
        self._seen = [_PRIOR_WEIGHT] * len(self._rates)
        self._plain: deque[float] = deque(maxlen=9)
        self._ratios: dict[int, deque[float]] = {}
        self._costs: dict[int, float] = {}
        self._last: dict[int, int] = {}
        self._batches = 0

    def rate(self, matched: int) -> float:
        """How often a guess is right after so many agreeing tokens; 0 to 1."""
        return self._rates[_CLASS[min(matched, _LONG)]]

    def guessed(self, matched: int, *, right: bool) -> None:
        """After so many agreeing tokens a guess was right or wrong."""
        place = _CLASS[min(matched, _LONG)]
        seen = self._seen[place] = min(self._seen[place] + 1, _REMEMBERED)
        self._rates[place] += (right - self._rates[place]) / seen

    def cost(self, size: int) -> float:
        """The time for a batch of `size` tokens, in times for one token."""
        if len(self._plain) < _PLAIN_FIRST:
            return size  # nothing to compare with yet
        if self._known(size):
            return self._costs[size]
        slopes = [(cost - 1) / (other - 1) for other, cost in self._costs.items() if other != size]
        return 1 + max(min([PRIOR_SLOPE, *slopes]), 0) * (size - 1)

    def read(self, size: int, seconds: float) -> None:
        """A batch of `size` tokens took so long, up to its first sampled token."""
        self._batches += 1
        if size == 1:
            self._plain.append(seconds)
        elif self._plain:
            if not self._known(size):  # the machine may have been busy then
                self._ratios[size] = deque(maxlen=5)
            ratios = self._ratios[size]
            ratios.append(seconds / statistics.median(self._plain))
            # One hiccup must not condemn a length.
            hopeful = [1 + PRIOR_SLOPE * (size - 1)] if len(ratios) == 1 else []
            self._costs[size] = min([statistics.median(ratios), *hopeful])
            self._last[size] = self._batches

    def _known(self, size: int) -> bool:
        return size in self._last and self._batches - self._last[size] < _FORGOTTEN_AFTER


class Drafter:
    """Drafts of one answer, as long as they pay; `drafted` and `accepted` count their tokens."""

    def __init__(self, guesses: Guesses, experience: Experience) -> None:
        self.experience = experience
        self._guesses = guesses
        self._open = 0
        self.drafted = 0
        self.accepted = 0

    def propose(self, room: int) -> list[int]:
        """The next tokens worth checking, at most `room`; often none."""
        matched = self._guesses.matched
        if not matched or room < LENGTHS[0]:
            return []
        ahead = self._guesses.ahead(min(room, LONGEST))
        chance = expected = 1.0
        best, gain = 0, WORTH
        for length in range(1, len(ahead) + 1):
            chance *= self.experience.rate(matched + length - 1)
            expected += chance
            if (
                length in LENGTHS
                and (reached := expected / self.experience.cost(length + 1)) > gain
            ):
                best, gain = length, reached
        self._open = best
        self.drafted += best
        return ahead[:best]

    def took(self, token: int) -> None:
        """This token was written next, whether it had been proposed or not."""
        matched = self._guesses.matched
        right = self._guesses.took(token)
        if matched:
            self.experience.guessed(matched, right=right)
        if self._open:
            self._open = self._open - 1 if right else 0
            self.accepted += right


_LONG = max(_PRIORS)
_CLASS = [max(sum(start <= n for start in _PRIORS) - 1, 0) for n in range(_LONG + 1)]
