"""One interface, several bodies: what every chip, emulated or on a desk, can do.

Data goes down as an `Image`, quantised weights and `Block`s of steps in the chip's
integers; what comes back are integers too (`Records`). Conversion to network units is
the session's work (hwgle/session.py), so that no body can differ in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hwgle.quantise import Image, Quantised

SIGNALS = ("r", "u", "uhat", "v", "e")


@dataclass(frozen=True)
class Block:
    """Steps to run.

    input: (T, B, inputs) int16 in the image's input format. target: None; labels (B,) int16
    for cross_entropy, -1 for none, held during the block; (T, B, outputs) int16 for mse.
    learn: on-chip SGD after each step. ranging: these steps count for the auto-ranging.
    record: (layer index, signal) pairs to return after each step. votes: return the sum of
    the output layer's r over the block. gradient: add each step's to the accumulators.
    """

    input: NDArray[np.int16]
    target: NDArray[np.int16] | None = None
    learn: bool = False
    ranging: bool = False
    record: Sequence[tuple[int, str]] = ()
    votes: bool = False
    gradient: bool = False


@dataclass
class Records:
    """What a block returned, as integers.

    signals: per asked pair (T, B, n) int32. fracs: (T, layers, 2) int8, the formats of r
    and e at each step (auto-ranging moves them). votes: (B, outputs) int64 or None. digests:
    (steps of the block done, `digest` then), wherever the body told one on the way.
    """

    steps: int
    signals: list[NDArray[np.int32]] = field(default_factory=list)
    fracs: NDArray[np.int8] | None = None
    votes: NDArray[np.int64] | None = None
    digests: list[tuple[int, int]] = field(default_factory=list)


class Pending(Protocol):
    """A block that is under way."""

    def result(self) -> Records:
        """Wait for its end; the same again when called again."""
        ...


@dataclass(frozen=True)
class Done:
    """A block that was run at once."""

    records: Records

    def result(self) -> Records:
        """See Pending."""
        return self.records


@dataclass(frozen=True)
class Limits:
    """What a body can hold and do.

    max_batch: streams at once. memory: bytes for image, weights and states, None: whatever
    the machine has. payload, window: largest message and messages under way (0: no wire).
    gradient: it can be read out; uhat: it can be recorded. immediate: submit() returns only
    when the block is done.
    """

    max_batch: int
    memory: int | None = None
    payload: int = 0
    window: int = 0
    gradient: bool = True
    uhat: bool = True
    immediate: bool = True


@dataclass(frozen=True)
class Formats:
    """Fraction bits of one layer's numbers as they stand."""

    stored: int
    membrane: int
    rate: int
    error: int
    error_state: int
    gradient: int
    gradient_bias: int


NO_TIMES: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class Gradient(NamedTuple):
    """Of one layer, summed over the batch: weights (n, m), biases (n,), their fraction bits.

    tau: -dt dtau_m (n,) of a layer that learns it, else empty, see gle_gradient_part.
    """

    weight: NDArray[np.int32]
    bias: NDArray[np.int32]
    frac: int
    bias_frac: int
    tau: NDArray[np.int32] = NO_TIMES


class Device(ABC):
    """A chip that is reachable. Use as a context manager, or call close().

    All methods raise DeviceError when the body fails, UsageError on arguments that do
    not fit the loaded image.
    """

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What this body can hold and do."""

    @abstractmethod
    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """Build the chip of an image for `batch` streams; weights and states are zero.

        gradient: keep room for its read-out. uhat: keep it, so that it can be recorded; a
        body that cannot goes without.
        """

    @abstractmethod
    def write_weights(self, weights: Quantised) -> None:
        """Replace stored weights and biases, all layers or some."""

    @abstractmethod
    def read_weights(self) -> Quantised:
        """Stored weights (n, m) int16 and biases (n,) int32 per layer."""

    @abstractmethod
    def add_weights(self, increments: Quantised) -> None:
        """Add to stored weights and biases, all layers or some; sums saturate, and each that
        does is counted. On a board this does not wait: a refusal is raised by a later call."""

    def add_biases(self, increments: Quantised) -> None:
        """The same where all weights of the increments are 0, which need not travel then."""
        self.add_weights(increments)

    @abstractmethod
    def write_times(self, times: Mapping[str, NDArray[np.uint32]]) -> None:
        """Multipliers (n, 4) of all neurons of layers that learn their tau_m, in the order of
        gle_neuron (csrc/gle.h): hwgle.packing.times makes them. On a board this does not wait.
        """

    @abstractmethod
    def reset(self, first: int = 0) -> None:
        """States, digests and the step number to zero; stream b of the batch is from now on
        number first + b, by which noise is drawn. What is drawn by the step alone (rounding of
        updates, drift) comes again as after the last reset."""

    @abstractmethod
    def submit(self, block: Block) -> Pending:
        """Start a block; several may be under way. They run in the order of all calls."""

    def run(self, block: Block) -> Records:
        """Run a block; Ctrl-C ends the wait for it (KeyboardInterrupt)."""
        return self.submit(block).result()

    def answered(self) -> bool:
        """Whether something has come from the body, so that waiting for it is short.

        Raises what ended the session to a board, which a caller that only submits now and
        then would not hear of.
        """
        return True

    @abstractmethod
    def set_rate(self, shift: int) -> None:
        """Learning rate of on-chip SGD from now on: dW = 2**-shift * sum over the batch."""

    @abstractmethod
    def clear_gradient(self, drop: int = 0) -> None:
        """Accumulators to zero, in formats that follow the scales as they stand, with `drop`
        bits fewer than one step's gradient has: 2**drop steps with Block.gradient cannot clip.
        """

    @abstractmethod
    def read_gradient(self) -> list[Gradient]:
        """Per layer: what accumulated since clear_gradient."""

    @abstractmethod
    def digest(self) -> int:
        """64 bits over all states of all steps since the reset, and all weights."""

    @abstractmethod
    def stream_digests(self) -> NDArray[np.uint64]:
        """Shape (B,): the running digest of each stream."""

    @abstractmethod
    def weights_digest(self) -> int:
        """64 bits over stored weights, biases and formats."""

    @abstractmethod
    def counters(self) -> list[dict[str, int]]:
        """Per layer: saturations, underflows, updates since the load."""

    @abstractmethod
    def formats(self) -> list[Formats]:
        """Per layer: what its numbers mean now."""

    @abstractmethod
    def snapshot(self) -> bytes:
        """The complete state."""

    @abstractmethod
    def restore(self, snapshot: bytes) -> None:
        """Take up a complete state that `snapshot` returned for the same image."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the body; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
