"""The budgets of the design, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.figures import (
    LIVE_CPU,
    LIVE_MEMORY,
    RECORDED_CPU,
    RECORDED_MEMORY,
    STARTED_CPU,
    Results,
    at,
    growth,
    growth_over_floor,
    listed_over,
    milliseconds,
    ratio,
    service_bytes_per_device,
    times,
)
from tests.bench.live import LIBVIRTD, PLAIN

_SMALL, _LARGE = "1000", "20000"
_FLAT = 1.2
_COLD, _WARM, _ONE, _BATCH = 2.0, 10.0, 2.0, 5.0
_HALF, _TWICE, _BEFORE = 0.5, 2.0, 30.0
_LIBVIRT_BYTES = 6 << 10


@dataclass(frozen=True, slots=True)
class Budget:
    """One of them; `met` is None where it was not measured."""

    what: str
    target: str
    measured: str
    met: bool | None


def budgets(results: Results) -> Iterator[Budget]:
    """All of them, in the design's order."""
    yield from _start(results)
    yield from _growth(results)
    yield from _lists(results)
    yield from _singles(results)
    yield from _events(results)
    yield _memory(results)


def _start(results: Results) -> Iterator[Budget]:
    small, large = (results["sizes"].get(size, {}) for size in (_SMALL, _LARGE))
    share = ratio(at(small, "live", "nodedev", "wall_s"), at(small, "live", LIBVIRTD, "start_s"))
    yield Budget("start to inventory at 1,000", "half of libvirtd's time", times(share), _below(share, _HALF))
    wall, cpu = (
        ratio(at(large, "live", "nodedev", key), at(large, "live", PLAIN, key)) for key in ("wall_s", "cpu_s")
    )
    yield Budget(
        "start to inventory at 20,000",
        "within 2x of plain Python, same files",
        f"{times(wall)}, by cpu {times(cpu)}" if wall else "-",
        _below(wall, _TWICE),
    )
    ours = at(large, "live", "nodedev", "wall_s")
    expected = large.get("live", {}).get(LIBVIRTD, {}).get("expected_s")
    before = ratio(at(large, "live", LIBVIRTD, "start_s"), ours)
    likely = f"not run, {expected:.0f} s expected, {times(ratio(expected, ours))}" if expected else ""
    told = likely or times(before)
    yield Budget("the same", "30x before libvirtd", told, _above(before, _BEFORE))


def _growth(results: Results) -> Iterator[Budget]:
    sizes = list(results["sizes"])
    span = f"from {int(sizes[0]):,} to {int(sizes[-1]):,}"
    for what, label in (
        ("live, process start to inventory", STARTED_CPU),
        ("live, without imports", LIVE_CPU),
        ("recorded", RECORDED_CPU),
    ):
        *_, plain = growth(results, label)
        *_, over = growth_over_floor(results, label)
        known = plain if len(sizes) > 1 else None
        yield Budget(
            f"cpu per device, {what}, {span}",
            "within 1.2x",
            f"{times(known)}; over the C floor's own growth {times(over)}" if known else "-",
            _below(known, _FLAT),
        )
    for what, label in (("live", LIVE_MEMORY), ("recorded", RECORDED_MEMORY)):
        *_, last = growth(results, label) if len(sizes) > 1 else (None,)
        yield Budget(f"memory per device, {what}, {span}", "within 1.2x", times(last), _below(last, _FLAT))


def _lists(results: Results) -> Iterator[Budget]:
    for form in ("messages", "xml"):
        for state, least in (("cold", _COLD), ("warm", _WARM)):
            yield _at_sizes(
                results,
                f"all devices as {form}, {state}",
                f"{least:.0f}x faster than libvirt",
                lambda size, key=f"{form}_{state}_s": listed_over(size, key),  # type: ignore[misc]
                lambda value, least=least: _above(value, least),  # type: ignore[misc]
            )


