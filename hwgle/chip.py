"""A chip: a profile (YAML, `hwgle/chip/1`) plus a seed, which is one identity.

All fixed-point formats are signed with a symmetric full scale of
2**(bits-1) - 1 least significant bits, so that negation never saturates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hwgle.errors import FileMistakes, Mistake
from hwgle.yamlfile import Checked, Rule, Where, find, read, show, validate

MIN_BITS = 2
# 32 products of two 14-bit factors fit an int32 for certain: 32 * 8191**2 < 2**31.
MAX_BITS = 14
MAX_STORED_BITS = 16
MAX_SEED = 2**63 - 1

Bits = Annotated[int, Field(ge=MIN_BITS, le=MAX_BITS)]


class Format(Checked):
    """A signed fixed-point signal of `bits` bits, sign included."""

    bits: Bits


class Weight(Checked):
    """Weights: `stored_bits` are held and learned, the array sees the upper `bits`."""

    bits: Bits
    stored_bits: int = Field(ge=MIN_BITS, le=MAX_STORED_BITS)


class Plasticity(Checked):
    """How an update is rounded to the resolution of the stored weight.

    learning_rate: of plain on-chip SGD where nobody says another; the chip shifts, so it
    uses the nearest power of two of rate / streams.
    """

    rounding: Literal["stochastic", "nearest"] = "stochastic"
    learning_rate: float = Field(default=2.0**-10, gt=0, le=16)


class Profile(Checked):
    """The design that all chips of one kind share: what a chip's YAML file says."""

    format: Literal["hwgle/chip/1"]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="a name of letters, digits, _ . and -, at most 64 long",
    )
    weight: Weight
    rate: Format
    input: Format
    error: Format
    plasticity: Plasticity = Plasticity()

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """The array cannot see more bits than are stored."""
        weight = data.get("weight")
        if not isinstance(weight, Mapping):
            return
        bits, stored = weight.get("bits"), weight.get("stored_bits")
        if type(bits) is int and type(stored) is int and stored < bits:
            allowed = f"from bits = {bits} to {MAX_STORED_BITS}"
            yield Rule(("weight", "stored_bits"), str(stored), allowed)


class Chip(Profile):
    """One chip: a profile and the seed from which everything individual is drawn."""

    seed: int = Field(0, ge=0, le=MAX_SEED)

    @classmethod
    def load(cls, spec: str, *, base: Path | None = None, where: Where | None = None) -> Chip:
        """Read `NAME|FILE[:SEED]`; a relative path starts at `base`.

        Raises:
            FileMistakes: all mistakes of the profile, no such file or name, or a
                seed that is no whole number from 0 to 2**63 - 1.
        """
        name, text = split_seed(os.fspath(spec))
        mistakes: list[Mistake] = []
        seed = 0
        if text is not None:
            if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_SEED:
                seed = int(text)
            else:
                at = where or Where(spec, None, "seed")
                allowed = f"a whole number from 0 to {MAX_SEED} after the colon"
                mistakes.append(Mistake(*at, show(text), allowed))
        try:
            profile = validate(Profile, read(find("chips", name, base=base, where=where)))
        except FileMistakes as error:
            raise FileMistakes([*mistakes, *error.mistakes]) from None
        if mistakes:
            raise FileMistakes(mistakes)
        return cls.model_validate({**profile.model_dump(), "seed": seed})

    @property
    def weight_max(self) -> int:
        """Largest |weight| that the array sees, in its LSB."""
        return full_scale(self.weight.bits)

    @property
    def stored_max(self) -> int:
        """Largest |weight| that is stored, in the (finer) LSB of storage: what the array
        sees of it is exactly its own full scale."""
        return self.weight_max << (self.weight.stored_bits - self.weight.bits)

    @property
    def rate_max(self) -> int:
        """Largest |rate|, in LSB."""
        return full_scale(self.rate.bits)

    @property
    def input_max(self) -> int:
        """Largest |input|, in LSB of the input DAC."""
        return full_scale(self.input.bits)

    @property
    def error_max(self) -> int:
        """Largest |error|, in LSB."""
        return full_scale(self.error.bits)


def full_scale(bits: int) -> int:
    """Symmetric full scale of a signed format of `bits` bits: 2**(bits-1) - 1."""
    return (1 << (bits - 1)) - 1


def split_seed(spec: str) -> tuple[str, str | None]:
    """`NAME|FILE[:SEED]` as (name, text of the seed); the colon of `C:\\x` is no seed."""
    name, colon, seed = spec.rpartition(":")
    if not colon or not name or "/" in seed or "\\" in seed:
        return spec, None
    return name, seed
