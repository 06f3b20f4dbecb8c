"""Figures of a benchmark in words, the same in the terminal and on the page."""

from collections.abc import Mapping

from edge_medgemma.runtime.profiling.record import Benchmark, Row

BUSY_SHARE = 0.03
"""Share of all cores beyond which other programs make a difference that a reader must know."""


def seconds(value: float) -> str:
    """Three digits, in the unit that suits.

    >>> seconds(0.00123), seconds(1.5), seconds(220.0)
    ('1.23 ms', '1.50 s', '220 s')
    """
    if value < 1e-3:
        return f"{_three_digits(value * 1e6)} µs"
    if value < 1:
        return f"{_three_digits(value * 1e3)} ms"
    return f"{_three_digits(value)} s"


def band_words(row: Row) -> str:
    """The noise band of the median."""
    return f"{row.latency.noise_band:.0%}" if row.latency else ""


def load_words(benchmark: Benchmark) -> str:
    """How busy other programs kept the processor, where it makes a difference."""
    share = benchmark.others_share
    if share is None or share <= BUSY_SHARE:
        return ""
    return (
        f"Other programs took {share:.0%} of the processor during the run: rows are slower than "
        "they could be."
    )


def rate_words(row: Row) -> str:
    """Work a second, or slices' own time."""
    if row.latency is None or row.rate is None:
        return ""
    if row.unit == "slice":
        return f"{seconds(row.latency.median_s / row.work)}/slice"
    return f"{_three_digits(row.rate)} {row.unit}s/s"


def ceiling_words(row: Row) -> str:
    """Fraction of the measured peak that bounds the row."""
    return f"{row.ceiling.fraction:.0%} {row.ceiling.bound}" if row.ceiling else ""


def settings_words(benchmark: Benchmark) -> str:
    """Which engine, how it was run, and what is known of its parity."""
    engine, settings = benchmark.engine, benchmark.settings
    precision = ", ".join(f"{part} {kind}" for part, kind in engine.precision.items())
    providers = ", ".join(f"{part} {name}" for part, name in settings.providers.items())
    return (
        f"Engine {engine.name} ({engine.manifest_sha256[:12]}, {engine.bytes / 1e9:.2f} GB; "
        f"{precision}); parity: {engine.parity}. Suite {settings.suite}, {settings.threads} "
        f"threads, providers: {providers}; {benchmark.wall_s:.0f} s in all."
    )


def machine_words(benchmark: Benchmark) -> str:
    """Hardware, power mode, temperature and software."""
    machine, before, after = benchmark.machine, benchmark.thermal_before, benchmark.thermal_after
    memory = f"{machine.memory_bytes / 1e9:.1f} GB"
    hot = before.hottest_celsius, after.hottest_celsius
    heat = f"{hot[0]:.0f} to {hot[1]:.0f} °C" if hot[0] and hot[1] else "temperature not available"
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    return (
        f"{machine.processor}, {machine.cores} cores, {memory}, {machine.system}; power mode "
        f"{machine.power_mode}; {heat}; throttling {throttling_words(benchmark)}; power "
        f"{benchmark.power}. {libraries}."
    )


def throttling_words(benchmark: Benchmark) -> str:
    """Did the machine slow itself down for heat while it was measured?"""
    states = {row.throttled for row in benchmark.rows}
    if True in states:
        return "SEEN: " + ", ".join(row.name for row in benchmark.rows if row.throttled)
    return "none" if False in states else "not available"


def peaks_words(benchmark: Benchmark) -> str:
    """The measured peaks of the machine and of the GPU that ran a part."""
    peaks, device = benchmark.peaks, benchmark.device_peaks
    figures = {
        "read": (peaks.read_bytes_per_s, "GB/s"),
        "copy": (peaks.copy_bytes_per_s, "GB/s"),
        "f32": (peaks.f32_flop_per_s, "GFLOP/s"),
        "int8": (peaks.int8_flop_per_s, "GFLOP/s"),
        "bf16": (peaks.bf16_flop_per_s, "GFLOP/s"),
        "decoder's weights": (peaks.weight_only_flop_per_s, "GFLOP/s"),
    }
    words = f"Measured peaks: {_figures(figures)}."
    if peaks.level:
        loops = {name: (value, "GFLOP/s") for name, value in peaks.instruction_flop_per_s.items()}
        words += f" Multiply instructions of level {peaks.level}: {_figures(loops)}."
    if device is not None:
        own = {
            "copy": (device.copy_bytes_per_s, "GB/s"),
            "16-bit product": (device.bf16_flop_per_s, "GFLOP/s"),
        }
        words += f" Of {device.device}: {_figures(own)}."
    return words


def _figures(figures: Mapping[str, tuple[float | None, str]]) -> str:
    return ", ".join(
        f"{name} {value / 1e9:.0f} {unit}" if value else f"{name} not measured"
        for name, (value, unit) in figures.items()
    )


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
