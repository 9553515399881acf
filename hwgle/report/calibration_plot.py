"""A picture of a calibration: curves as measured with their fits, and all estimates."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hwgle.activation import phi
from hwgle.chip import Profile
from hwgle.measuring import Calibration
from hwgle.measuring.calibration import Curve
from hwgle.measuring.observable import spread
from hwgle.report.plots import CHIP, COLOURS, FLOAT, GREY, STYLE

CURVES = 3  # layers
NEURONS = 3  # of each: the lowest, a middle and the highest offset
# estimate -> title, what it is by design
PANELS = {
    "gain": ("gain, activation and read-out", 1.0),
    "offset": ("offset (network units)", 0.0),
    "readout_offset": ("read-out's offset (LSB)", 0.0),
    "tau_m": ("tau_m, factor", 1.0),
    "tau_r": ("tau_r, factor", 1.0),
    "synapse": ("synapses, factor", 1.0),
}
WIDTH, LEFT, RIGHT, GAP = 9.6, 0.7, 0.25, 0.65
TOP, UPPER, OFF, BETWEEN, LOWER, SLIT, BOTTOM = 1.0, 1.9, 1.2, 1.0, 1.3, 0.75, 0.6


def picture(calibration: Calibration, profile: Profile, title: str) -> Figure:
    """Upper rows: some layers' curves. Below: histograms, the data sheet's spread as a line."""
    names = [name for name in PANELS if spread(profile, name) > 0]
    if profile.leak.tracks and "tau_r" in names:
        names.remove("tau_r")
    rows = -(-max(len(names), 1) // CURVES)
    height = TOP + UPPER + OFF + BETWEEN + rows * (LOWER + SLIT) - SLIT + BOTTOM
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasAgg(figure)
        figure.text(LEFT / WIDTH, 1 - 0.35 / height, title, fontsize=12.5, weight="bold")
        what = "points: as read; lines: fit; grey: as designed. Below: all estimates, "
        what += "dashed: the data sheet's spread"
        figure.text(LEFT / WIDTH, 1 - 0.6 / height, what, color=GREY)

        def place(column: int, top: float, h: float) -> Axes:
            each = (WIDTH - LEFT - RIGHT - (CURVES - 1) * GAP) / CURVES
            left = LEFT + column * (each + GAP)
            return figure.add_axes((left / WIDTH, 1 - (top + h) / height, each / WIDTH, h / height))

        shown = np.unique(np.linspace(0, len(calibration.curves) - 1, CURVES).round().astype(int))
        for column, k in enumerate(shown):
            axes, below = place(column, TOP, UPPER), place(column, TOP + UPPER + 0.1, OFF - 0.1)
            _curves(axes, below, calibration.curves[k])
            axes.set_title(f"{calibration.names[k]}: {calibration.curves[k].phi}")
            if column == 0:
                axes.set_ylabel("rate as read")
                below.set_ylabel("off design (LSB)")
        for i, name in enumerate(names):
            top = TOP + UPPER + OFF + BETWEEN + i // CURVES * (LOWER + SLIT)
            _histogram(place(i % CURVES, top, LOWER), calibration, profile, name)
    return figure


def _curves(axes: Axes, below: Axes, curve: Curve) -> None:
    """Above the curves, below what they are off the design, in LSB of the ADC."""
    alive = np.flatnonzero(curve.fit[:, 0] > 0)
    grid = np.linspace(curve.membrane.min(), curve.membrane.max(), 200)
    axes.plot(grid, phi(curve.phi, grid), color="#b8b8b8", lw=2.5)
    order = alive[np.argsort(curve.fit[alive, 1])]
    places = np.linspace(0, max(order.size - 1, 0), NEURONS).round().astype(int)
    for colour, i in zip(COLOURS, order[np.unique(places)] if order.size else [], strict=False):
        gain, offset, readout = curve.fit[i]
        fitted = gain * phi(curve.phi, grid + offset) + readout * curve.lsb
        axes.plot(grid, fitted, color=colour, lw=1)
        u, r = curve.membrane[1:, i], curve.rate[1:, i]
        axes.plot(u, r, ".", color=colour, ms=3.5, label=f"neuron {i}")
        below.plot(grid, (fitted - phi(curve.phi, grid)) / curve.lsb, color=colour, lw=1)
        below.plot(u, (r - phi(curve.phi, u)) / curve.lsb, ".", color=colour, ms=3.5)
    below.axhline(0.0, color="#b8b8b8", lw=1.5, zorder=0)
    axes.tick_params(labelbottom=False)
    below.set_xlabel("prospective membrane")
    if order.size:
        axes.legend(fontsize=7.5, handlelength=0.8, loc="upper left")


def _values(calibration: Calibration, name: str) -> NDArray[np.float64]:
    parts = []
    for own in calibration.layers:
        estimate = getattr(own, name)
        if estimate is None:
            continue
        living = estimate.value[~own.dead]
        parts.append(living[np.isfinite(living)].ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _histogram(axes: Axes, calibration: Calibration, profile: Profile, name: str) -> None:
    title, middle = PANELS[name]
    values, sd = _values(calibration, name), spread(profile, name)
    reach = max(3.5 * sd, float(np.abs(values - middle).max(initial=0.0)))
    bins = np.linspace(middle - reach, middle + reach, 41)
    axes.hist(values, bins=list(bins), color=CHIP, alpha=0.75)
    width = float(bins[1] - bins[0])
    density = np.exp(-0.5 * ((bins - middle) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    axes.plot(bins, density * values.size * width, color=FLOAT, lw=1.2, ls="--")
    axes.set_title(title)
    axes.locator_params(axis="x", nbins=5)
