"""multipathd's own view of its maps and paths, over its command socket.

Follows multipath-tools libmpathcmd/mpath_cmd.c (framing) and libmultipath/print.c (JSON).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MultipathdPath:
    """One path as multipathd sees it; the words are its own (chk_st, dev_st, dm_st, marginal_st)."""

    device: str
    device_number: str
    dm_state: str | None
    device_state: str | None
    checker_state: str | None
    checker: str | None
    priority: int | None
    marginal_state: str | None
    host_wwnn: str | None
    target_wwnn: str | None
    host_wwpn: str | None
    target_wwpn: str | None
    host_adapter: str | None


@dataclass(frozen=True, slots=True)
class MultipathdGroup:
    """One path group; `number` counts from 1 as in the kernel's table."""

    number: int
    selector: str | None
    priority: int | None
    dm_state: str | None
    marginal_state: str | None
    paths: tuple[MultipathdPath, ...]


@dataclass(frozen=True, slots=True)
class MultipathdMap:
    """One map; `wwid` is what the JSON calls uuid."""

    wwid: str
    alias: str
    sysfs_name: str | None
    dm_state: str | None
    queueing: str | None
    failback: str | None
    write_protection: str | None
    features: str | None
    hardware_handler: str | None
    action: str | None
    path_faults: int | None
    vendor: str | None
    product: str | None
    revision: str | None
    switch_group_count: int | None
    map_loads: int | None
    total_queue_time: int | None
    queue_timeouts: int | None
    groups: tuple[MultipathdGroup, ...]
