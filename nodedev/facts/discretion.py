"""What a recording leaves out: secrets, and attributes whose reading does something.

Reading them would talk to the hardware, or wait for it.
"""

from __future__ import annotations

import re

# CHAP names and passwords of iSCSI, DH-HMAC-CHAP and TLS keys of NVMe, and whatever is called alike.
_SECRET = re.compile(r".*(?:passw|secret|username|chap|psk|private).*|tls_.*|.*_key", re.IGNORECASE)

SKIPPED_FOLDERS = frozenset(
    {
        "mq",  # CPU maps of each hardware queue
        "msi_irqs",
        "power",
        "statistics",  # fc_host asks the adapter's firmware, and waits (scsi_transport_fc.c)
        "trace",
    }
)
_SKIPPED = re.compile(
    r"""
      uevent
    | config | rom | vpd | resource\d+(?:_wc)?      # PCI: the device itself answers, or hangs
    | hot_add                                       # zram-control: reading makes a device
    | nuse                                          # NVMe, Linux 6.8: sends Identify Namespace
    | em_buffer | em_message                        # AHCI: the enclosure's message buffer
    | lpfc_xcvr_data | lpfc_.*stat_data.* | ctlreg | mbox       # lpfc: mailbox commands
    | thermal_temp | sfp | fw_dump | optrom | nvram | dport_diagnostics  # qla2xxx: the same
    | BRM_status | host_trace_buffer | fw_crash_buffer          # mpt3sas, megaraid_sas: firmware
    | priority_stats                                # bcache: sorts all its buckets
    """,
    re.VERBOSE,
)
# virtio_blk asks the device each time (virtblk_get_id); udev keeps the answer as ID_SERIAL.
_ASKED_OF_DEVICE = re.compile(r".*/virtio\d+/block/[^/]+/serial")


def is_secret(name: str) -> bool:
    """Whether a property or attribute of that name may hold a secret."""
    return _SECRET.fullmatch(name) is not None


def is_left_out(path: str) -> bool:
    """Whether the attribute at a sysfs path is not to be read."""
    name = path.rpartition("/")[2]
    return is_secret(name) or any((_SKIPPED.fullmatch(name), _ASKED_OF_DEVICE.fullmatch(path)))


_OPTIONS = re.compile(rb"( - \S+ )(\S*) (r[ow])(?:,.*)?$", re.MULTILINE)
_USER = re.compile(rb"//[^/@]*@")


def without_options(line: bytes) -> bytes:
    """A line of mountinfo without what may hold a password: the file system's options, the source's user."""
    return _OPTIONS.sub(lambda found: found[1] + _USER.sub(b"//", found[2]) + b" " + found[3], line)
