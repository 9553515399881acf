"""Half a minute of the soak; soak.py runs as long as it is told to."""

from __future__ import annotations

import pytest
import soak


@pytest.mark.long
@pytest.mark.board("cc")
def test_half_a_minute_of_flipped_bits_and_resets(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak.resuming, "KEEP_SHARE", soak.KEEP_SHARE)  # soak sets it
    monkeypatch.setattr(soak, "FRAMES_TO_RESET", (300, 900))
    samples = soak.soak(30.0, 1e-5, seed, every=3.0)
    soak.flat(samples)
    assert len(samples) == 10
    assert 1 <= samples[-1].resumed <= samples[-1].resets
