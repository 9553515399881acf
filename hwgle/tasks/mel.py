"""Sound as mel bands, a frame per step.

A frame is the power spectrum of a Hann window; a band the sum of it under a triangle. The
triangles stand at equal distances on the mel scale, 2595 log10(1 + f / 700) (O'Shaughnessy,
Speech Communication, 1987), from the lowest frequency to half the sampling rate, each
reaching from the centre of the one before to that of the one behind, with 1 at its own. What
a network gets is the logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LOWEST = 20.0  # Hz
FLOOR = 1e-7  # power under which all is silence: -70 dB below full scale


@dataclass(frozen=True)
class Mel:
    """rate: samples per second that sounds are brought to. bands. window, hop: milliseconds of
    a frame and between two. seconds: to which sounds are cut, or filled with silence."""

    rate: int
    bands: int
    window: float
    hop: float
    seconds: float

    @property
    def length(self) -> int:
        """Samples of a sound."""
        return round(self.seconds * self.rate)

    @property
    def window_length(self) -> int:
        """Samples of a frame."""
        return max(2, round(self.window * self.rate / 1000))

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return max(1, round(self.hop * self.rate / 1000))

    @property
    def frames(self) -> int:
        """Of a sound; 0 if it is shorter than a window."""
        return max(0, 1 + (self.length - self.window_length) // self.hop_length)

    @property
    def bins(self) -> int:
        """Length of the Fourier transform: the next power of two."""
        return 1 << (self.window_length - 1).bit_length()

    @cached_property
    def filters(self) -> NDArray[np.float64]:
        """Weights (bands, bins / 2 + 1) of the triangles."""
        frequency = np.fft.rfftfreq(self.bins, 1 / self.rate)
        ends = np.linspace(to_mel(LOWEST), to_mel(self.rate / 2), self.bands + 2)
        edges = 700.0 * (10.0 ** (ends / 2595.0) - 1.0)
        low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        rising = (frequency - low) / (centre - low)
        falling = (high - frequency) / (high - centre)
        weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
        return weights

    def features(self, sound: NDArray[np.float64], rate: int) -> NDArray[np.float32]:
        """Logarithm (natural) of the power in each band, (frames, bands); sound in -1..1."""
        # Imported late: half a second.
        from scipy import signal

        if rate != self.rate:
            common = gcd(rate, self.rate)
            sound = signal.resample_poly(sound, self.rate // common, rate // common)
        sound = sound[: self.length]
        sound = np.pad(sound, (0, self.length - len(sound)))
        _, _, spectrum = signal.stft(
            sound,
            self.rate,
            window="hann",
            nperseg=self.window_length,
            noverlap=self.window_length - self.hop_length,
            nfft=self.bins,
            boundary=None,
            padded=False,
        )
        power = np.square(np.abs(spectrum)).T @ self.filters.T
        return np.asarray(np.log(power + FLOOR), dtype=np.float32)


def to_mel(frequency: float) -> float:
    """Hz as mel."""
    return float(2595.0 * np.log10(1.0 + frequency / 700.0))


def read_wav(path: Path) -> tuple[NDArray[np.float64], int]:
    """A sound in -1..1, channels averaged, and its samples per second.

    Raises:
        ValueError: it is no sound, or an empty one.
    """
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of other programs
            rate, data = wavfile.read(path)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # a damaged file can fail in every way
        raise ValueError(f"no sound ({error or type(error).__name__})") from error
    if rate < 1 or data.size == 0:
        raise ValueError("an empty sound" if rate >= 1 else f"{rate} samples per second")
    sound = data.astype(np.float64)
    if data.dtype.kind == "u":
        sound = (sound - 128.0) / 128.0
    elif data.dtype.kind == "i":
        sound /= 2.0 ** (8 * data.dtype.itemsize - 1)
    if not np.isfinite(sound).all():
        raise ValueError("a sample that is not finite")
    return (sound.mean(axis=1) if sound.ndim == 2 else sound), int(rate)
