"""The theme can be read: contrast by WCAG 2, light and dark; and Streamlit knows every option we set."""

from __future__ import annotations

import tomllib

import pytest

from chatbot.settings import PROJECT

CONFIG = tomllib.loads((PROJECT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
TEXT = 4.5
PARTS = 3.0  # borders of controls, large shapes


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_can_be_read_on_every_background(mode):
    theme = CONFIG["theme"][mode]
    backgrounds = [
        room[name]
        for room in (theme, theme["sidebar"])
        for name in ("backgroundColor", "secondaryBackgroundColor")
    ]
    for name in ("textColor", "linkColor"):
        for background in backgrounds:
            assert contrast(theme[name], background) >= TEXT, (name, background)
    assert contrast(theme["codeTextColor"], theme["codeBackgroundColor"]) >= TEXT
    assert contrast("#FFFFFF", theme["primaryColor"]) >= TEXT  # Streamlit's buttons
    for background in backgrounds:
        assert contrast(theme["primaryColor"], background) >= PARTS


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_charts_can_be_told_from_their_background(mode):
    theme = CONFIG["theme"][mode]
    for colour in theme["chartCategoricalColors"]:
        assert contrast(colour, theme["backgroundColor"]) >= PARTS, colour


def test_streamlit_knows_every_option():
    """A misspelt option would be ignored, and with it what it should protect."""
    from streamlit import config

    known = set(config.get_config_options())
    assert {name for name in flat(CONFIG) if name not in known} == set()


def flat(table: dict, prefix: str = "") -> list[str]:
    names = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        names += flat(value, f"{name}.") if isinstance(value, dict) else [name]
    return names


def test_hearth_keeps_to_itself():
    server = CONFIG["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert server["enableXsrfProtection"] is True
    assert server["enableCORS"] is True
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["client"]["showErrorLinks"] is False
    assert "http" not in str(CONFIG["theme"])
