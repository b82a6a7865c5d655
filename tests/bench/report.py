"""The results as a table that goes into docs/performance.md as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Read back from JSON: what is in it depends on which peers there were.
Results = dict[str, Any]


def table(results: Results) -> str:
    """Everything, one row a measurement and one column a size."""
    sizes = results["sizes"]
    lines = [
        "| | " + " | ".join(f"{int(size):,}" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for label, cells in _rows(list(sizes.values())):
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    start = results["start"]
    lines += ["", "| start-up | |", "|---|---:|"]
    lines += [f"| {name} | {_amount(name, value)} |" for name, value in start.items()]
    if "events" in results:
        lines += ["", "| events | |", "|---|---:|"]
        lines += [f"| {name} | {_amount(name, value)} |" for name, value in results["events"].items()]
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    return "\n".join((*lines, "", f"{machine}; {results['seconds']:.0f} s in all"))


def _rows(sizes: list[Results]) -> Iterator[tuple[str, list[str]]]:
    yield "devices", [f"{size['recorded']['devices']:,}" for size in sizes]
    yield "**live, process start to inventory**", ["" for _ in sizes]
    readers = dict.fromkeys(
        name for size in sizes for name, run in size.get("live", {}).items() if "wall_s" in run
    )
    for name in readers:
        yield f"{name}, wall (cpu)", [_run(size, name) for size in sizes]
    yield (
        "libvirtd to its first list",
        [_libvirt(size, "start_s", size["live"]["nodedev"]["wall_s"]) for size in sizes],
    )
    yield "nodedev over plain Python, cpu", [_over(size, "plain Python, same files") for size in sizes]
    yield "nodedev over C, cpu", [_over(size, "C, same files") for size in sizes]
    yield (
        "per device, us of cpu",
        [_each(size["live"]["parts"], "cpu_s", 1e6) for size in sizes if "live" in size],
    )
    yield "per device, bytes", [_each(size["live"]["parts"], "bytes", 1) for size in sizes if "live" in size]
    yield "**recorded**", ["" for _ in sizes]
    yield "facts to inventory, s", [f"{size['recorded']['total_s']:.2f}" for size in sizes]
    yield "per device, us of cpu", [_each(size["recorded"], "cpu_s", 1e6) for size in sizes]
    yield "**serving** (libvirt's time over ours)", ["" for _ in sizes]
    for form in ("messages", "xml"):
        for state in ("cold", "warm"):
            yield f"all as {form}, {state}", [_listed(size, f"{form}_{state}_s") for size in sizes]
    for name in ("one_xml_sync_p50_s", "one_xml_sync_p99_s"):
        peer = name.replace("xml_sync_", "")
        yield (
            f"one device's XML, {name[-6:-2].strip('_')}",
            [_libvirt(size, peer, size["serving"][name]) for size in sizes],
        )
    for form in ("xml", "message"):
        for width in (1, 16, 64):
            key = f"one_{form}_{width}_per_s"
            yield (
                f"single {form} calls/s, {width} in flight",
                [f"{size['serving'][key]:,.0f}" for size in sizes],
            )
    yield "XML/s, a hundred a call", [f"{size['serving']['xml_by_hundreds_per_s']:,.0f}" for size in sizes]
    yield "libvirt lookup + XML/s", [_told(size, "one_per_s", 1) for size in sizes]
    yield (
        "service's memory, idle (all lists kept), MB",
        [
            f"{size['serving']['idle_bytes'] / 1e6:.0f} ({size['serving']['listed_bytes'] / 1e6:.0f})"
            for size in sizes
        ],
    )
    yield "libvirtd's memory, MB", [_told(size, "bytes", 1e6) for size in sizes]


def _peer(size: Results) -> Results:
    found: Results = size.get("live", {}).get("libvirtd", {})
    return found


def _told(size: Results, key: str, unit: float) -> str:
    value = _peer(size).get(key)
    return "-" if value is None else f"{value / unit:,.0f}"


def _run(size: Results, name: str) -> str:
    run = size.get("live", {}).get(name)
    if not run:
        return "-"
    return f"{run['wall_s']:.2f} ({run['cpu_s']:.2f})" if run["complete"] else f"over {run['wall_s']:.0f}"


def _over(size: Results, name: str) -> str:
    live = size.get("live", {})
    return f"{live['nodedev']['cpu_s'] / live[name]['cpu_s']:.1f}x" if name in live else "-"


def _libvirt(size: Results, key: str, ours: float) -> str:
    peer = _peer(size)
    theirs = peer.get(key)
    if theirs is None:
        return f"{_time(ours)} (-)" if key != "start_s" else "-"
    if key == "start_s":
        return f"{theirs:.2f} ({theirs / ours:.1f}x)" if peer["complete"] else f"over {theirs:.0f}"
    return f"{_time(ours)}, libvirt {_time(theirs)}"


def _listed(size: Results, key: str) -> str:
    ours, peer = size["serving"][key], _peer(size)
    if "xml_s" not in peer:
        return f"{ours:.3f}"
    # Each has its own number of devices: libvirt leaves out maps, arrays and loop devices.
    theirs = (peer["list_s"] + peer["xml_s"]) * size["serving"]["devices"] / peer["devices"]
    return f"{ours:.3f} ({theirs / ours:.1f}x)"


def _each(values: Results, key: str, unit: float) -> str:
    return f"{values[key] / values['devices'] * unit:.0f}"


def _amount(name: str, value: float) -> str:
    if "bytes" in name:
        return f"{value / 1e6:.0f} MB"
    if name.endswith(("_events", "_per_s", "_revisions")):
        return f"{value:,.0f}"
    return _time(value)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
