"""Waiting for something to become true, and never for time to pass."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.05


def eventually(probe: Callable[[], T], *, within: float, what: str) -> T:
    """The first result of `probe` that is true; a probe whose assertion fails is asked again.

    `within` is in seconds. `what` says what is waited for, in the message of the failure.
    """
    deadline = time.monotonic() + within
    while True:
        objection: AssertionError | None = None
        result: T | None = None
        try:
            result = probe()
            if result:
                return result
        except AssertionError as error:
            objection = error
        if time.monotonic() >= deadline:
            last = objection if objection is not None else repr(result)
            raise AssertionError(f"not within {within:g} s: {what}; at last: {last}") from objection
        time.sleep(PAUSE_SECONDS)
