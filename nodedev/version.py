"""Which nodedev this is."""

from __future__ import annotations

from functools import cache


@cache
def own_version() -> str:
    """The installed version; "unknown" in a checkout that was never installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  it loads email and zipfile

    try:
        return version("nodedev")
    except PackageNotFoundError:
        return "unknown"