def _singles(results: Results) -> Iterator[Budget]:
    def over_libvirt(size: Results) -> float | None:
        ours, theirs = at(size, "serving", "one_xml_sync_p50_s"), at(size, "live", LIBVIRTD, "one_p50_s")
        return ratio(ours, theirs)

    def bare_over_libvirt(size: Results) -> float | None:
        theirs = at(size, "live", LIBVIRTD, "one_p50_s")
        return ratio(at(size, "serving", "bare_one_xml_sync_p50_s"), theirs)

    def batch(size: Results) -> float | None:
        ours = at(size, "serving", "xml_by_hundreds_per_s")
        return ratio(ours, at(size, "live", LIBVIRTD, "one_per_s"))

    one = _at_sizes(
        results, "one device's XML, p50", "within 2x of libvirt", over_libvirt, lambda x: _below(x, _ONE)
    )
    bare = _at_sizes(results, "", "", bare_over_libvirt, lambda _: None)
    yield Budget(one.what, one.target, f"{one.measured}; gRPC alone {bare.measured}", one.met)
    yield _at_sizes(
        results, "in batches of a hundred", "5x libvirt's calls", batch, lambda x: _above(x, _BATCH)
    )


def _events(results: Results) -> Iterator[Budget]:
    yield _counted(results)
    native, udevd = (results.get("events", {}).get(where, {}) for where in ("native", "udevd"))
    ours, theirs = at(udevd, "watch_1_p99_s"), at(udevd, "virsh_p99_s")
    yield Budget(
        "uevent to client, p99",
        "below virsh nodedev-event",
        f"{milliseconds(ours)}, virsh {milliseconds(theirs)}",
        None if ours is None or theirs is None else ours < theirs,
    )
    wrong = [count for each in (native, udevd) if (count := at(each, "burst_wrong_count")) is not None]
    yield Budget(
        f"{native.get('burst_events', 5000):,.0f} events in a burst",
        "the inventory is a fresh scan's",
        f"{sum(wrong):.0f} devices differ" if wrong else "-",
        not sum(wrong) if wrong else None,
    )
    drained, delivered = at(native, "burst_per_s"), at(udevd, "udevd_delivers_per_s")
    yield Budget(
        "the same",
        "faster than udevd delivers",
        "-" if drained is None or delivered is None else f"{drained:,.0f}/s, udevd {delivered:,.0f}/s",
        None if drained is None or delivered is None else drained > delivered,
    )


def _counted(results: Results) -> Budget:
    counted = [size["counted"] for size in results["sizes"].values()]
    kinds = ("reads", "probes", "changed")
    different = [
        label
        for label in counted[0]
        if len({tuple(each[label][kind] for kind in kinds) for each in counted}) > 1
    ]
    sizes = ", ".join(f"{int(size):,}" for size in results["sizes"])
    return Budget(
        "one event",
        "the same work at any size",
        f"reads, probes and changes of {len(counted[0])} kinds of event at {sizes}: "
        + ("; ".join(different) + " differ" if different else "equal"),
        None if len(counted) == 1 else not different,
    )


def _memory(results: Results) -> Budget:
    figures = {
        size: found
        for size, each in results["sizes"].items()
        if (found := service_bytes_per_device(results, each)) is not None
    }
    return Budget(
        "memory a device, over an idle service",
        f"below {_LIBVIRT_BYTES:,} bytes",
        _by_size({size: f"{found:,.0f}" for size, found in figures.items()}),
        all(found < _LIBVIRT_BYTES for found in figures.values()) if figures else None,
    )


def _at_sizes(
    results: Results,
    what: str,
    target: str,
    figure: Callable[[Results], float | None],
    met: Callable[[float], bool | None],
) -> Budget:
    """A budget at each size at which it was measured; met when it is at all of them."""
    found = {size: value for size, each in results["sizes"].items() if (value := figure(each)) is not None}
    verdicts = [met(value) for value in found.values()]
    return Budget(
        what,
        target,
        _by_size({size: times(value) for size, value in found.items()}),
        all(verdicts) if verdicts else None,
    )


def _by_size(figures: dict[str, str]) -> str:
    return ", ".join(f"{text} at {int(size):,}" for size, text in figures.items()) or "-"


def _below(value: float | None, most: float) -> bool | None:
    return None if value is None else value <= most


def _above(value: float | None, least: float) -> bool | None:
    return None if value is None else value >= least
