"""The battery on every body: see battery.py."""

from __future__ import annotations

import pytest
from battery import Battery

from hwgle.device import Device


class TestEmulator(Battery):
    url = "emu:"


@pytest.mark.board("cc")
class TestHost(Battery):
    url = "host:"


@pytest.mark.board("cc")
class TestSmallHost(Battery):
    """The least payload that a link can have, and little memory, as on the smallest boards."""

    url = "host:?payload=64&window=1&memory=65536"
    cases = 2


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
class TestStm32f405(Battery):
    url = "qemu:stm32f405"
    batch = 1
    cases = 2


@pytest.mark.board("qemu-system-riscv32", "riscv64-unknown-elf-gcc")
class TestHifive1(Battery):
    url = "qemu:hifive1"
    neurons = 6
    batch = 1
    cases = 2


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
class TestStm32vldiscovery(Battery):
    url = "qemu:stm32vldiscovery"
    layers = 2
    neurons = 4
    batch = 1
    cases = 2


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
class TestNucleoF446re(Battery):
    """The processor and the code of the stm32f405: what differs are clocks, pins and UART."""

    url = "qemu:nucleo_f446re"
    batch = 1
    cases = 1

    @pytest.mark.long
    def test_every_imperfection_is_equal(self, device: Device, seed: int) -> None:
        super().test_every_imperfection_is_equal(device, seed)
