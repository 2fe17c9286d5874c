"""`python -m chatbot hardware`: what this PC has and does now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chatbot.cli.terminal import Json, language, show
from chatbot.i18n import GB
from chatbot.settings import Paths
from chatbot.types import Gpu

_LOOK_SECONDS = 0.2
"""How long the cores are watched to say how busy each is."""


def hardware(as_json: Json = False) -> None:
    """What this PC has, what of it is free, and which backend follows."""
    import psutil

    from chatbot.hardware.detect import detect, fingerprint
    from chatbot.memory.calibration import learnt, recorded, to_dict
    from chatbot.memory.recommend import recommend, recommend_text, writing_speeds
    from chatbot.memory.speed import kept_in

    paths = Paths.default()
    found = detect(paths.data)
    machine = fingerprint(found)
    loads = recorded(paths.database, machine)
    speeds = kept_in(paths.database, machine)
    result = {
        "device": found.device,
        "gpus": [_described(gpu) for gpu in found.gpus],
        "unified_memory": found.unified_memory,
        "ram": {"total": found.ram_total, "available": found.ram_available},
        "swap": {"total": found.swap_total, "used": found.swap_used},
        "cpu": {
            "name": found.cpu_name,
            "cores": found.cores,
            "physical": found.cores_physical,
            "flags": list(found.cpu_flags),
            "load": found.cpu_load,
            "loads": psutil.cpu_percent(_LOOK_SECONDS, percpu=True),
        },
        "disk": {"total": found.disk_total, "free": found.disk_free},
        "system": found.system,
        "plan": asdict(best) if (best := recommend(found)) else None,
        "speeds": asdict(speeds) if speeds else None,
        "tokens_per_second": [
            {"billions": billions, "about": about}
            for billions, about in (writing_speeds(found, speeds) if speeds else ())
        ],
        "loads": [to_dict(load) for load in loads],
        "corrections": [{**asdict(taught), "applied": taught.applied} for taught in learnt(loads)],
        "reason": recommend_text(found, "en" if as_json else language()),
    }
    show(result, as_json, _text)


def _described(gpu: Gpu) -> dict[str, Any]:
    """The card, and the names of the programs on it."""
    from chatbot.hardware.process import name_of

    programs = [{**asdict(program), "name": name_of(program.pid)} for program in gpu.programs]
    return {**asdict(gpu), "programs": programs}


def _text(found: dict[str, Any]) -> str:
    """A line for each thing; field-standard words and units, then the recommendation as a sentence."""
    cpu, ram, disk = found["cpu"], found["ram"], found["disk"]
    cores = " ".join(f"{load:.0f}" for load in cpu["loads"])
    lines = [
        f"CPU   {cpu['name']} · {cpu['physical']}/{cpu['cores']} · {cores} %",
        f"      {' '.join(cpu['flags'])}",
        f"RAM   {_used(ram['total'], ram['available'])}",
    ]
    if found["swap"]["total"]:
        lines.append(f"Swap  {_of(found['swap']['used'], found['swap']['total'])}")
    for gpu in found["gpus"]:
        figures = [
            f"{gpu[name]:.0f} {unit}"
            for name, unit in (
                ("load", "%"),
                ("temperature", "°C"),
                ("power", "W"),
                ("clock", "MHz"),
            )
            if gpu[name] is not None
        ]
        if gpu["pcie"]:
            figures.append(f"PCIe {gpu['pcie'][0]}.0 ×{gpu['pcie'][1]}")
        lines.append(f"GPU {gpu['index']} {gpu['name']} · {_used(gpu['total'], gpu['free'])}")
        lines.append(f"      {' · '.join(figures)}")
        lines += [
            f"      {program['name']} ({program['pid']}) {program['memory'] / GB:.1f} GB"
            for program in gpu["programs"]
            if program["memory"]
        ]
        if gpu["driver"]:
            lines.append(f"      {gpu['driver']}{' · CUDA ' + gpu['cuda'] if gpu['cuda'] else ''}")
    lines.append(f"Disk  {_used(disk['total'], disk['free'], 10**9)}")
    if found["tokens_per_second"]:
        about = (f"{row['billions']:g}B ≈ {row['about']:.1f}" for row in found["tokens_per_second"])
        lines.append(f"      {' · '.join(about)} tokens/s")
    return "\n".join([*lines, found["reason"]])


def _used(total: int, free: int, unit: int = GB) -> str:
    return _of(total - free, total, unit)


def _of(used: int, total: int, unit: int = GB) -> str:
    return f"{used / unit:.1f} / {total / unit:.1f} GB"
