"""Which nodedev this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The installed version; "unknown" in a checkout that was never installed."""
    try:
        return version("nodedev")
    except PackageNotFoundError:
        return "unknown"
