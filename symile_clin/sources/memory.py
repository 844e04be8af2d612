"""How much memory an engine may take, as a user writes it."""

from __future__ import annotations

import re
from typing import Final

from symile_clin.errors import ConfigError

LEAST_BYTES: Final = 64 * 1000**2
_BYTES: Final = {"MB": 1000**2, "GB": 1000**3, "TB": 1000**4, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def memory_bytes(text: str) -> int:
    """The bytes of "2GB", "512MB" or "1.5GiB".

    Raises:
        ConfigError: something else, or less than any engine can do with.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s?([MGT]I?B)", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ConfigError(f"'{text}' is no amount of memory", expected="a number and its unit, such as 2GB or 512MB")
    count = int(float(match[1]) * _BYTES[match[2].upper()])
    if count < LEAST_BYTES:
        raise ConfigError(f"{text} of memory is too little", expected=f"{LEAST_BYTES // 1000**2}MB at least")
    return count
