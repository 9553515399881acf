"""`hwgle report` as a person starts it: its files agree, name what is planted, and judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from hwgle.accuracy_report import numbers, paths
from hwgle.accuracy_report.report import Inputs, Sizes, build
from hwgle.accuracy_report.schema import schema
from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.experiment import Experiment
from hwgle.identity import draw
from hwgle.tasks import TASKS
from hwgle.weights import save
from tests.reports import small

ZOO = Path(__file__).parents[2] / "hwgle" / "zoo" / "weights"
PATIENCE = 300.0  # seconds for a command to get going on a machine that is busy
LIMITS = """\
format: hwgle/limits/1
limits:
  - {path: "chips[*].budget.output.sqnr", min: 200, why: "no chip is that good"}
  - {path: "chips[0].task.samples", min: 40, max: 40}
"""


@dataclass
class Made:
    """One report in its folder, and what the terminal was told."""

    folder: Path
    report: dict[str, Any]
    page: str
    result: Result


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, ["report", *args])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A chip with everything on and a limit that it breaks."""
    where = tmp_path_factory.mktemp("report")
    experiment, _, weights = small(where)
    save(where / "w.npz", weights)
    (where / "limits.yaml").write_text(LIMITS)
    out = where / "out"
    result = invoke(
        str(experiment), "--weights", str(where / "w.npz"), "--chip", "mixed-signal:1",
        "--samples", "40", "--limits", str(where / "limits.yaml"), "--out", str(out),
    )  # fmt: skip
    assert (out / "report.json").exists(), result.output
    report = json.loads((out / "report.json").read_text())
    return Made(out, report, (out / "report.html").read_text(), result)


