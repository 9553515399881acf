"""A chip behind a port: every call of the one interface as messages (csrc/device).

Requests go out without waiting wherever nothing depends on the answer; weights, images
and snapshots are checked by their CRC and end with a SYNC, so that a refusal is raised by
the call that caused it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle._core import ffi, lib
from hwgle.device import SIGNALS, Block, Device, Formats, Gradient, Limits, Pending, Records
from hwgle.devices.answers import BlockAnswer, Digests, Numbers, Snapshot, joined
from hwgle.devices.dialogue import Dialogue, One
from hwgle.devices.line import Line
from hwgle.devices.messages import LAYOUTS, Message, enum_names, pack
from hwgle.devices.port import FAST, PAYLOAD, Port, Timing
from hwgle.errors import DeviceError, UsageError
from hwgle.preflight import check, machine_of, refuse
from hwgle.quantise import Image, Quantised

COUNTERS = tuple(name for name, _ in ffi.typeof("gle_counters").fields)
FORMATS = tuple(name for name, _ in ffi.typeof("gle_formats").fields)
BOOT_CAUSES = enum_names("message_boot_cause", "BOOT_")
WIRE_STEPS = 256  # of one block on the wire: how often the board tells its digest
FLIPPED = (*SIGNALS, "weight", "bias")  # as gle_flip counts them


@dataclass(frozen=True)
class Info:
    """What a board tells of itself."""

    name: str
    memory: int
    max_batch: int
    features: int
    boot_cause: str
    boots: int


class SerialPending:
    """A block under way, as pieces on the wire."""

    def __init__(self, dialogue: Dialogue, answers: list[BlockAnswer]) -> None:
        self._dialogue, self._answers = dialogue, answers
        self._records: Records | None = None

    def result(self) -> Records:
        """See Pending. Raises what Dialogue.wait raises."""
        if self._records is None:
            for answer in self._answers:
                self._dialogue.wait(answer)
            self._records = joined([answer.records() for answer in self._answers])
        return self._records


class SerialDevice(Device):
    """A board, or a process that behaves as one, at the other end of a line.

    body: what is to be let go of after the line (an emulator's process), reset: resets it.
    again: opens the line another time, for reconnect().
    """

    def __init__(
        self,
        line: Line,
        name: str,
        timing: Timing = FAST,
        *,
        body: Any = None,
        again: Callable[[], Line] | None = None,
        wire_steps: int = WIRE_STEPS,
        **port: Any,
    ) -> None:
        self.name, self._body, self._wire_steps = name, body, wire_steps
        self._timing, self._port_options, self._again = timing, port, again
        try:
            self._begin(line)
        except BaseException:
            self._let_go()
            raise

    def _begin(self, line: Line) -> None:
        """A session over a line."""
        self.port = Port(line, self.name, self._timing, **self._port_options)
        try:
            self.hello = self.port.open()
            self._talk = Dialogue(self.port, self.name)
            self.info = self._info()
        except BaseException:
            self.port.close()
            raise
        self._image: Image | None = None
        self.batch = 0

    def reconnect(self) -> None:
        """Open the same board again after its session has ended; it holds no network then.

        Raises DeviceError when it is not there any more.
        """
        if self._again is None:
            raise DeviceError(f"{self.name}: this line cannot be opened again")
        self.port.close()
        self._begin(self._again())

    # --- the board --------------------------------------------------------------------

    def _info(self) -> Info:
        m = self._talk.one("INFO", "INFO_IS")
        return Info(
            name=m.tail.decode("utf-8", "replace"),
            memory=m.memory,
            max_batch=m.max_batch,
            features=m.features,
            boot_cause=BOOT_CAUSES.get(m.boot_cause, "unknown"),
            boots=m.boots,
        )

    @property
    def limits(self) -> Limits:
        """See Device."""
        return Limits(
            max_batch=min(self.info.max_batch, lib.GLE_MAX_BATCH),
            memory=self.info.memory,
            payload=self.port.largest,
            window=self.hello.window,
            gradient=bool(self.info.features & lib.FEATURE_GRADIENT),
            uhat=bool(self.info.features & lib.FEATURE_UHAT),
            immediate=False,
        )

    def status(self) -> dict[str, int]:
        """Stack, memory, uptime and what the board's link has counted."""
        m = self._talk.one("STATUS", "STATUS_IS")
        return dict(zip(m.layout.fields, m.values, strict=True))

    def echo(self, data: bytes) -> bytes:
        """The same bytes back: a round trip."""
        return self._talk.one("ECHO", "ECHOED", tail=data).tail

    def echo_many(self, messages: list[bytes]) -> list[bytes]:
        """Several round trips under way at once."""
        answers = [One("ECHOED") for _ in messages]
        for answer, data in zip(answers, messages, strict=True):
            self._talk.ask(answer, [pack("ECHO", tail=data)])
        result = []
        for answer in answers:
            self._talk.wait(answer)
            assert answer.message is not None
            result.append(answer.message.tail)
        return result

    def sync(self) -> None:
        """Wait until everything sent so far is executed. Raises DeviceRefused if it was not."""
        self._talk.sync()

    def reboot(self, wedge: bool = False) -> None:
        """Restart the board, or wedge its loop so that its watchdog does; the session ends."""
        self._talk.act("REBOOT", lib.REBOOT_WEDGE if wedge else lib.REBOOT_NOW)

    # --- network and weights ------------------------------------------------------------

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device. Raises DeviceRefused, before anything is sent, where it does not fit."""
        limits = self.limits
        options = lib.GLE_WITH_GRADIENT * gradient | lib.GLE_WITH_UHAT * (uhat and limits.uhat)
        refuse(self.name, check(image, batch, options, limits, machine_of(self)))
        self.send_image(image, batch, options)

    def send_image(self, image: Image, batch: int, options: int) -> None:
        """Load it, and leave it to the board to judge what fits. options: of gle_open."""
        self._image = None
        words = image.words.astype("<u4")
        self._talk.act("IMAGE_BEGIN", words.size, batch, options)
        self._send_bytes("IMAGE_DATA", words.tobytes())
        self._talk.act("IMAGE_COMMIT", zlib.crc32(words.tobytes()))
        self._talk.sync()
        self._image, self.batch = image, batch
        self._sizes = [layer.size for layer in image.network.layers]

    @property
    def image(self) -> Image:
        """The loaded image. Raises UsageError where there is none."""
        if self._image is None:
            raise UsageError(f"{self.name}: no network is loaded")
        return self._image

    def write_weights(self, weights: Quantised) -> None:
        """See Device: live as a whole or not at all."""
        messages = []
        for k, layer in enumerate(self.image.network.layers):
            if layer.name in weights:
                w, b = self._fitting(k, weights[layer.name])
                messages += list(self._numbers("WEIGHTS_DATA", k, w.ravel()))
                back = self._back(k, weights).ravel()
                messages += list(self._numbers("WEIGHTS_DATA", k, back, w.size))
                messages += list(self._numbers("BIAS_DATA", k, b))
        crc = 0
        for message in messages:
            crc = zlib.crc32(message, crc)
        self._talk.act("WEIGHTS_BEGIN")
        self.port.send_all(messages)
        self._talk.act("WEIGHTS_COMMIT", crc)
        self._talk.sync()

    def add_weights(self, increments: Quantised) -> None:
        """See Device. Does not wait: a refusal is raised by a later call."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name in increments:
                w, b = self._fitting(k, increments[layer.name])
                self.port.send_all(list(self._numbers("WEIGHTS_ADD", k, w.ravel())))
                back = self._back(k, increments).ravel()
                self.port.send_all(list(self._numbers("WEIGHTS_ADD", k, back, w.size)))
                self.port.send_all(list(self._numbers("BIAS_ADD", k, b)))
                self._talk.acted = True

    def write_times(self, times: Mapping[str, NDArray[np.uint32]]) -> None:
        """See Device. Does not wait: a refusal is raised by a later call."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name in times:
                words = np.ascontiguousarray(times[layer.name], dtype=np.uint32)
                layout = LAYOUTS["TIMES_WRITE"]
                room = max(1, (self.port.largest - layout.overhead) // words[:1].nbytes)
                parts = range(0, words.shape[0], room)
                rows = [(first, words[first : first + room].ravel()) for first in parts]
                packed = [layout.pack(k, first, tail=part.view(np.int32)) for first, part in rows]
                self.port.send_all(packed)
                self._talk.acted = True

    def add_biases(self, increments: Quantised) -> None:
        """See Device. Does not wait: a refusal is raised by a later call."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name in increments:
                _, b = self._fitting(k, increments[layer.name])
                self.port.send_all(list(self._numbers("BIAS_ADD", k, b)))
                self._talk.acted = True

    def read_weights(self) -> Quantised:
        """See Device."""
        asked = []
        for k, size in enumerate(self._sizes_of()):
            count = size * self._shape(k)[1]
            count += math.prod(topology.feedback_shape(self.image.network, k) or (0,))
            asked.append((self._read("WEIGHTS", k, count), self._read("BIAS", k, size)))
        result: Quantised = {}
        for k, (layer, (w, b)) in enumerate(zip(self.image.network.layers, asked, strict=True)):
            n, m = self._shape(k)
            stored = self._collected(w).astype(np.int16)
            own = stored[: n * m].reshape(n, m)
            result[layer.name] = own, self._collected(b).astype(np.int32)
            shape = topology.feedback_shape(self.image.network, k)
            if shape is not None:
                back = stored[n * m :].reshape(shape)
                result[f"{layer.name}.feedback"] = back, np.zeros(0, dtype=np.int32)
        return result

    # --- steps ---------------------------------------------------------------------------

    def reset(self, first: int = 0) -> None:
        """See Device."""
        self._image_or_raise()
        self._talk.act("RESET_STATES", first & 0xFFFFFFFF)

    def cuts(self, steps: int) -> list[int]:
        """How many steps the pieces of a block have on the wire: a digest for each."""
        whole, rest = divmod(steps, self._wire_steps)
        return [self._wire_steps] * whole + ([rest] if rest or not whole else [])

    def answered(self) -> bool:
        """See Device."""
        return self.port.arrived()

    def submit(self, block: Block) -> Pending:
        """See Device."""
        x, y = self._checked(block)
        held = block.target is not None and self.image.network.loss == "cross_entropy"
        answers, first = [], 0
        for steps in self.cuts(x.shape[0]):
            part = slice(first, first + steps)
            answer = BlockAnswer(
                steps, self.batch, len(self._sizes), block.record, self._sizes, block.votes
            )
            data = self._step_bytes(x[part], y if y is None or held else y[part], held)
            self._talk.ask(answer, self._block_messages(block, steps, data))
            answers.append(answer)
            first += steps
        return SerialPending(self._talk, answers)

    def set_rate(self, shift: int) -> None:
        """See Device."""
        self._image_or_raise()
        if not -32 <= shift <= 64:
            raise UsageError(f"learning rate 2**-{shift}: the shift must lie in -32..64")
        self._talk.act("SET_RATE", shift)

    def tamper(self, step: int, layer: int, signal: str, index: int, bit: int) -> None:
        """For proofs: flip a bit of a signal, or of what is stored (`weight`, `bias`), after
        the step with this number; bit 255 disarms."""
        self._image_or_raise()
        self._talk.act("TAMPER", step, layer, FLIPPED.index(signal), index, bit)

    # --- what the chip tells ---------------------------------------------------------------

    def clear_gradient(self, drop: int = 0) -> None:
        """See Device."""
        self._image_or_raise()
        self._talk.act("GRADIENT_CLEAR", drop)

    def read_gradient(self) -> list[Gradient]:
        """See Device."""
        answers = []
        for k, size in enumerate(self._sizes_of()):
            times = self.image.network.layers[k].learn_tau_m
            count = size * (self._shape(k)[1] + 1 + times)
            answer = Numbers("GRADIENT_ARE", count, "GRADIENT_IS")
            self._talk.ask(answer, [pack("GRADIENT_READ", k)])
            answers.append(answer)
        result = []
        for k, answer in enumerate(answers):
            numbers = self._collected([answer]).astype(np.int32)
            n, m = self._shape(k)
            assert answer.head is not None
            fracs = int(answer.head.frac), int(answer.head.bias_frac)
            w, b, tau = np.split(numbers, (n * m, n * m + n))
            result.append(Gradient(w.reshape(n, m), b, *fracs, tau))
        return result

    def digest(self) -> int:
        """See Device."""
        return int(self._digests()[1].digest)

    def stream_digests(self) -> NDArray[np.uint64]:
        """See Device."""
        return self._digests()[0]

    def weights_digest(self) -> int:
        """See Device."""
        return int(self._digests()[1].weights)

    def steps(self) -> int:
        """Steps since the reset."""
        return int(self._digests()[1].steps)

    def counters(self) -> list[dict[str, int]]:
        """See Device."""
        answers = [
            self._ask_numbers("COUNTERS_ARE", len(COUNTERS), "COUNTERS", k)
            for k in range(len(self._sizes_of()))
        ]
        return [dict(zip(COUNTERS, map(int, self._collected([a])), strict=True)) for a in answers]

    def clear_counters(self) -> None:
        """All counters to zero."""
        self._image_or_raise()
        self._talk.act("COUNTERS_CLEAR")

    def formats(self) -> list[Formats]:
        """See Device."""
        answers = []
        for k in range(len(self._sizes_of())):
            answer = One("LAYER_FORMATS_ARE")
            self._talk.ask(answer, [pack("FORMATS", k)])
            answers.append(answer)
        result = []
        for answer in answers:
            self._talk.wait(answer)
            assert answer.message is not None
            by_name = dict(zip(FORMATS, map(int, answer.message.numbers()), strict=True))
            names = ("w", "u", "r", "e", "v", "gradient", "gradient_bias")
            result.append(Formats(*(by_name[f"{name}_frac"] for name in names)))
        return result

    def snapshot(self) -> bytes:
        """See Device."""
        self._image_or_raise()
        answer = Snapshot()
        self._talk.ask(answer, [pack("SNAPSHOT_READ")])
        self._talk.wait(answer)
        return answer.data()

    def restore(self, snapshot: bytes) -> None:
        """See Device."""
        self._image_or_raise()
        self._talk.act("SNAPSHOT_BEGIN", len(snapshot))
        self._send_bytes("SNAPSHOT_DATA", snapshot)
        self._talk.act("SNAPSHOT_COMMIT", zlib.crc32(snapshot))
        self._talk.sync()

    def close(self) -> None:
        """See Device; never waits long. What was not confirmed by then may be lost."""
        self.port.close()
        self._let_go()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; without an error in flight, raise what the last requests still had to say."""
        try:
            if kind is None and self._talk.acted:
                self._talk.sync()
        finally:
            self.close()

    def reset_board(self) -> None:
        """Press the reset button of an emulated board."""
        if self._body is None:
            raise UsageError(f"{self.name}: only emulated boards have a reset that hwgle can press")
        self._body.reset()

    def _let_go(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    # --- pieces ------------------------------------------------------------------------------

    def _image_or_raise(self) -> Image:
        return self.image

    def _sizes_of(self) -> list[int]:
        self._image_or_raise()
        return self._sizes

    def _shape(self, k: int) -> tuple[int, int]:
        return self._sizes[k], self.image.network.fan_in(k)

    def _back(self, k: int, given: Quantised) -> NDArray[np.int16]:
        """Feedback weights of a layer as they are given; none where there are none."""
        name = f"{self.image.network.layers[k].name}.feedback"
        if name not in given:
            return np.zeros(0, dtype=np.int16)
        back = np.ascontiguousarray(given[name][0], dtype=np.int16)
        if back.shape != topology.feedback_shape(self.image.network, k):
            raise UsageError(f"{name}: {back.shape} does not fit")
        return back

    def _fitting(
        self, k: int, given: tuple[NDArray[Any], NDArray[Any]]
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        w = np.ascontiguousarray(given[0], dtype=np.int16)
        b = np.ascontiguousarray(given[1], dtype=np.int32)
        if w.shape != self._shape(k) or b.shape != (self._sizes[k],):
            name = self.image.network.layers[k].name
            raise UsageError(f"{name}: weights {w.shape}, biases {b.shape} do not fit")
        return w, b

    def _send_bytes(self, name: str, data: bytes) -> None:
        """As messages that each say where they belong."""
        most = self.port.largest - LAYOUTS[name].overhead
        at = range(0, len(data), most)
        self.port.send_all([pack(name, k, tail=data[k : k + most]) for k in at])
        self._talk.acted = True

    def _numbers(
        self, name: str, layer: int, numbers: NDArray[Any], first: int = 0
    ) -> Iterator[bytes]:
        layout = LAYOUTS[name]
        most = (self.port.largest - layout.overhead) // numbers.dtype.itemsize
        for k in range(0, numbers.size, most):
            yield layout.pack(layer, first + k, tail=numbers[k : k + most])

    def _read(self, what: str, layer: int, count: int) -> list[Numbers]:
        """Ask for numbers in pieces that fit an answer each."""
        layout = LAYOUTS[f"{what}_ARE"]
        most = (self._answer_bytes() - layout.overhead) // (int(layout.tail[1:]) // 8)
        result = []
        for first in range(0, count, most):
            part = min(most, count - first)
            answer = Numbers(layout.name, part, base=first)
            self._talk.ask(answer, [pack(f"{what}_READ", layer, first, part)])
            result.append(answer)
        return result

    def _answer_bytes(self) -> int:
        """The largest message that the board sends: in its part of the HELLO."""
        return min(int(struct.unpack_from("<IHH", self.hello.data)[1]), PAYLOAD)

    def _ask_numbers(self, name: str, count: int, request: str, layer: int) -> Numbers:
        answer = Numbers(name, count)
        self._talk.ask(answer, [pack(request, layer)])
        return answer

    def _collected(self, answers: list[Numbers]) -> NDArray[Any]:
        for answer in answers:
            self._talk.wait(answer)
        return np.concatenate([answer.numbers() for answer in answers])

    def _digests(self) -> tuple[NDArray[np.uint64], Message]:
        self._image_or_raise()
        answer = Digests(self.batch)
        self._talk.ask(answer, [pack("DIGEST")])
        self._talk.wait(answer)
        assert answer.message is not None
        return answer.streams, answer.message

    def _checked(self, block: Block) -> tuple[NDArray[np.int16], NDArray[np.int16] | None]:
        """Input and target as int16. Raises UsageError for what does not fit the image."""
        x = np.ascontiguousarray(block.input, dtype="<i2")
        network = self.image.network
        if x.ndim != 3 or x.shape[1:] != (self.batch, network.inputs):
            raise UsageError(f"input {x.shape} is not (T, {self.batch}, {network.inputs})")
        for layer, signal in block.record:
            if not 0 <= layer < len(self._sizes) or signal not in SIGNALS:
                raise UsageError(f"cannot record {signal!r} of layer {layer}")
        if block.target is None:
            return x, None
        y = np.ascontiguousarray(block.target, dtype="<i2")
        need: tuple[int, ...] = (self.batch,)
        if network.loss == "mse":
            need = (x.shape[0], self.batch, self._sizes[-1])
        if y.shape != need:
            raise UsageError(f"target {y.shape} is not {need}")
        return x, y

    @staticmethod
    def _step_bytes(x: NDArray[np.int16], y: NDArray[np.int16] | None, held: bool) -> bytes:
        """Steps as they go over the wire: labels first, or input and target of each step."""
        steps = x.shape[0]
        if y is None:
            return x.tobytes()
        if held:
            return y.tobytes() + x.tobytes()
        return np.concatenate([x.reshape(steps, -1), y.reshape(steps, -1)], axis=1).tobytes()

    def _block_messages(self, block: Block, steps: int, data: bytes) -> Iterator[bytes]:
        flags = (
            lib.BLOCK_LEARN * block.learn
            | lib.BLOCK_RANGE * block.ranging
            | lib.BLOCK_TARGET * (block.target is not None)
            | lib.BLOCK_GRADIENT * block.gradient
            | lib.BLOCK_VOTES * block.votes
        )
        pairs = bytes(b for k, s in block.record for b in (k, SIGNALS.index(s)))
        yield pack("BLOCK", steps, flags, tail=pairs)
        most = self.port.largest - LAYOUTS["STEPS"].overhead
        for k in range(0, len(data), most):
            yield pack("STEPS", tail=data[k : k + most])
