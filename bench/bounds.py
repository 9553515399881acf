"""What bounds a step, from its profile: its stages beside what they need at the least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FLAT = 1.25  # time for each multiply-accumulate of a line that is to be flat, most over least


@dataclass(frozen=True)
class Profile:
    """us: of a step, by stage; step: all of it; least: what its instructions need at the least, by
    stage; memory: what its weights do; allowed: by what is asked, nothing where nothing is.
    macs: multiply-accumulates of a step."""

    network: str
    batch: int
    work: str
    us: Mapping[str, float]
    step: float
    least: Mapping[str, float]
    memory: float
    allowed: Mapping[str, float]
    macs: float

    @property
    def needs(self) -> float:
        """At the least: memory may work all along while instructions are executed."""
        return max(sum(self.least.values()), self.memory)


def table(profiles: Sequence[Profile], stages: Sequence[str]) -> str:
    """Microseconds of a step / at the least."""
    head = ["network", "batch", "step", "all", *stages, "memory", "allowed"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for p in profiles:
        most = ", ".join(f"{us:.3g} ({asked})" for asked, us in p.allowed.items())
        cells = [f"{p.step:.3g} / {p.needs:.3g}"]
        cells += [f"{p.us.get(s, 0.0):.3g} / {p.least.get(s, 0.0):.3g}" for s in stages]
        cells = ["" if cell == "0 / 0" else cell for cell in cells]
        cells = [p.network, str(p.batch), p.work, *cells, f"{p.memory:.3g}", most]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def largest(by: Mapping[str, float]) -> str:
    """The three largest."""
    most = sorted(by, key=lambda stage: -by[stage])[:3]
    return ", ".join(f"{stage} {by[stage]:.3g}" for stage in most)


def verdict(p: Profile, asked: str) -> str | None:
    """What bounds a step that takes longer than what is asked allows; None for one that does
    not."""
    most = p.allowed[asked]
    if p.step <= most:
        return None
    name = (
        f"- {p.network}, batch {p.batch}, {p.work}: {p.step:.3g} us, allowed {most:.3g} ({asked})"
    )
    if p.needs > most:
        return (
            f"{name}. At the least its instructions need {sum(p.least.values()):.3g} "
            f"({largest(p.least)}), its weights {p.memory:.3g}: these kernels cannot get there."
        )
    over = {stage: p.us[stage] - p.least.get(stage, 0.0) for stage in p.us}
    return (
        f"{name}. At the least it needs {p.needs:.3g}, which does not rule it out; above that "
        f"are {largest(over)}."
    )


def grown(first: Profile, last: Profile) -> str:
    """Whether a line is flat, and what bounds it."""
    ends = sorted((first, last), key=lambda p: p.step / p.macs)
    cheap, dear = (1e3 * p.step / p.macs for p in ends)
    need = [1e3 * p.needs / p.macs for p in ends]
    stages = {
        stage: 1e3 * (ends[1].us[stage] / ends[1].macs - ends[0].us[stage] / ends[0].macs)
        for stage in ends[0].us
    }
    return (
        f"- {ends[0].network} to {ends[1].network}, batch {first.batch}: {cheap:.3g} to {dear:.3g} "
        f"ns for each multiply-accumulate, {dear / cheap:.2f} times, allowed {FLAT}. At the least "
        f"{need[0]:.3g} to {need[1]:.3g}, {need[1] / need[0]:.2f} times; what grows most is "
        f"{largest(stages)}."
    )


def verdicts(profiles: Sequence[Profile], lines: Sequence[tuple[Profile, Profile]] = ()) -> str:
    """Of all that take longer than allowed; and of lines that are to be flat."""
    found = [said for p in profiles for a in p.allowed if (said := verdict(p, a)) is not None]
    found = found or ["Every step takes what is allowed, or less."]
    return "\n".join([*found, *(grown(*ends) for ends in lines)])
