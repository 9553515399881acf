"""The scope: what it shows is what the network did, and it fits every terminal."""

from __future__ import annotations

import queue
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_case

from hwgle.chip import Chip
from hwgle.device import Block, Pending
from hwgle.devices.emulator import Emulator
from hwgle.errors import LinkLost
from hwgle.quantise import Image, build_image, quantise_weights
from hwgle.scope import probe as probe_module
from hwgle.scope.feed import Drawn, Given, Piped
from hwgle.scope.picture import draw, save
from hwgle.scope.probe import COUNTED, Probe, View
from hwgle.scope.screen import ASCII, BLOCKS, Look, lines, link_text, number, plain, spark, strip
from hwgle.session import calibrate_on, run
from hwgle.verify.drawing import draw_weights

CASE = random_case(4, layers=3, neurons=20, inputs=3, batch=1, steps=120)


def loaded(chip: str = "ideal8") -> tuple[Emulator, Image, Any]:
    profile = Chip.load(chip)
    scales = calibrate_on(CASE.network, profile, CASE.weights, CASE.x[:, :1], None)
    image = build_image(CASE.network, profile, scales)
    body = Emulator()
    body.load(image, 1, uhat=False)
    body.write_weights(quantise_weights(image, CASE.weights))
    return body, image, scales


def seen(frames: int = 3, steps: int = 25) -> View:
    body, image, _ = loaded()
    probe = Probe(body, image, Drawn(image, 3, False), "emu:", steps)
    for _ in range(frames):
        assert probe.frame()
    return probe.view


def test_traces_and_counters_are_those_of_a_run() -> None:
    body, image, scales = loaded()
    x = CASE.x[:, 0]
    feed = Given(image, x, loop=False)
    probe = Probe(body, image, feed, "emu:", 17)
    while not feed.ended:
        assert probe.frame()
    view = probe.view
    want = run(
        Emulator(), CASE.network, Chip.load("ideal8"), CASE.weights, CASE.x[:, :1],
        scales=scales, record=("u", "r", "e"),
    )  # fmt: skip
    assert view.steps == len(x)
    for (k, signal), _ in view.traces.items():
        name = f"{CASE.network.layers[k].name}.{signal}"
        np.testing.assert_array_equal(view.trace(k, signal), want.signals[name][:, 0])
    np.testing.assert_array_equal(np.array(view.input), x)
    for found, counters in zip(view.counters, want.counters, strict=True):
        for name, which in COUNTED.items():
            if name != "read-outs clipped":  # counts what was looked at
                assert found[name] == sum(counters[c] for c in which)


def test_drawn_targets_drive_errors_and_learning() -> None:
    body, image, scales = loaded()
    image = build_image(image.network, image.chip, scales, learning_rate=0.05, range_every=64)
    body.load(image, 1, uhat=False)
    weights = draw_weights(image.network, np.random.default_rng(1))
    body.write_weights(quantise_weights(image, weights))
    before = body.read_weights()
    probe = Probe(body, image, Drawn(image, 3, True), "emu:", 100)
    for _ in range(4):
        probe.frame()
    assert probe.view.steps == 100 + 100 + 56 + 100  # never across the border of a label
    top = len(image.network.layers) - 1
    assert np.abs(probe.view.trace(top, "e")).max() > 0
    after = body.read_weights()
    assert any(not np.array_equal(before[n][0], after[n][0]) for n in before)


def test_a_slow_body_shows_less_and_then_runs_shorter_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body, image, _ = loaded()
    monkeypatch.setattr(probe_module, "SLOW_SECONDS", 0.0)
    asked: list[tuple[int, bool]] = []
    original = body.submit

    def submit(block: Block) -> Pending:
        asked.append((block.input.shape[0], bool(block.record)))
        return original(block)

    monkeypatch.setattr(body, "submit", submit)
    x = np.tile(CASE.x[:, 0], (20, 1))
    probe = Probe(body, image, Given(image, x, loop=True), "emu:", 40)
    for _ in range(12):
        probe.frame()
    assert asked[:3] == [(40, True), (20, False), (20, True)]
    assert asked[-1] == (4, True)
    assert (40, True) not in asked[1:]
    fixed = Probe(body, image, Given(image, x, True), "emu:", 40, fixed=True)
    asked.clear()
    for _ in range(2):
        fixed.frame()
    assert asked == [(40, True), (40, True)]


