from __future__ import annotations

from dataclasses import replace

from chatbot.hardware.curves import curve, of_card
from chatbot.hardware.monitor import Monitor, Sample
from chatbot.types import Gpu

NOW = 1_800_000_000.0


def samples(*moments: float, cpu: float = 50.0) -> list[Sample]:
    first = Monitor().latest()
    return [replace(first, at=NOW - ago, cpu=cpu, gpus=()) for ago in moments]


def test_nothing_gives_nothing() -> None:
    assert curve([], lambda s: s.cpu, 300) == []


def test_a_curve_ends_at_the_newest_sample_and_has_no_more_points_than_asked() -> None:
    taken = samples(*(float(ago) for ago in range(400, -1, -1)))
    (piece,) = curve(taken, lambda s: s.cpu, 300, points=60)
    assert piece[-1] == (0.0, 50.0)
    assert piece[0][0] <= 300
    assert 59 <= len(piece) <= 61
    assert [ago for ago, _ in piece] == sorted((ago for ago, _ in piece), reverse=True)


def test_a_point_is_the_mean_of_its_stretch() -> None:
    taken = [
        replace(sample, cpu=float(number % 2) * 100)
        for number, sample in enumerate(samples(*range(299, -1, -1)))
    ]
    (piece,) = curve(taken, lambda s: s.cpu, 300, points=30)
    assert all(abs(value - 50) < 11 for _, value in piece[1:-1])


def test_it_breaks_where_the_pc_slept_and_not_at_a_late_second() -> None:
    slept = samples(200, 199, 198, 100, 99, 95, 90, 0)
    pieces = curve(slept, lambda s: s.cpu, 300)
    assert [piece[-1][0] for piece in pieces] == [198, 90, 0]
    assert pieces[1][0][0] >= 99


def test_it_breaks_where_the_card_was_away() -> None:
    card = Gpu(0, "card", "cuda", 8, 4, load=20.0, bus="0000:01:00.0")
    taken = samples(8, 6, 4, 2, 0)
    with_card = [
        replace(s, gpus=() if number == 2 else (replace(card, index=number % 2),))
        for number, s in enumerate(taken)
    ]
    pieces = curve(with_card, of_card(card.key, lambda g: g.load), 300)
    assert [[value for _, value in piece] for piece in pieces] == [[20.0, 20.0], [20.0, 20.0]]
