"""What of the demo a body can do in a minute or two: a board is slower than this machine
and holds less."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from hwgle.accuracy import chip_scales, chip_votes, part
from hwgle.demo import Setting, prepared
from hwgle.device import Block, Device
from hwgle.errors import DeviceRefused, UsageError

SECONDS = 60.0  # for each of the two parts
TRIED_STREAMS = 1
TRIED_STEPS = 3
LEAST_STREAMS = 20
LEAST_BATCHES = 2


@dataclass(frozen=True)
class Plan:
    """What is shown: the streams to classify, and how to learn (None: not on this body).

    notes: what a person should know of what was left out.
    """

    classify: Setting
    relearn: Setting | None
    notes: tuple[str, ...] = ()


def plan(device: Device, setting: Setting) -> Plan:
    """All of the demo on a body that calls the core, as much as there is time for on others."""
    if device.limits.immediate:
        return Plan(setting, setting)
    classify, notes = _streams(device, setting)
    relearn, why = _relearning(device, setting)
    return Plan(classify, relearn, (*notes, *why))


def _streams(device: Device, setting: Setting) -> tuple[Setting, list[str]]:
    task = setting.task
    scales = chip_scales(setting.network, setting.chip, setting.weights, task.train)
    tried = part(task.test, TRIED_STREAMS)
    begun = time.perf_counter()
    chip_votes(device, setting.network, setting.chip, setting.weights, scales, tried)
    each = (time.perf_counter() - begun) / TRIED_STREAMS
    count = max(LEAST_STREAMS, int(SECONDS / 2 / each) // 10 * 10)  # for test and offsets each
    if count >= len(task.test):
        return setting, []
    few = replace(task, test=part(task.test, count), train=part(task.train, max(count, 100)))
    note = f"the first {count} of {len(task.test)} test streams: this body takes {each:.2g} s each"
    return replace(setting, task=few, shown=1), [note]


def _relearning(device: Device, setting: Setting) -> tuple[Setting | None, list[str]]:
    how = setting.relearning
    try:
        rule, x, y = prepared(device, setting)
    except (DeviceRefused, UsageError) as error:
        why = str(error).splitlines()[0]
        return None, [f"not learned again here, {how.batch} streams at once with Adam: {why}"]
    begun = time.perf_counter()
    first = slice(0, how.batch)
    rule.run(Block(x[:TRIED_STEPS, first], y[first].astype(np.int16), ranging=True))
    each = (time.perf_counter() - begun) / TRIED_STEPS * len(x)
    batches = min(how.batches, int(SECONDS / each))
    if batches >= how.batches:
        return setting, []
    if batches < LEAST_BATCHES:
        return None, [f"not learned again here: a batch would take {each:.0f} s"]
    note = f"learned again for {batches} instead of {how.batches} batches, {each:.1f} s each here"
    return replace(setting, relearning=replace(how, batches=batches)), [note]
