"""What the clinic's check scripts share: lines of a table, each right or wrong."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Checks:
    """Lines as they come, and whether all were right."""

    began_s: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """A line that is neither right nor wrong."""
        print(f"{time.monotonic() - self.began_s:7.1f} s         {line}", flush=True)

    def check(self, name: str, is_right: bool, found: object = "") -> None:
        """One expectation and what was found."""
        words = f"  ({found})" if found != "" else ""
        verdict = "right" if is_right else "WRONG"
        line = f"{time.monotonic() - self.began_s:7.1f} s  {verdict}  {name}{words}"
        print(line, flush=True)
        if not is_right:
            self.failed.append(name)

    def finish(self) -> None:
        """End the script: status 1 where anything was wrong."""
        if self.failed:
            print(f"{len(self.failed)} wrong: {'; '.join(self.failed)}")
            sys.exit(1)
        print("all is right")


def wait_until(is_so: Callable[[], bool], seconds: float, every_s: float = 0.2) -> bool:
    """Whether it came about in time."""
    end_s = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end_s:
            return False
        time.sleep(every_s)
    return True
