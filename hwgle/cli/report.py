"""`hwgle report`: what fixed point, converters, mismatch and noise cost, as a page and as JSON."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import click
import yaml

from hwgle import topology
from hwgle.accuracy_report import compare as compare_
from hwgle.accuracy_report import limits as limits_
from hwgle.accuracy_report import page, terminal
from hwgle.accuracy_report.folder import replacing_folder
from hwgle.accuracy_report.made import file_hash
from hwgle.accuracy_report.report import FORMAT, Advised, Inputs, Sizes, build
from hwgle.arrays import save_npz_atomic
from hwgle.chip import Chip
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable_folder
from hwgle.cli.progress import Bar
from hwgle.cli.train import load_task
from hwgle.devices import open_device
from hwgle.errors import FileMistakes, Mistake, NotEqual, UsageError
from hwgle.experiment import Experiment
from hwgle.identity import draw
from hwgle.tasks import Task
from hwgle.weights import with_times

SAMPLES = 1000


@click.command()
@click.argument("experiment", metavar="[EXPERIMENT]", required=False)
@click.option(
    "--weights", type=options.FILE, metavar="W.npz",
    help="Weights of the network.  [default: the zoo's, for its networks]",
)  # fmt: skip
@click.option(
    "--chip", "chips", multiple=True, metavar="NAME|FILE[:SEED]",
    help="A chip; may be said again.  [default: the experiment's]",
)  # fmt: skip
@click.option(
    "--device", "devices", multiple=True, default=("emu:",), metavar="URL",
    help="A body to compare with the emulator; may be said again.  [default: emu:]",
)  # fmt: skip
@options.baud
@click.option("--samples", type=click.IntRange(20, 10**6), default=SAMPLES, show_default=True,
              help="Of the test split, to classify.")  # fmt: skip
@click.option("--limits", "limits_file", type=options.FILE, metavar="FILE",
              help="Limits on its numbers (hwgle/limits/1); exit 1 when one breaks.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              help="Which samples are taken for budget, formats and learning.")  # fmt: skip
@click.option("--compare", nargs=2, type=options.FILE, metavar="A B",
              help="Instead: two reports (folders or report.json) side by side.")  # fmt: skip
@click.option("--out", type=options.FILE, metavar="DIR", help="Folder for the report.")
def command(
    experiment: str | None,
    weights: Path | None,
    chips: tuple[str, ...],
    devices: tuple[str, ...],
    baud: int | None,
    samples: int,
    limits_file: Path | None,
    seed: int,
    compare: tuple[Path, Path] | None,
    out: Path | None,
) -> None:
    """What each stage of a chip costs EXPERIMENT, as report.html, report.json and a table.

    Error budget from float64 to the board, ranges and better formats, what a bit more or
    fewer would do, updates and plasticity, accuracy and confusions, bodies. Exit code 1 when
    a limit is broken or a body differs from the emulator; the report is written all the same.
    """
    if out is not None and (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    if compare:
        if experiment is not None:
            raise UsageError("--compare takes two reports and no EXPERIMENT")
        _compare(compare, out)
        return
    if experiment is None or out is None:
        raise UsageError("name an EXPERIMENT and --out DIR, or say --compare A B")
    inputs = _read(experiment, weights, chips, limits_file, devices, baud)
    inputs.sizes = Sizes(samples=samples, seed=seed)
    with Bar("report") as bar:

        def progress(what: str, share: float) -> None:
            bar.label = what
            bar.update(share, 1.0)

        report, advised = build(inputs, progress)
        bar.label = "drawing"
        with replacing_folder(out) as folder:
            _write(folder, report, advised, inputs)
    click.echo(terminal.text(report))
    click.echo(f"\nwritten: {out}/report.html, report.json")
    _judge(report)


def _read(
    experiment: str, weights: Path | None, specs: tuple[str, ...], limits_file: Path | None,
    devices: tuple[str, ...], baud: int | None,
) -> Inputs:
    """All files, their mistakes at once; then whether the devices are there; then the data."""
    files = Files()
    chips = [files.chip(spec) for spec in specs]
    ex = files.read(lambda: Experiment.load(experiment))
    network = None if ex is None else ex.load_network()
    if weights is None and ex is not None and network is not None:
        shipped = Path(str(resources.files("hwgle.zoo").joinpath(f"weights/{network.name}.npz")))
        if not shipped.is_file():
            raise UsageError(f"--weights W.npz: needed, there are none for {network.name!r}")
        weights = shipped
    w = None if weights is None else files.weights(weights, network)
    layers = [] if network is None else [layer.name for layer in network.layers]
    found = None
    if limits_file is not None and network is not None:
        found = files.read(lambda: limits_.load(limits_file, layers))
    files.check()
    assert ex is not None
    assert network is not None
    assert w is not None
    assert weights is not None
    network = with_times(network, w)
    plain = topology.is_chain(network) and topology.feedback_kind(network) == "transposed"
    if not plain:
        raise UsageError(
            f"{network.name}: a report follows errors through a chain with transposed feedback; "
            "skips, recurrent layers and other feedback are not reported on yet"
        )
    built = [c for c in chips if c is not None] or [ex.load_chip()]
    for chip in built:
        draw(chip, network)  # a twin of another network is refused now
    hashes = {str(weights): file_hash(weights)}
    if limits_file is not None:
        hashes[str(limits_file)] = file_hash(limits_file)
    for url in devices:
        open_device(url, shadow=False, baud=baud).close()
    with Bar("reading the data") as bar:
        task = load_task(ex, bar)
    if not isinstance(task, Task):
        raise UsageError(f"{ex.name}: a report needs a task of labelled samples")
    return Inputs(
        ex, network, w, built, task,
        limits=None if found is None else found[1], files=hashes,
        devices=list(devices), baud=baud,
    )  # fmt: skip


def _write(folder: Path, report: dict[str, Any], advised: list[Advised], inputs: Inputs) -> None:
    text = json.dumps(report, indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page.render(report), encoding="utf-8")
    if report["limits"] is not None:
        xml = limits_.junit(report["limits"]["results"], report["experiment"])
        (folder / "junit.xml").write_text(xml, encoding="utf-8")
    for k, advice in enumerate(advised):
        if advice.scales is not None:
            save_npz_atomic(folder / f"scales-{k}.npz", {"scales": advice.scales.to_array()})
        if advice.narrower is not None:
            _write_profile(folder / f"narrower-{k}.yaml", advice.narrower)


def _write_profile(path: Path, chip: Chip) -> None:
    data = {**chip.profile.model_dump(mode="json"), "name": f"{chip.name[:55]}-narrower"}
    head = f"# {chip.name} with the widths that hwgle report found to do as well.\n"
    body = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
    path.write_text(head + body, encoding="utf-8")


def _judge(report: dict[str, Any]) -> None:
    if report["verdict"]["passed"] is not False:
        return
    raise NotEqual(report["verdict"]["text"])  # which limits is in the table above


# --- two reports -------------------------------------------------------------------------------


def _compare(which: tuple[Path, Path], out: Path | None) -> None:
    files = Files()
    both = [files.read(lambda path=path: load_report(path)) for path in which]  # type: ignore[misc]
    files.check()
    a, b = both
    assert a is not None
    assert b is not None
    found = compare_.compare(a, b)
    if out is not None:
        with replacing_folder(out) as folder:
            text = compare_.render(a, b, (str(which[0]), str(which[1])))
            (folder / "compare.html").write_text(text, encoding="utf-8")
    click.echo(terminal.compared_text(found))
    if out is not None:
        click.echo(f"\nwritten: {out}/compare.html")


def load_report(path: Path) -> dict[str, Any]:
    """A report.json, or the one in a folder.

    Raises:
        FileMistakes: there is none, or it is no report of this format.
    """
    file = path / "report.json" if path.is_dir() else path
    allowed = f"a report.json of format {FORMAT}"
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        found = error.strerror or str(error)
        raise FileMistakes([Mistake(str(file), None, "", found, allowed)]) from None
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise FileMistakes([Mistake(str(file), line, "", f"no JSON ({error})", allowed)]) from None
    kind = report.get("format") if isinstance(report, dict) else None
    if kind != FORMAT:
        raise FileMistakes([Mistake(str(file), None, "format", repr(kind), FORMAT)])
    if missing := [k for k in ("verdict", "network", "chips", "made") if k not in report]:
        found = f"no {', '.join(missing)}"
        raise FileMistakes([Mistake(str(file), None, "", found, "a whole report")])
    found_report: dict[str, Any] = report
    return found_report
