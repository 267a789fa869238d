"""The numbers, for people; `asdict` of the same value is the JSON."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.measure import Outcome

MIB = 1024 * 1024
RATIO_WANTED = 0.15
P99_MS_WANTED = 120
MEMORY_WANTED = 1.2 * 1024 * MIB


@dataclass(slots=True)
class Program:
    """What one program showed: as fast as it can, then at the steady rate.

    Attributes:
        cpu_s_per_1000: By part, at full speed, until everything was recorded.
        cpu_s_per_1000_at_rate: By part, at the steady rate.
    """

    full: Outcome
    steady: Outcome
    cpu_s_per_1000: dict[str, float] = field(default_factory=dict)
    cpu_s_per_1000_at_rate: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Growth:
    """Where a long run stands: executions so far, how fast the last part was, bytes by part."""

    executions: int
    per_s: float
    sizes: dict[str, int]


@dataclass(slots=True)
class Report:
    """One run.

    Attributes:
        floors: The floor before and after the product; the faster one counts.
        memory: Peak bytes by part (PSS); `whole` all of them at the same moment.
        idle_cpu: Share of one core that each part takes when nothing happens.
        ended: Executions by status as the log has them.
        read_side: Executions by status as the API tells them.
        watch_cpu_s: What watching cost the measurement.
        growth: Speed and memory (PSS) along a long run.
    """

    cores: int
    rate: float
    floors: list[Program]
    product: Program
    memory: dict[str, int]
    resident: int
    idle_cpu: dict[str, float]
    expected: int
    ended: dict[str, int]
    read_side: dict[str, int]
    watch_cpu_s: float
    growth: list[Growth] = field(default_factory=list)

    @property
    def floor(self) -> Program:
        """The faster floor."""
        return max(self.floors, key=lambda found: found.full.executions_per_s)

    @property
    def ratio(self) -> float:
        """The product's executions/s as a share of the floor's."""
        return self.product.full.executions_per_s / self.floor.full.executions_per_s

    @property
    def is_whole(self) -> bool:
        """Whether all executions succeeded, in the log and in the API, with all their calls."""
        wanted = {"succeeded": self.expected}
        calls = self.product.full.is_whole and self.product.steady.is_whole
        return calls and self.ended == wanted and self.read_side == wanted

    @property
    def misses(self) -> list[str]:
        """Targets of this release that were not met."""
        p99 = self.product.steady.latency_ms.get("p99", float("inf"))
        checks = {
            f"at least {RATIO_WANTED:.0%} of the floor": self.ratio >= RATIO_WANTED,
            f"p99 below {P99_MS_WANTED} ms": p99 < P99_MS_WANTED,
            "memory below 1.2 GiB": self.memory["whole"] < MEMORY_WANTED,
        }
        return [name for name, met in checks.items() if not met]


def text(report: Report) -> str:
    """Write the report."""
    floor, product = report.floor, report.product
    at = f"{report.rate:g}/s"

    def row(label: str, pick: Callable[[Program], float], digits: int = 0) -> str:
        return f"{label:34}{pick(product):12,.{digits}f}{pick(floor):12,.{digits}f}"

    lines = [
        f"Two-step executions, {report.cores} cores shared with broker, database and load",
        "",
        f"{'':34}{'product':>12}{'floor':>12}",
        row("executions/s", lambda found: found.full.executions_per_s),
        row("accepted/s", lambda found: found.full.accepted_per_s),
        row(f"p50 ms, post to second call, {at}", lambda found: found.steady.latency_ms["p50"], 1),
        row(f"p95 ms, post to second call, {at}", lambda found: found.steady.latency_ms["p95"], 1),
        row(f"p99 ms, post to second call, {at}", lambda found: found.steady.latency_ms["p99"], 1),
        row(f"max ms, post to second call, {at}", lambda found: found.steady.latency_ms["max"], 1),
        row(f"p99 ms, post to 202, {at}", lambda found: found.steady.accept_ms["p99"], 1),
        row("CPU s per 1,000, full speed", lambda found: sum(found.cpu_s_per_1000.values()), 2),
        row(f"CPU s per 1,000, {at}", lambda found: sum(found.cpu_s_per_1000_at_rate.values()), 2),
        row("  besides: load, CPU s per 1,000", _load_cpu_s, 2),
        "",
    ]
    lines += [f"{'part':14}{'CPU s/1,000 full':>18}{'at rate':>10}{'peak MB':>10}{'idle':>8}"]
    for part in sorted(report.memory.keys() - {"whole"}):
        full = product.cpu_s_per_1000.get(part, 0)
        steady = product.cpu_s_per_1000_at_rate.get(part, 0)
        idle = report.idle_cpu.get(part, 0)
        size = report.memory[part] / MIB
        lines.append(f"{part:14}{full:18.2f}{steady:10.2f}{size:10.0f}{idle:8.1%}")
    others = ", ".join(f"{f.full.executions_per_s:,.0f}" for f in report.floors)
    lines += [
        "",
        f"ratio to the floor {report.ratio:.1%} (floors of this run: {others} executions/s)",
        f"whole stack {report.memory['whole'] / MIB:,.0f} MB (resident sum "
        f"{report.resident / MIB:,.0f} MB), idle {sum(report.idle_cpu.values()):.1%} of a core",
        f"executions {report.expected:,}: log {report.ended}, API {report.read_side}",
        f"vendor calls missing {product.full.missing + product.steady.missing}, "
        f"repeated {product.full.repeated + product.steady.repeated}",
        f"watching cost {report.watch_cpu_s:.1f} CPU s",
        "targets: " + ("; ".join(f"MISSED {miss}" for miss in report.misses) or "all met"),
    ]
    return "\n".join([*lines, *_growth(report.growth)])


def _growth(growth: list[Growth]) -> list[str]:
    """Write what each part held after so many executions, in MB."""
    if not growth:
        return []
    parts = sorted(growth[0].sizes)
    head = "".join(f"{part:>11}" for part in (*parts, "whole"))
    lines = ["", f"{'executions':>12}{'per s':>8}{head}   (MB)"]
    for each in growth:
        row = [*(each.sizes.get(part, 0) for part in parts), sum(each.sizes.values())]
        sizes = "".join(f"{size / MIB:11.0f}" for size in row)
        lines.append(f"{each.executions:12,}{each.per_s:8,.0f}{sizes}")
    return lines


def _load_cpu_s(found: Program) -> float:
    return found.full.load_cpu_s / found.full.count * 1000
