"""Reads what a list names (see floor.c) in plain Python, uevent files and udev's database into dicts.

Imports nothing of nodedev: it is what reading alone costs in this language.
"""

# What is measured is reading, not pathlib.
# ruff: noqa: PTH112, PTH115, PTH123, PTH208
from __future__ import annotations

import os
import sys


def main() -> None:
    """Reads everything, keeps it, and prints how much there was."""
    kept: list[object] = []
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            kind, path = line[0], line[2:-1]
            if kind == "d":
                kept.append(os.listdir(path) if os.path.isdir(path) else ())
                continue
            try:
                if kind == "l":
                    kept.append(os.readlink(path))
                    continue
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                text = os.read(descriptor, 65536).decode("utf-8", "surrogateescape")
            except OSError:
                continue
            finally:
                os.close(descriptor)
            if path.endswith("/uevent") or path.startswith("/run/udev/"):
                pairs = (part.partition("=") for part in text.split("\n"))
                kept.append({name: value for name, equals, value in pairs if equals})
            else:
                kept.append(text.strip())
    sys.stdout.write(f"{len(kept)}\n")


if __name__ == "__main__":
    main()
