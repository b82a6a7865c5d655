"""Bytes of the kernel and of daemons as text that any XML document or protobuf string can hold."""

from __future__ import annotations

import re


def printable(raw: bytes | str, keep: str = "") -> str:
    r"""UTF-8 as text; what is no UTF-8 or cannot be printed becomes `\xNN` a byte, as libdm mangles it.

    The characters of `keep` stay though they are not printable. Text is taken as os.fsdecode makes it.
    """
    if isinstance(raw, str):
        raw = bytes_of(raw)
    suspect = f"[^ -~{re.escape(keep)}]"
    return re.sub(suspect, _escaped, raw.decode("utf-8", errors="backslashreplace"))


def bytes_of(text: str) -> bytes:
    """The bytes of text as os.fsdecode makes it, of any other text too."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a pair, as JSON's escapes can spell it.
        return text.encode("utf-8", "surrogatepass")


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