class Numbers(HTMLParser):
    """The <data> elements of a page, and its other tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: dict[str, str | None] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self._open = dict(attrs)

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((self._open, data))
            self._open = None


def test_numbers_of_the_page_are_those_of_the_json(made: Made) -> None:
    parser = Numbers()
    parser.feed(made.page)
    assert len(parser.found) > 300
    for attributes, text in parser.found:
        path, exact, kind = (attributes[k] for k in ("data-path", "value", "data-kind"))
        assert path is not None
        assert exact is not None
        assert kind is not None
        value = paths.value(made.report, path)
        assert json.loads(exact) == value, path
        assert text == numbers.text(value, kind), path
    shown = {a["data-path"] for a, _ in parser.found}
    for needed in ("task.chip.calibrated", "budget.output.sqnr", "formats.each[0].bits"):
        assert f"chips[0].{needed}" in shown


def test_the_page_needs_nothing_else(made: Made) -> None:
    parser = Numbers()
    parser.feed(made.page)
    tags = [tag for tag, _ in parser.tags]
    assert "script" not in tags
    assert "img" not in tags
    assert tags.count("svg") >= 5
    for tag, attributes in parser.tags:
        for name in ("href", "src", "xlink:href"):
            link = attributes.get(name)
            assert link is None or link.startswith("#"), (tag, link)
    ids = [a["id"] for _, a in parser.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in made.page
    assert "@media print" in made.page


def test_the_json_is_as_the_schema_says(made: Made) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(made.report, schema())
    wrong = json.loads(json.dumps(made.report))
    wrong["chips"][0]["budget"]["output"]["sqnr"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


def test_a_broken_limit_is_said_everywhere(made: Made) -> None:
    assert made.result.exit_code == 1
    assert "1 of 2 limits are broken" in made.result.output
    assert "no chip is that good" in made.result.output
    assert made.report["verdict"]["passed"] is False
    assert "1 of 2 limits are broken" in made.page
    suite = ElementTree.parse(made.folder / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_what_it_recommends_can_be_loaded(made: Made) -> None:
    changes = made.report["chips"][0]["widths"]["narrower"]["changes"]
    assert changes
    chip = Chip.load(f"{made.folder / 'narrower-0.yaml'}:1")
    now = {"input": chip.input.bits, "membrane": chip.membrane.bits, "rate": chip.rate.bits,
           "weight": chip.weight.bits, "error": chip.error.bits}  # fmt: skip
    for name, change in changes.items():
        assert now.get(name, change["then"]) == change["then"]


def test_how_it_was_made_is_told(made: Made) -> None:
    told = made.report["made"]
    assert {"experiment", "network", "weights", "chip mixed-signal:1"} <= set(told["hashes"])
    assert {"hwgle", "numpy", "python"} <= set(told["versions"])
    files = [name for name in told["hashes"] if name.startswith("file ")]
    assert len(files) == 2  # weights and limits


def test_a_report_is_equal_to_itself_and_not_to_a_better_chip(made: Made, tmp_path: Path) -> None:
    same = invoke("--compare", str(made.folder), str(made.folder))
    assert same.exit_code == 0, same.output
    assert "0 numbers differ" in same.output
    other = json.loads(json.dumps(made.report))
    other["chips"][0]["task"]["chip"]["calibrated"] += 0.1
    other["chips"][0]["budget"]["layers"]["mid"]["r"]["sqnr"] -= 3
    (tmp_path / "b.json").write_text(json.dumps(other))
    out = tmp_path / "both"
    found = invoke("--compare", str(made.folder), str(tmp_path / "b.json"), "--out", str(out))
    assert found.exit_code == 0, found.output
    assert "2 numbers differ" in found.output
    page = (out / "compare.html").read_text()
    assert page.count('class="differs"') == 2
    assert "budget.layers.mid.r.sqnr" in page


def test_planted_faults_are_named(tmp_path: Path) -> None:
    """One layer that saturates, a dead neuron, an ADC a bit short; and a chip without any."""
    path, network, weights = small(tmp_path)
    experiment = Experiment.load(str(path))
    ideal = Chip.load("ideal")

    def changed(name: str, **sections: dict[str, Any]) -> Chip:
        data = ideal.model_dump()
        for section, values in sections.items():
            data[section].update(values)
        return Chip.model_validate({**data, "name": name, "seed": seed})

    seed = 0
    while True:  # a chip with just one dead neuron
        dead = changed("dead", activation={"dead": 0.03})
        which = [own.dead.nonzero()[0].tolist() for own in draw(dead, network).layers]
        if sum(map(len, which)) == 1 and not which[-1]:
            break
        seed += 1
    saturating = changed("saturating", membrane={"range": 4.0})
    eight = {"rate": {"bits": 8}, "readout": {"bits": 7}}
    chips = [ideal, saturating, dead, changed("short", **eight)]
    t = experiment.task
    task = TASKS[t.name](t.seed, t.validation_seed, t.train, t.test)
    sizes = Sizes(samples=100, streams=4, segments=3, trials=3, learning=2, seeds=0)
    report, _ = build(Inputs(experiment, network, weights, chips, task, sizes=sizes))
    found = {
        c["name"]: [f for f in c["found"] if f["severity"] == "fault"] for c in report["chips"]
    }
    assert found["ideal"] == []
    clips = [f for f in found["saturating"] if f["kind"] == "saturation"]
    assert {(f["layer"], f["signal"]) for f in clips} == {("mid", "membrane")}
    assert "layer mid saturates" in clips[0]["text"]
    layer = next(k for k, own in enumerate(which) if own)
    named = [f for f in found["dead"] if f["kind"] == "dead"]
    assert [(f["layer"], f["neurons"]) for f in named] == [
        (network.layers[layer].name, which[layer])
    ]
    short = [f for f in found["short"] if f["kind"] == "short"]
    assert "readout" in {f["width"] for f in short}
    assert any("read-out ADC: 7 bits are short" in f["text"] for f in short)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "name an EXPERIMENT and --out DIR"),
        (["tiny.yaml"], 2, "name an EXPERIMENT and --out DIR"),
        (["tiny.yaml", "--out", "o"], 2, "--weights W.npz: needed"),
        (["tiny.yaml", "--weights", "w.npz", "--out", "w.npz"], 2, "is not a folder"),
        (["tiny.yaml", "--compare", "a", "b"], 2, "no EXPERIMENT"),
        (["nothing.yaml", "--weights", "w.npz", "--out", "o"], 4, "nothing.yaml"),
        (["tiny.yaml", "--weights", "no.npz", "--chip", "none", "--out", "o"], 4, "no.npz"),
        (["tiny.yaml", "--weights", "w.npz", "--limits", "bad.yaml", "--out", "o"], 4, "bad.yaml"),
        (["tiny.yaml", "--weights", "w.npz", "--device", "fax:", "--out", "o"], 2, "fax:"),
        (["--compare", "o", "w.npz"], 4, "o"),
        (["--compare", "bad.yaml", "bad.yaml"], 4, "no JSON"),
    ],
)
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, weights = small(tmp_path)
    save("w.npz", weights)
    Path("bad.yaml").write_text("format: hwgle/limits/1\nlimits:\n  - {path: chips, min: 1}\n")
    before = set(os.listdir())
    result = invoke(*args)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert set(os.listdir()) == before


def test_a_device_that_is_none_is_told_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, weights = small(tmp_path)
    save("w.npz", weights)
    monkeypatch.setattr("hwgle.cli.report.load_task", lambda *_: pytest.fail("data were read"))
    for url, code in (("nope:", 2), ("/dev/hwgle-nothing", 3)):
        result = invoke("tiny.yaml", "--weights", "w.npz", "--device", url, "--out", "o")
        assert result.exit_code == code, result.output
        assert url in result.output


def test_interrupted_it_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    small(tmp_path)
    _, _, weights = small(tmp_path)
    save(tmp_path / "w.npz", weights)
    args = ["tiny.yaml", "--weights", "w.npz", "--samples", "100", "--out", "o/deep"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hwgle", "report", *args],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Where tests run in the background of a shell, SIGINT would be ignored in here too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text().split():  # its processes for float64 are there
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "nothing half-written" in errors
    assert "Traceback" not in errors
    assert sorted(os.listdir(tmp_path)) == ["small.yaml", "tiny.yaml", "w.npz"]


def test_a_second_report_takes_the_place_of_the_first(tmp_path: Path) -> None:
    from hwgle.accuracy_report.folder import replacing_folder

    out = tmp_path / "out"
    for names in (("report.html", "junit.xml", "narrower-3.yaml"), ("report.html",)):
        with replacing_folder(out) as folder:
            for name in names:
                (folder / name).write_text(name)
        (out / "notes.txt").write_text("the user's own")
    assert sorted(os.listdir(out)) == ["notes.txt", "report.html"]

    def fail() -> None:
        with replacing_folder(out) as folder:
            (folder / "report.html").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (out / "report.html").read_text() == "report.html"
    assert os.listdir(tmp_path) == ["out"]


def test_the_profile_that_is_written_is_yaml(made: Made) -> None:
    data = yaml.safe_load((made.folder / "narrower-0.yaml").read_text())
    assert data["name"] == "mixed-signal-narrower"


MEASURE = """<!DOCTYPE html><title>?</title><iframe style="border:0;width:%dpx;height:3000px"
 srcdoc="%s"></iframe><script>
onload = () => {
  const d = document.querySelector("iframe").contentDocument, all = d.querySelectorAll("body *");
  const over = [...all].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && ["DIV", "P", "LI", "DD", "FIGURE", "TD"].includes(e.tagName));
  document.title = [d.documentElement.scrollWidth, over.length,
    ...over.map(e => e.tagName + e.className)].join(" ");
};
</script>"""


@pytest.mark.long
@pytest.mark.board("chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_in_a_browser(made: Made, tmp_path: Path, width: int) -> None:
    """In a frame of that width, as a window has one of its own that is least."""
    page = tmp_path / "page.html"
    page.write_text(MEASURE % (width, escape(made.page, quote=True)))
    done = subprocess.run(
        ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--virtual-time-budget=5000", "--window-size=1400,3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    title = done.stdout[done.stdout.index("<title>") + 7 : done.stdout.index("</title>")]
    assert title == f"{width} 0"


def test_a_network_that_is_no_chain_is_refused(tmp_path: Path) -> None:
    result = invoke(
        "mnist1d-15k-alignment", "--weights", str(ZOO / "mnist1d-15k.npz"),
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert "chain with transposed feedback" in result.output
    assert not (tmp_path / "out").exists()