def test_pipes_give_what_has_come_and_raise_what_ended_them() -> None:
    _, image, _ = loaded()
    source: Any = queue.Queue()
    feed = Piped(image, source)
    assert feed.next(5) is None
    assert not feed.ended
    rows = CASE.x[:3, 0]
    for row in rows:
        source.put(row)
    source.put(LinkLost("gone"))
    piece = feed.next(5)
    assert piece is not None
    np.testing.assert_array_equal(piece.x, rows)
    with pytest.raises(LinkLost):
        feed.next(5)
    source.put(rows[0])
    source.put(None)
    other = Piped(image, source)
    assert other.next(5) is not None
    assert other.ended


def test_files_end_or_begin_again() -> None:
    _, image, _ = loaded()
    x = CASE.x[:10, 0]
    once, again = Given(image, x, False), Given(image, x, True)
    assert [len(once.next(4).x) for _ in range(3)] == [4, 4, 2]
    assert once.ended
    got = np.concatenate([again.next(4).x for _ in range(6)])
    assert not again.ended
    np.testing.assert_array_equal(got, np.concatenate([x, x]))


@pytest.mark.parametrize("blocks", [BLOCKS, ASCII])
def test_every_terminal_is_fitted(blocks: str) -> None:
    view = seen()
    view.link = dict.fromkeys(
        ("bad_cobs", "bad_crc", "too_long", "too_short", "bad_type", "retransmitted", "timeouts"), 3
    ) | {"srtt": 12}  # fmt: skip
    for width in (1, 10, 24, 40, 79, 80, 81, 132, 300):
        for height in (1, 3, 8, 12, 24, 60):
            look = Look(width, height, blocks, neuron=7)
            text = lines(view, look)
            assert len(text) <= height
            assert all(len(line) <= width for line in text)
            assert all(c.isascii() or c in blocks for line in text for c in line)
    whole = "\n".join(lines(view, Look(120, 60, blocks)))
    for layer in CASE.network.layers:
        assert f"{layer.name}  {layer.phi} {layer.size}" in whole
    assert f"step {view.steps:,}" in whole
    assert "round trip 12 ms, sent again 3, damaged 15, time-outs 3" in whole
    assert "HELD" in lines(view, Look(held=True))[0]


def test_numbers_on_the_screen_are_the_values() -> None:
    view = seen()
    text = lines(view, Look(100, 60, neuron=1))
    first = CASE.network.layers[0]
    at = next(i for i, line in enumerate(text) if line.startswith(f"{first.name}  {first.phi}"))
    values = view.trace(0, "r")
    assert number(float(values[-1, 1 % values.shape[1]])).strip() in text[at + 2]
    assert "no line" in link_text(view)
    said = plain(view)
    rms = np.sqrt(np.mean(values**2))
    assert f"{first.name}: rms u " in said
    assert f"r {rms:.4g}" in said


def test_sparks_rise_with_values_and_strips_with_sizes() -> None:
    assert spark(np.arange(8.0), 8, BLOCKS) == "▁▂▃▄▅▆▇█"
    assert spark(np.arange(3.0), 5, BLOCKS) == "  ▁▄█"
    assert spark(np.zeros(3), 3, BLOCKS) == "▁▁▁"
    assert spark(np.zeros(0), 3, BLOCKS) == "   "
    assert spark(np.arange(100.0), 4, BLOCKS)[-1] == "█"
    assert strip(np.array([0.0, -1.0, 0.5, 0.01]), 6, BLOCKS) == " █▄▁  "
    assert strip(np.array([0.0, 1.0, 0.0, 0.5]), 2, BLOCKS) == "█▄"  # neighbours by their largest
    assert strip(np.zeros(3), 3, BLOCKS) == "   "
    for value in (0.0, 1.5, -123.456, 1e-5, 12345678.9, -1e-30):
        assert len(number(value)) == 8


def test_pictures_are_the_same_bytes_for_the_same_run(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png"):
        save(draw(seen()), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    figure = draw(seen())
    layers = CASE.network.layers
    assert len(figure.axes) == 1 + 3 * len(layers)
    titles = [axes.get_title(loc="left") for axes in figure.axes[1:4]]
    assert titles == [f"{layers[0].name}: {w}" for w in ("membrane u", "rate r", "error e")]
    drawn = figure.axes[2].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(drawn, seen().trace(0, "r")[:, 0])


def test_a_view_without_records_can_be_drawn() -> None:
    body, image, _ = loaded()
    probe = Probe(body, image, Drawn(image, 0, False), "emu:", 10)
    assert lines(probe.view, Look())
    assert lines(replace(probe.view, counters=[]), Look())
