"""Two nodes on one machine: network namespaces with names of their own, joined by a cable, where this process may make them."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = ("node0", "node1")


@dataclass(frozen=True)
class Node:
    """Its name, and the words before a command that runs there."""

    name: str
    prefix: str


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def nodes(folder: Path) -> Iterator[list[Node]]:
    """Two nodes, each with an address and a host name; processes of this machine where namespaces are not to be had."""
    spaces = [f"contrasim-{os.getpid()}-{k}" for k in range(2)]
    ends = [f"cs{os.getpid() % 10**8}-{k}" for k in range(2)]
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{k + 1} {name}\n" for k, name in enumerate(NAMES)))
    try:
        if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
            raise OSError
        for space in spaces:
            _ip("netns", "add", space)
        _ip("link", "add", ends[0], "netns", spaces[0], "type", "veth", "peer", ends[1], "netns", spaces[1])
        for k in range(2):
            _ip("-n", spaces[k], "addr", "add", f"10.77.0.{k + 1}/24", "dev", ends[k])
            _ip("-n", spaces[k], "link", "set", ends[k], "up")
            _ip("-n", spaces[k], "link", "set", "lo", "up")
        enter = [folder / f"enter-{name}" for name in NAMES]
        for name, file in zip(NAMES, enter, strict=True):
            file.write_text(f'#!/bin/bash\nhostname {name}\nmount --bind {hosts} /etc/hosts\nexec "$@"\n')
            file.chmod(0o755)
        found = [
            Node(name, f"ip netns exec {space} unshare --mount --uts {file}")
            for name, space, file in zip(NAMES, spaces, enter, strict=True)
        ]
        for node in found:
            subprocess.run([*node.prefix.split(), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        found = [Node("localhost", "env")] * 2
    try:
        yield found
    finally:
        for space in spaces:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
