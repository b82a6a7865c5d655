"""sd_notify(3): tells systemd of a Type=notify service's state."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends "READY=1" or the like where systemd listens, and does nothing elsewhere."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.connect(address)
        datagrams.sendall(state.encode())
