"""Lets one rank fail at one place, so that every way to start ranks can be tried: Python imports this when it starts.

`FAULT` is `RANK ACTION MODULE FUNCTION`, as in `1 SIGKILL contrasim_cli.store.store Store.read`: when that rank comes to that
function, it gets the signal, with `late:SECONDS` sleeps, with `exit` ends as it does where a library calls C's function of that
name, or with `bug` raises what nobody expects. It writes the time to the file `FAULT_AT`. `SECONDS_OF` shortens times of every
rank, as in `peers.LOST_SECONDS=2`.
"""

import functools
import importlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any


def fail(action: str) -> None:
    """What happens to the rank."""
    with open(os.environ["FAULT_AT"], "w", encoding="utf-8") as file:
        file.write(str(time.time()))
    if action.startswith("late:"):
        time.sleep(float(action.removeprefix("late:")))
    elif action == "exit":
        os._exit(1)
    elif action == "bug":
        raise ZeroDivisionError("nobody expects this")
    else:
        os.kill(os.getpid(), getattr(signal, action))


def arm(action: str, module: str, name: str) -> None:
    """Replace a function, or a method, by one that fails first, once."""
    owner: Any = importlib.import_module(module)
    *outer, last = name.split(".")
    for one in outer:
        owner = getattr(owner, one)
    function: Callable[..., Any] = getattr(owner, last)

    @functools.wraps(function)
    def failing(*args: Any, **options: Any) -> Any:
        setattr(owner, last, function)
        fail(action)
        return function(*args, **options)

    setattr(owner, last, failing)


if os.environ.get("FAULT") and os.environ.get("RANK") == os.environ["FAULT"].split()[0]:
    arm(*os.environ["FAULT"].split()[1:])

for setting in os.environ.get("SECONDS_OF", "").split():
    place, seconds = setting.split("=")
    setattr(importlib.import_module("contrasim_cli." + place.split(".")[0]), place.split(".")[1], float(seconds))
