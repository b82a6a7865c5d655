"""What multipathd says of the maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from tests.bench.san.layout import San


def _told(san: San, lun: int) -> Mapping[str, object]:
    """What multipathd says of a map, as `show maps json` has it."""
    mapped, groups = san.map_of(lun), []
    disks = list(san.lun_paths(lun))
    for number, group in enumerate(filter(None, (disks[::2], disks[1::2])), 1):
        paths = [
            {
                "dev": disk.name,
                "dev_t": disk.number,
                "dm_st": "failed" if san.failed(disk) else "active",
                "dev_st": "transport-offline" if san.failed(disk) else "running",
                "chk_st": "faulty" if san.failed(disk) else "ready",
                "checker": "tur",
                "pri": 50 if number == 1 else 10,
                "marginal_st": "normal",
            }
            for disk in group
        ]
        groups.append(
            {
                "selector": "service-time 0",
                "pri": 50 if number == 1 else 10,
                "dm_st": "active" if number == 1 else "enabled",
                "marginal_st": "normal",
                "group": number,
                "paths": paths,
            }
        )
    return {
        "name": mapped.name,
        "uuid": san.wwids[lun],
        "sysfs": f"dm-{lun}",
        "failback": "immediate",
        "queueing": "on",
        "paths": sum(not san.failed(disk) for disk in disks),
        "write_prot": "rw",
        "dm_st": "active",
        "features": "1 queue_if_no_path",
        "hwhandler": "1 alua",
        "path_faults": 0,
        "vend": "ACME",
        "prod": "SAN-LUN C-Mode",
        "rev": "9131",
        "path_groups": groups,
    }


def multipathd_json(san: San, luns: Iterable[int]) -> str:
    """What multipathd prints of these LUNs' maps, one key a line as it does."""
    document = {"major_version": 0, "minor_version": 1, "maps": [_told(san, lun) for lun in luns]}
    return json.dumps(document, indent=1, separators=(",", " : "))
