"""How much memory a service takes while something happens to it."""

import re
import threading
from pathlib import Path
from types import TracebackType

from .world import World

MIB = 1 << 20

# Short enough to see what a request takes and gives back.
INTERVAL_SECONDS = 0.05


class Memory:
    """Watches the resident memory of a service for as long as it is entered."""

    def __init__(self, world: World, service: str) -> None:
        self._status = Path(f"/proc/{world.pid(service)}/status")
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name="memory", daemon=True)

    def __enter__(self) -> "Memory":
        self.before = self.peak = self.now()
        self._watch.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ended.set()
        self._watch.join()

    @property
    def growth(self) -> int:
        """From the beginning to the highest, in bytes."""
        return self.peak - self.before

    def now(self) -> int:
        """In bytes; what it was last, of a process that is gone."""
        try:
            found = re.search(r"^VmRSS:\s+(\d+) kB$", self._status.read_text(), re.MULTILINE)
        except OSError:
            found = None
        return int(found[1]) * 1024 if found else self.peak

    def _look(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.peak = max(self.peak, self.now())
