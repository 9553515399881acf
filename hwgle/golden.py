"""Golden networks: small ones with everything that decides their bits, and recorded digests.

A body that gives these digests computes as hwgle did when they were recorded; so does the
emulator itself, which is what `arithmetic` is made of. They fit the smallest board. Each is
three files in hwgle/zoo/golden: NAME.yaml (the network), NAME-chip.yaml (the identity of a
chip) and NAME.npz (stored weights, formats, inputs and targets, all in the chip's integers);
digests.json says how they are run and what must come out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.device import SIGNALS, Block, Device
from hwgle.devices.emulator import Emulator
from hwgle.errors import NotEqual, UsageError
from hwgle.network import Network
from hwgle.quantise import Image, Quantised, Scales, build_image, to_float
from hwgle.session import calibrate_on, weights_from

RANGE_EVERY = 16  # steps between two looks of the auto-ranging, of those that learn


@dataclass(frozen=True)
class Trace:
    """Everything that a run did, as integers.

    signals: `<layer>.<signal>` -> (T, B, n), in the order of the layers; formats (T, layers, 2)
    of r and e; digest over all states of all steps and all weights.
    """

    signals: dict[str, NDArray[np.int32]]
    formats: NDArray[np.int8]
    digest: int


@dataclass(frozen=True, eq=False)
class Golden:
    """A network with its chip, weights and run. digest: what every body must give."""

    name: str
    about: str
    network: Network
    image: Image
    stored: Quantised
    block: Block
    digest: int

    @property
    def batch(self) -> int:
        """Streams."""
        return int(self.block.input.shape[1])

    def run(self, device: Device) -> Trace:
        """All of it on a body, with every signal that the body can record."""
        uhat = device.limits.uhat
        device.load(self.image, self.batch, uhat=uhat)
        device.write_weights(self.stored)
        wanted = [s for s in SIGNALS if uhat or s != "uhat"]
        pairs = [(k, s) for k in range(len(self.network.layers)) for s in wanted]
        b = self.block
        block = Block(b.input, b.target, learn=b.learn, ranging=b.ranging, record=pairs)
        records = device.run(block)
        assert records.fracs is not None
        names = [f"{self.network.layers[k].name}.{s}" for k, s in pairs]
        signals = dict(zip(names, records.signals, strict=True))
        return Trace(signals, records.fracs, device.digest())

    def expected(self) -> Trace:
        """The same on the emulator."""
        with Emulator() as emulator:
            return self.run(emulator)

    def check(self, device: Device) -> Trace:
        """Run on a body and hold its digest against the recorded one.

        Raises NotEqual, which says whether the emulator of this hwgle still gives it.
        """
        trace = self.run(device)
        if trace.digest != self.digest:
            same = self.expected().digest == self.digest
            whose = "the emulator gives the recorded one" if same else "nor does the emulator"
            raise NotEqual(
                f"golden network {self.name}: digest {trace.digest:016x}, recorded "
                f"{self.digest:016x}; {whose}"
            )
        return trace


def _folder() -> Path:
    return Path(str(resources.files("hwgle") / "zoo" / "golden"))


def golden_names() -> list[str]:
    """Names of all golden networks, sorted."""
    return sorted(json.loads((_folder() / "digests.json").read_text()))


@lru_cache(maxsize=32)
def load_golden(name: str) -> Golden:
    """A golden network by name.

    Raises UsageError for a name that is none, FileMistakes for damaged files.
    """
    told = json.loads((_folder() / "digests.json").read_text())
    if name not in told:
        raise UsageError(f"no golden network {name!r}; there are {', '.join(sorted(told))}")
    own = told[name]
    network = Network.load(str(_folder() / f"{name}.yaml"))
    chip = Chip.load(str(_folder() / f"{name}-chip.yaml"))
    with np.load(_folder() / f"{name}.npz", allow_pickle=False) as arrays:
        scales = Scales.from_array(arrays["scales"])
        stored: Quantised = {
            layer.name: (arrays[f"{layer.name}.weight"], arrays[f"{layer.name}.bias"])
            for layer in network.layers
        }
        x, y = arrays["input"], arrays["target"]
    learn = own["learning_rate"] > 0
    image = build_image(
        network,
        chip,
        scales,
        batch=x.shape[1],
        learning_rate=own["learning_rate"],
        range_every=RANGE_EVERY if learn else 0,
    )
    block = Block(x, y, learn=learn, ranging=learn)
    return Golden(name, own["about"], network, image, stored, block, int(own["digest"], 16))


@lru_cache(maxsize=1)
def arithmetic() -> str:
    """The version of the arithmetic: a hash of what this machine's emulator makes of all
    golden networks, and of the scales that calibration chooses for them. Results of two
    versions must never be mixed."""
    digest = hashlib.sha256()
    for name in golden_names():
        golden = load_golden(name)
        digest.update(f"{name} {golden.expected().digest:016x}\n".encode())
        digest.update(_calibrated(golden).astype("<i8").tobytes())
    return digest.hexdigest()


def _calibrated(golden: Golden) -> NDArray[np.int64]:
    """The scales that calibration finds from the golden run itself, in network units."""
    image, block = golden.image, golden.block
    with Emulator() as emulator:
        emulator.load(image, golden.batch)
        weights = weights_from(image, golden.stored, emulator.formats())
    x = to_float(block.input, image.scales.input)
    target: NDArray[Any] | None = block.target
    if golden.network.loss == "mse" and block.target is not None:
        target = to_float(block.target, image.scales.target)
    return calibrate_on(golden.network, image.chip, weights, x, target).to_array()
