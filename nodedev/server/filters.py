"""Which devices a request is about."""

from __future__ import annotations

from msgspec import Struct

from nodedev.capabilities import kinds
from nodedev.errors import InvalidError, Violation
from nodedev.model import Device
from nodedev.v1 import device_service_pb2 as pb


class Filter(Struct, frozen=True):
    """A DeviceFilter, checked; what is empty does not restrict."""

    types: frozenset[str]
    names: frozenset[str]
    parent: str | None

    @classmethod
    def of(cls, wanted: pb.DeviceFilter) -> Filter:
        """The request's filter; FILTER_INVALID for a type that no device can have."""
        types = frozenset(wanted.capabilities)
        known = [kind.type for kind in kinds()]
        unknown = types - set(known)
        if unknown:
            violations = tuple(
                Violation(
                    "filter.capabilities", f"no capability is called {type_!r}; there are {', '.join(known)}"
                )
                for type_ in sorted(unknown)
            )
            raise InvalidError(violations[0].message, reason="FILTER_INVALID", violations=violations)
        return cls(types, frozenset(wanted.names), wanted.parent if wanted.HasField("parent") else None)

    def passes(self, device: Device) -> bool:
        """Whether the device is wanted."""
        return (
            (not self.types or any(capability.TYPE in self.types for capability in device.capabilities))
            and (not self.names or device.name in self.names)
            and (self.parent is None or device.parent == self.parent)
        )
