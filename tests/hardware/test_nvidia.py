"""NVIDIA cards as the driver tells them: lost, found again, asleep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from chatbot.hardware import nvidia
from chatbot.hardware.nvidia import nvidia_gpus
from tests.fakes import GIB, PCS, Card, fake_pynvml, pc


@pytest.fixture
def put_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Card]], ModuleType]:
    """Put these cards into the PC; a lost one is looked for at once."""
    monkeypatch.setattr(nvidia, "REOPEN_SECONDS", 0.0)

    def install(cards: list[Card]) -> ModuleType:
        library = fake_pynvml(cards)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return library

    return install


@pytest.mark.parametrize("name", PCS)
def test_each_pc_tells_its_cards(name, put_in):
    cards = pc(name)
    put_in(cards)
    found = nvidia_gpus()
    assert [(gpu.name, gpu.total, gpu.free) for gpu in found] == [
        (card.name, card.total, card.free) for card in cards
    ]
    assert len({gpu.key for gpu in found}) == len(cards)
    assert all(gpu.used_by_hearth == 0 for gpu in found), "nothing here is ours"


def test_it_is_opened_once_however_often_it_is_asked(put_in):
    library = put_in(pc("two"))
    for _ in range(5):
        assert len(nvidia_gpus()) == 2
    assert library.driver.opened == 1


def test_a_lost_card_drops_out_the_others_stay_and_it_comes_back(put_in):
    cards = pc("two")
    put_in(cards)
    first, second = nvidia_gpus()
    cards[0].vanished = True
    assert nvidia_gpus() == (second,), "the same card by the same key"
    cards[0].vanished = False
    assert nvidia_gpus() == (first, second)


def test_a_driver_that_is_unloaded_and_loaded_again_is_found(put_in):
    library = put_in(pc("laptop"))
    assert nvidia_gpus()
    library.driver.unload()
    assert nvidia_gpus() == ()
    assert nvidia_gpus() == ()
    library.driver.load()
    assert nvidia_gpus(), "opened anew: what was opened before never answers again"


def test_a_lost_card_is_looked_for_seldom(put_in, monkeypatch):
    monkeypatch.setattr(nvidia, "REOPEN_SECONDS", 3600.0)
    cards = pc("laptop")
    library = put_in(cards)
    assert nvidia_gpus()
    cards[0].vanished = True
    for _ in range(20):
        assert nvidia_gpus() == ()
    assert library.driver.opened == 1


def test_what_a_card_does_not_tell_is_unknown_and_no_reason_to_open_it_anew(put_in):
    refuses = tuple(
        f"nvmlDeviceGet{name}"
        for name in (
            "UtilizationRates", "Temperature", "PowerUsage", "EnforcedPowerLimit", "ClockInfo", "PciInfo",
            "CurrPcieLinkWidth", "ComputeRunningProcesses", "CudaComputeCapability",
        )
    )  # fmt: skip
    library = put_in([Card(refuses=refuses)])
    for _ in range(3):
        (gpu,) = nvidia_gpus()
    assert (gpu.load, gpu.temperature, gpu.power, gpu.power_limit, gpu.clock) == (None,) * 5
    assert (gpu.pcie, gpu.used_by_hearth, gpu.bus) == (None, None, "")
    assert gpu.total == 8 * GIB
    assert library.driver.opened == 1


def test_a_laptops_card_is_left_to_sleep(put_in, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path)
    power = tmp_path / "0000:01:00.0" / "power"
    power.mkdir(parents=True)
    (power / "control").write_text("auto\n")
    (power / "runtime_status").write_text("active\n")
    card = Card(load=0)
    library = put_in([card])
    (awake,) = nvidia_gpus(gently=True)
    asked = library.driver.asked
    assert nvidia_gpus(gently=True) == (awake,)
    assert library.driver.asked == asked + 1, "idle: only the number of cards was asked"
    card.load = 50
    assert nvidia_gpus()[0].load == 50, "who needs it now, as for a plan, is told"
    (power / "runtime_status").write_text("suspended\n")
    asked = library.driver.asked
    (asleep,) = nvidia_gpus()
    assert library.driver.asked == asked + 1
    assert asleep.asleep
    assert (asleep.total, asleep.free, asleep.load, asleep.temperature) == (
        8 * GIB, 7 * GIB, None, None,
    )  # fmt: skip
    (power / "runtime_status").write_text("active\n")
    assert nvidia_gpus(gently=True)[0].load == 50, "awake and at work"


def test_a_card_of_a_desktop_is_asked_each_time(put_in, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path)
    card = Card(load=0)
    put_in([card])
    nvidia_gpus(gently=True)
    card.free = GIB
    assert nvidia_gpus(gently=True)[0].free == GIB
