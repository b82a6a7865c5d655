"""The results as the tables that go into docs/performance.md as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.bench.budgets import budgets
from tests.bench.figures import (
    GROWING,
    Results,
    at,
    growth,
    growth_over_floor,
    listed_over,
    milliseconds,
    per_device,
    ratio,
    service_bytes_per_device,
    times,
)
from tests.bench.live import FLOOR, LIBVIRTD, PLAIN

__all__ = ["Results", "report"]

Row = tuple[str, list[str]]


def report(results: Results) -> str:
    """Everything: budgets first, then what was measured, and with what."""
    sizes = list(results["sizes"].values())
    names = [f"{int(size):,}" for size in results["sizes"]]
    parts = [
        "### Against the budgets of the design",
        _table(["budget", "target", "measured", "met"], _budgets(results), left=4),
        "### By block devices",
        _table(["", *names], _measured(results, sizes)),
        "### How a device's cost grows",
        _table(["", *names], _growing(results, sizes)),
        "### Work of one event: reads, probes, devices changed, bytes to a watch",
        _table(["", *names], _counted(sizes)),
        "### Start-up",
        _table(["", ""], [(name, [_amount(name, value)]) for name, value in results["start"].items()]),
    ]
    if "events" in results:
        where = list(results["events"])
        labels = dict.fromkeys(name for each in results["events"].values() for name in each)
        rows = [
            (name, [_amount(name, results["events"][each].get(name)) for each in where]) for name in labels
        ]
        parts += ["### Events", _table(["", *where], rows)]
    for part in ("machine", "versions"):
        parts.append(", ".join(f"{name} {value}" for name, value in results[part].items()))
    parts.append(f"{results['seconds']:.0f} s in all, without the profiles")
    return "\n\n".join(parts)


def _table(header: list[str], rows: Iterable[Row], left: int = 1) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * left + "---:|" * (len(header) - left)]
    lines += [f"| {' | '.join((label, *cells))} |" for label, cells in rows]
    return "\n".join(lines)


def _budgets(results: Results) -> Iterator[Row]:
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    for budget in budgets(results):
        yield budget.what, [budget.target, budget.measured, verdicts[budget.met]]


def _measured(results: Results, sizes: list[Results]) -> Iterator[Row]:
    yield "devices", [_number(at(size, "recorded", "devices")) for size in sizes]
    yield from _live(sizes)
    yield "**recorded**", ["" for _ in sizes]
    yield "facts to inventory, s", [_number(at(size, "recorded", "total_s"), 2) for size in sizes]
    yield from _served(results, sizes)
    yield from _single(sizes)
    yield from _scanning(sizes)


def _live(sizes: list[Results]) -> Iterator[Row]:
    yield "**live, process start to inventory**", ["" for _ in sizes]
    readers = dict.fromkeys(name for size in sizes for name in size.get("live", {}))
    for name in readers:
        if name == LIBVIRTD:
            yield "libvirtd to its first list", [_libvirtd(size) for size in sizes]
        elif name != "parts":
            yield f"{name}, wall (cpu)", [_run(size, name) for size in sizes]
    for name in (PLAIN, FLOOR):
        for key in ("cpu", "wall"):
            ours = (at(size, "live", "nodedev", f"{key}_s") for size in sizes)
            theirs = (at(size, "live", name, f"{key}_s") for size in sizes)
            ratios = [times(ratio(one, other)) for one, other in zip(ours, theirs, strict=True)]
            yield f"nodedev over {name.partition(',')[0]}, {key}", ratios


def _served(results: Results, sizes: list[Results]) -> Iterator[Row]:
    yield "**serving** (libvirt's time over ours)", ["" for _ in sizes]
    for form in ("messages", "xml"):
        for state in ("cold", "warm"):
            key = f"{form}_{state}_s"
            yield (
                f"all as {form}, {state}",
                [
                    f"{_number(at(size, 'serving', key), 3)} ({times(listed_over(size, key))})"
                    for size in sizes
                ],
            )
    for label, key in (("idle", "idle_bytes"), ("all lists kept", "listed_bytes")):
        yield (
            f"memory of a service of a recording, {label}, MB",
            [_number(at(size, "serving", key), 0, 1e-6) for size in sizes],
        )
    yield (
        "memory of a live service, MB",
        [_number(at(size, "scanning", "live_bytes"), 0, 1e-6) for size in sizes],
    )
    yield (
        "per device, over an idle one, bytes",
        [_number(service_bytes_per_device(results, size)) for size in sizes],
    )
    yield "libvirtd's memory, MB", [_number(at(size, "live", LIBVIRTD, "bytes"), 0, 1e-6) for size in sizes]


def _single(sizes: list[Results]) -> Iterator[Row]:
    yield "**one device a call**: nodedev, gRPC alone, libvirt", ["" for _ in sizes]
    for share in ("p50", "p99"):
        yield (
            f"one device's XML, {share}, ms",
            [
                _three(size, f"one_xml_sync_{share}_s", at(size, "live", LIBVIRTD, f"one_{share}_s"), 2, 1e3)
                for size in sizes
            ],
        )
    yield (
        "the service's cpu for it, us",
        [_three(size, "one_xml_service_cpu_s", None, 0, 1e6) for size in sizes],
    )
    for form in ("xml", "message"):
        for width in (1, 16, 64):
            key = f"one_{form}_{width}_per_s"
            theirs = [
                at(size, "live", LIBVIRTD, "one_per_s") if (form, width) == ("xml", 1) else None
                for size in sizes
            ]
            yield (
                f"single {form} calls/s, {width} in flight",
                [_three(size, key, peer) for size, peer in zip(sizes, theirs, strict=True)],
            )
    yield "XML/s, a hundred a call", [_three(size, "xml_by_hundreds_per_s", None) for size in sizes]


def _scanning(sizes: list[Results]) -> Iterator[Row]:
    yield "**while the host is read**", ["" for _ in sizes]
    yield (
        "process start to first page, s",
        [_number(at(size, "scanning", "first_page_s"), 2) for size in sizes],
    )
    yield (
        "first scan: answer that it is starting, p50 (longest)",
        [_spread(size, "starting_p50_s", "starting_max_s") for size in sizes],
    )
    for call, label in (("page", "first page of a list"), ("device", "one device")):
        for state in ("idle", "rescan"):
            keys = [f"{state}_{call}_{share}_s" for share in ("p50", "p99", "max")]
            yield (
                f"{label}, {state}, p50, p99 (longest)",
                [
                    f"{milliseconds(at(size, 'scanning', keys[0]))}, {_spread(size, *keys[1:])}"
                    for size in sizes
                ],
            )
    yield "a rescan takes, s", [_number(at(size, "scanning", "rescan_s"), 2) for size in sizes]


def _growing(results: Results, sizes: list[Results]) -> Iterator[Row]:
    for label, keys in GROWING.items():
        cpu = keys[-1] == "cpu_s"
        figures = [_number(per_device(size, *keys), 1 if cpu else 0, 1e6 if cpu else 1) for size in sizes]
        yield (
            f"{label}, {'us' if cpu else 'bytes'}",
            [f"{each} ({times(grown)})" for each, grown in zip(figures, growth(results, label), strict=True)],
        )
        if cpu and not keys[1].startswith("C,"):
            over = growth_over_floor(results, label)
            yield "... over the C floor's growth", [times(each) for each in over]


def _counted(sizes: list[Results]) -> Iterator[Row]:
    for label in sizes[0]["counted"]:
        yield label, [" / ".join(f"{value:,}" for value in size["counted"][label].values()) for size in sizes]


def _run(size: Results, name: str) -> str:
    run = size.get("live", {}).get(name)
    if not run:
        return "-"
    return f"{run['wall_s']:.2f} ({run['cpu_s']:.2f})" if run["complete"] else _over(run)


def _over(run: Results) -> str:
    if "expected_s" in run:
        return f"not run: {run['expected_s']:,.0f} expected"
    return f"over {run.get('wall_s', run.get('start_s', 0)):.0f}"


def _libvirtd(size: Results) -> str:
    peer = size.get("live", {}).get(LIBVIRTD)
    if not peer:
        return "-"
    if not peer["complete"]:
        return _over(peer)
    ours = at(size, "live", "nodedev", "wall_s")
    return f"{peer['start_s']:.2f} ({times(ratio(peer['start_s'], ours))})"


def _three(size: Results, key: str, theirs: float | None, digits: int = 0, unit: float = 1) -> str:
    """Ours, gRPC's, and libvirt's where it has the like."""
    figures = [at(size, "serving", key), at(size, "serving", f"bare_{key}")]
    return ", ".join(_number(each, digits, unit) for each in (*figures, *([theirs] if theirs else [])))


def _spread(size: Results, key: str, longest: str) -> str:
    return f"{milliseconds(at(size, 'scanning', key))} ({milliseconds(at(size, 'scanning', longest))})"


def _number(value: float | None, digits: int = 0, unit: float = 1) -> str:
    return "-" if value is None else f"{value * unit:,.{digits}f}"


def _amount(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "watch_event_bytes":
        return f"{value:,.0f}"
    if "bytes" in name:
        return f"{value / 1e6:.0f} MB"
    if name.endswith(("_events", "_per_s", "_count")):
        return f"{value:,.0f}"
    return milliseconds(value)
