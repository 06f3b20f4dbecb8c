"""Share of the processor that other programs take while the benchmark runs."""

import psutil


class BackgroundLoad:
    """Processor time of all other processes, from the making of this object on."""

    def __init__(self) -> None:
        """Begins to count."""
        self._before_s = _processor_times_s()

    def share(self) -> float | None:
        """0 to 1 of all cores; None where too little time has passed to tell."""
        total_s, busy_s, own_s = (
            now - before for now, before in zip(_processor_times_s(), self._before_s, strict=True)
        )
        return min(max((busy_s - own_s) / total_s, 0.0), 1.0) if total_s > 0 else None


def _processor_times_s() -> tuple[float, float, float]:
    """Seconds of all cores, of them busy, and of this process with its ended children.

    A guest's time is in `user` already; what the hypervisor stole is another's too.
    """
    times = psutil.cpu_times()._asdict()
    total_s = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    idle_s = times["idle"] + times.get("iowait", 0.0)
    own = psutil.Process().cpu_times()
    own_s = own.user + own.system + own.children_user + own.children_system
    return total_s, total_s - idle_s, own_s
