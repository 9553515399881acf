"""An upper bound of the stack, from what gcc tells of each function (-fcallgraph-info=su).

A call through a pointer counts as one to the deepest function that nobody calls by name:
the kernels, the callbacks. Functions of libgcc, of which nothing is told, count as
LIBRARY bytes. So this is a bound of the code as it is, not a proof against recursion
through pointers, of which there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = "firmware_run"
# What a reset or an interrupt enters: not behind any pointer of the core.
RESETS = ("cortex_reset", "riscv_reset")
HANDLERS = ("cortex_tick", "cortex_fault", "riscv_trap", "line_interrupt")
INDIRECT = "__indirect_call"
LIBRARY = 64
INTERRUPT_FRAME = 36  # of a Cortex-M; RISC-V saves within the handler

NODE = re.compile(r'node: \{ title: "([^"]*)" label: "([^"]*)"')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"')
BYTES = re.compile(r"(\d+) bytes \((\w+)")


def stack_bound(files: Iterable[Path]) -> int | None:
    """Bytes from ROOT down, the deepest interrupt included; None if nothing was told."""
    own: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for file in files:
        text = file.read_text()
        for title, label in NODE.findall(text):
            if told := BYTES.search(label):
                own[title] = int(told[1])
        for source, target in EDGE.findall(text):
            calls.setdefault(source, set()).add(target)
    if ROOT not in own:
        return None
    called = {target for targets in calls.values() for target in targets}
    pointed = [
        name for name in own if name not in called and name not in (ROOT, *RESETS, *HANDLERS)
    ]
    known: dict[str, int] = {}

    def depth(name: str, above: frozenset[str]) -> int:
        if name in above:
            return 0  # a loop through a pointer: counted once
        if name in known:
            return known[name]
        targets = pointed if name == INDIRECT else calls.get(name, ())
        mine = own.get(name, 0 if name == INDIRECT else LIBRARY)
        result = mine + max((depth(target, above | {name}) for target in targets), default=0)
        if INDIRECT not in above:
            known[name] = result
        return result

    handlers = [depth(name, frozenset()) for name in HANDLERS if name in own]
    resets = [own.get(name, 0) for name in RESETS]
    return max(resets) + depth(ROOT, frozenset()) + max(handlers, default=0) + INTERRUPT_FRAME
