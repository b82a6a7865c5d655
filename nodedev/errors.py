"""The errors nodedev raises, each with a stable reason that clients may match on."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class Violation(Struct, frozen=True):
    """One place in a request that is wrong: a line of XML, or a field of a message."""

    field: str
    message: str
    line: int | None = None


class Obstacle(Struct, frozen=True):
    """One thing about the host that forbids a change: a claim's type, the device it is on, and a sentence."""

    type: str
    device: str
    message: str


class NodedevError(Exception):
    """Any refusal; `status` is the gRPC code's name, `reason` the stable UPPER_SNAKE word."""

    status: ClassVar[str] = "INTERNAL"
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: tuple[Violation, ...] = (),
        obstacles: tuple[Obstacle, ...] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.violations = violations
        self.obstacles = obstacles
        self.metadata = metadata


class NotFoundError(NodedevError):
    """What was named does not exist."""

    status = "NOT_FOUND"
    reason = "DEVICE_NOT_FOUND"


class InvalidError(NodedevError):
    """The request itself is wrong, whatever the host's state."""

    status = "INVALID_ARGUMENT"
    reason = "ARGUMENT_INVALID"


class XmlError(InvalidError):
    """XML that cannot be read or does not fit the grammar; `violations` hold the lines."""

    reason = "XML_INVALID"


class RecordingError(InvalidError):
    """A recording that is damaged, truncated or none at all."""

    reason = "RECORDING_INVALID"


class PreconditionError(NodedevError):
    """The host's present state forbids it."""

    status = "FAILED_PRECONDITION"
    reason = "DEVICE_BUSY"


class AbortedError(NodedevError):
    """Something moved under the request; try again from the start."""

    status = "ABORTED"
    reason = "PAGE_TOKEN_EXPIRED"


class AlreadyExistsError(NodedevError):
    """Something else stands under that name, or on that identity."""

    status = "ALREADY_EXISTS"
    reason = "DEVICE_EXISTS"


class OutOfRangeError(NodedevError):
    """A revision that the change log does not hold."""

    status = "OUT_OF_RANGE"
    reason = "REVISION_COMPACTED"


class PermissionDeniedError(NodedevError):
    """This connection or process may not."""

    status = "PERMISSION_DENIED"
    reason = "READ_ONLY_CONNECTION"


class UnimplementedError(NodedevError):
    """Well formed, and nothing that nodedev does."""

    status = "UNIMPLEMENTED"
    reason = "CAPABILITY_NOT_CREATABLE"


class UnavailableError(NodedevError):
    """Not now: starting, stopping, or the service is not there.

    `RETRY_SECONDS` is after how long a service that is starting asks to be called again.
    """

    RETRY_SECONDS = 1

    status = "UNAVAILABLE"
    reason = "STARTING"


class DeadlineError(NodedevError):
    """No answer in time."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class ExhaustedError(NodedevError):
    """A limit of the service is reached."""

    status = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_WATCHERS"


class FactError(Exception):
    """A source of facts that could not be read; becomes a note, never a failed listing."""

    def __init__(self, source: str, message: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source
        self.message = message
