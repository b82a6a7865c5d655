"""One technology, one module; each declares its KIND, and is found by standing in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from nodedev.model import CapabilityKind


@cache
def kinds() -> tuple[CapabilityKind, ...]:
    """Every registered capability, in the order in which a device lists them."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    registered = (kind for module in modules if (kind := getattr(module, "KIND", None)))
    return tuple(sorted(registered, key=lambda kind: (kind.order, kind.type)))


@cache
def kinds_of(subsystem: str) -> tuple[CapabilityKind, ...]:
    """Those that can say something of a subsystem's devices: each declares attributes for its own."""
    return tuple(kind for kind in kinds() if subsystem in kind.attributes)


@cache
def attributes() -> Mapping[str, tuple[str, ...]]:
    """The sysfs files that the registered capabilities read, by subsystem."""
    wanted: dict[str, tuple[str, ...]] = {}
    for kind in kinds():
        for subsystem, names in kind.attributes.items():
            wanted[subsystem] = tuple(dict.fromkeys((*wanted.get(subsystem, ()), *names)))
    return wanted
