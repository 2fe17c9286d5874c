"""The access token for gated and private repositories: from the environment, or this PC's keyring.

It is read where a request is made and is never a parameter, a log line, part of a manifest or of an error.
"""

from __future__ import annotations

import logging
import os
from typing import Literal

from chatbot.errors import SettingsError
from chatbot.i18n import N_
from chatbot.models.outside import Endpoint

log = logging.getLogger(__name__)

SERVICE = "hearth"
VARIABLE = "HF_TOKEN"


def token(endpoint: Endpoint) -> str | None:
    """The token for that hub; None where there is none. One that was remembered goes to its own host only."""
    if given := os.environ.get(VARIABLE, "").strip():
        return given
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(SERVICE, endpoint.host) or None
    except (KeyringError, OSError) as error:  # no keyring on this PC, or it is locked
        log.info("no keyring: %s", type(error).__name__)
        return None


def source(endpoint: Endpoint) -> Literal["environment", "keyring", "none"]:
    """Where the token comes from, for people to see."""
    if os.environ.get(VARIABLE, "").strip():
        return "environment"
    return "keyring" if token(endpoint) else "none"


def remember(endpoint: Endpoint, text: str) -> None:
    """Keep a token in this PC's keyring. Raises SettingsError where it has none, or for an odd token."""
    import keyring
    from keyring.errors import KeyringError

    text = text.strip()
    if not 8 <= len(text) <= 512 or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(N_("this does not look like an access token; copy it once more."))
    try:
        keyring.set_password(SERVICE, endpoint.host, text)
    except (KeyringError, OSError) as error:
        raise SettingsError(
            N_("this PC has no keyring to keep a token in; set the variable HF_TOKEN instead.")
        ) from error


def forget(endpoint: Endpoint) -> None:
    """Take the token out of the keyring, where there is one."""
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.delete_password(SERVICE, endpoint.host)
    except (KeyringError, OSError) as error:
        log.info("nothing to forget: %s", type(error).__name__)
