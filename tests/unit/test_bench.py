"""The benchmarks' own arithmetic: verdicts, growth, what is left out; and the hosts that they make."""

from __future__ import annotations

from pathlib import Path

from tests.bench.budgets import Budget, budgets
from tests.bench.figures import FLOOR_CPU, LIVE_CPU, Results, growth, growth_over_floor, listed_over
from tests.bench.generate import San, record
from tests.bench.live import FLOOR, LIBVIRTD, PLAIN, expectations
from tests.bench.report import report

WORK = {"reads": 5, "probes": 1, "changed": 0, "bytes": 0}


def of_size(devices: int, **parts: object) -> Results:
    """What every size has, where neither root nor peers are there, and more."""
    recorded = {"devices": devices, "total_s": 1.0, "cpu_s": devices * 1e-4, "bytes": devices * 5000}
    return {"recorded": recorded, "counted": {"an event": WORK}, **parts}


def of_sizes(**sizes: Results) -> Results:
    """A run's results; sizes by "n1000"."""
    return {
        "machine": {"processors": 2},
        "versions": {},
        "start": {"idle service of 100, bytes": 50e6},
        "sizes": {name.removeprefix("n"): size for name, size in sizes.items()},
        "seconds": 1.0,
    }


def reader(cpu_s: float) -> dict[str, object]:
    """A reader's run."""
    return {"wall_s": cpu_s, "cpu_s": cpu_s, "peak_bytes": 0, "complete": True}


def live(ours: float, plain: float, floor: float, **peers: object) -> dict[str, object]:
    """The readers of one tree."""
    own = {"nodedev": reader(ours), "parts": {"cpu_s": ours, "bytes": 5000.0}}
    return {**own, PLAIN: reader(plain), FLOOR: reader(floor), **peers}


def verdict(results: Results, what: str, target: str = "") -> Budget:
    """The one budget of that name, and of that target."""
    (found,) = (each for each in budgets(results) if each.what == what and target in each.target)
    return found


def test_a_budget_without_its_peer_is_not_judged() -> None:
    """Where nothing but a recording of one size was measured no budget is called met or missed."""
    judged = {each.what for each in budgets(of_sizes(n1000=of_size(10))) if each.met is not None}
    assert judged == set()


def test_half_of_libvirts_time_is_the_line() -> None:
    """The start is judged against the peer's time of the same run."""
    for theirs, met in ((3.0, True), (2.0, True), (1.9, False)):
        libvirt = {"start_s": theirs, "complete": True}
        results = of_sizes(n1000=of_size(10, live=live(1.0, 1.0, 1.0, **{LIBVIRTD: libvirt})))
        assert verdict(results, "start to inventory at 1,000").met is met


def test_a_peer_that_was_cut_off_is_no_measure() -> None:
    """A time limit is not a time."""
    libvirt = {"start_s": 40.0, "complete": False}
    results = of_sizes(n20000=of_size(10, live=live(1.0, 1.0, 1.0, **{LIBVIRTD: libvirt})))
    assert verdict(results, "the same", "30x").met is None
    assert verdict(results, "start to inventory at 20,000").met is True
    assert "over 40" in report(results)


def test_growth_is_told_from_the_machines() -> None:
    """What the C floor takes more per device is taken out of our growth."""
    results = of_sizes(
        n1000=of_size(10, live=live(1.0, 1.0, 0.5)), n2000=of_size(20, live=live(4.0, 4.0, 2.0))
    )
    assert growth(results, LIVE_CPU) == [1.0, 2.0]
    assert growth(results, FLOOR_CPU) == [1.0, 2.0]
    assert growth_over_floor(results, LIVE_CPU) == [1.0, 1.0]
    assert verdict(results, "cpu per device, live, without imports, from 1,000 to 2,000").met is False


def test_libvirts_list_is_scaled_to_our_devices() -> None:
    """A peer that lists half as many devices in the same time is half as fast."""
    libvirt = {"list_s": 1.0, "xml_s": 3.0, "devices": 5, "complete": True}
    serving = {"messages_cold_s": 2.0, "devices": 10}
    size = of_size(10, live=live(1.0, 1.0, 1.0, **{LIBVIRTD: libvirt}), serving=serving)
    assert listed_over(size, "messages_cold_s") == 4.0


def test_an_event_that_costs_more_at_a_size_is_named() -> None:
    """The counted work must be equal at all sizes, and what is not stands in the table."""
    dearer = of_size(20) | {"counted": {"an event": WORK | {"reads": 6}}}
    assert verdict(of_sizes(n1000=of_size(10), n2000=of_size(20)), "one event").met is True
    found = verdict(of_sizes(n1000=of_size(10), n2000=dearer), "one event")
    assert found.met is False
    assert "an event differ" in found.measured


def test_a_quadratic_peer_is_not_waited_for() -> None:
    """What it takes of so many more devices is known from fewer, also of one that was not run there."""
    before = {"lsblk -J -O": reader(2.0), LIBVIRTD: {"complete": False, "expected_s": 50.0}}
    assert expectations(20000, (5000, before)) == {"lsblk -J -O": 32.0, LIBVIRTD: 800.0}
    assert expectations(1000, None) == {}


def test_the_same_seed_gives_the_same_host(tmp_path: Path) -> None:
    """A synthetic host is its arguments' alone, byte by byte."""
    hosts = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        record(San(60, seed=seed), tmp_path / name)
        hosts[name] = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
    assert hosts["one"] == hosts["again"] != hosts["other"]
