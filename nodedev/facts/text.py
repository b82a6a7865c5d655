"""Bytes of the kernel and of daemons as text that any XML document or protobuf string can hold."""

from __future__ import annotations

import re


def printable(raw: bytes, keep: str = "") -> str:
    r"""UTF-8 as text; what is no UTF-8 or cannot be printed becomes `\xNN` a byte, as libdm mangles it.

    The characters of `keep` stay though they are not printable.
    """
    suspect = f"[^ -~{re.escape(keep)}]"
    return re.sub(suspect, _escaped, raw.decode("utf-8", errors="backslashreplace"))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
