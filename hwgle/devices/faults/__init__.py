"""A line that does what bad lines do: a layer between a line and the link, both ways.

options.py   what can go wrong, as the query of a device string says it
way.py       bytes and frames of one direction, damaged
timing.py    bytes that take their time: pace, latency, jitter, a driver that batches
forging.py   frames that somebody else wrote: other firmware, a second host
line.py      all of it around a line, and what strikes the line as a whole
"""

from hwgle.devices.faults.line import FaultLine
from hwgle.devices.faults.options import KEYS, KINDS, WAYS, Faults
from hwgle.devices.faults.way import Way

__all__ = ["KEYS", "KINDS", "WAYS", "FaultLine", "Faults", "Way"]
