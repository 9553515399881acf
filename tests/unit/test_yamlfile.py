"""Reading YAML with lines, and turning errors into mistakes that a user can act on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from hwgle import yamlfile
from hwgle.errors import FileMistakes, Mistake
from hwgle.yamlfile import Checked, Rule, Where, find, read, validate, zoo_names


class Part(Checked):
    tau_m: float = Field(gt=0)
    size: int = Field(1, ge=1, le=4096)


class Straight(Checked):
    kind: Literal["straight"]


class Bent(Checked):
    kind: Literal["bent"]
    angle: float


class Thing(Checked):
    name: str
    phi: Literal["linear", "tanh"] = "tanh"
    learn: bool = True
    parts: tuple[Part, ...] = Field((), strict=False, min_length=1)
    shape: Annotated[Straight | Bent, Field(discriminator="kind")] = Straight(kind="straight")
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        low, high = yamlfile.number(data.get("low")), yamlfile.number(data.get("high"))
        if low is not None and high is not None and low > high:
            yield Rule(("low",), f"{low:g}", f"at most high = {high:g}")


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "thing.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(tmp_path: Path, text: str | bytes) -> list[tuple[int | None, str, str, str]]:
    path = written(tmp_path, text)
    with pytest.raises(FileMistakes) as caught:
        validate(Thing, read(path))
    assert all(m.file == str(path) for m in caught.value.mistakes)
    return [(m.line, m.key, m.found, m.allowed) for m in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e+1", -25.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+7", 7),
        ("012", 12),  # YAML 1.1 would read an octal 10
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # YAML 1.1 would read 90
        ("2020-01-01", "2020-01-01"),
        ("on", "on"),  # YAML 1.1 would read true
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ('"5"', "5"),
        (".inf", math.inf),
        ("e5", "e5"),
        (".", "."),
        ("[1, 2e0]", [1, 2.0]),
    ],
)
def test_scalars(tmp_path: Path, text: str, value: object) -> None:
    got = read(written(tmp_path, f"x: {text}\n")).data["x"]
    assert got == value
    assert type(got) is type(value)


def test_the_largest_whole_numbers_do_not_upset_the_reader(tmp_path: Path) -> None:
    for digits in (400, 5000):
        (told,) = mistakes(tmp_path, f"name: a\nparts: [{{tau_m: 1}}]\nlow: {'9' * digits}\n")
        assert told[:2] == (3, "low")
        assert len(told[2]) <= 80


def test_lines_and_the_nearest_parent(tmp_path: Path) -> None:
    file = read(written(tmp_path, "# c\na: 1\nb:\n  - x: 1\n  - {y: 2,\n     z: 3}\n"))
    assert file.line(()) == 2
    assert file.line(("b",)) == 3
    assert file.line(("b", 1, "z")) == 6
    assert file.line(("b", 1, "missing")) == 5
    assert file.line(("nowhere", 7)) == 2


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("- 1\n", 1, "list at the top level"),
        ("\nword\n", 2, "single value at the top level"),
        ("a: 1\nb: [1,\n", 3, "flow node"),
        ("a: 1\n b: 2\n", 2, "mapping values"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: \x01\n", 2, "character"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "not UTF-8"),
        ("a: " + "[" * 40 + "]" * 40, 1, "more than 32 levels"),
        (b"#" * (yamlfile.MAX_BYTES + 1), None, "more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_mapping(
    tmp_path: Path, text: str | bytes, line: int | None, found: str
) -> None:
    with pytest.raises(FileMistakes) as caught:
        read(written(tmp_path, text))
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.file) == (line, str(tmp_path / "thing.yaml"))
    assert found in mistake.found
    assert caught.value.exit_code == 4


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "not a regular file")):
        with pytest.raises(FileMistakes, match=found):
            read(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(written(tmp_path, b"\xef\xbb\xbfa: 1\n")).data == {"a": 1}


GOOD = "name: a\nparts:\n  - {tau_m: 1}\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "found", "allowed"),
    [
        (GOOD + "name: b\n", 4, "name", "second `name` (the first is on line 1)", "once"),
        (GOOD + "fo: 1\n", 4, "fo", "unknown key", "name, phi, learn, parts"),
        (GOOD + "learns: true\n", 4, "learns", "unknown key", "did you mean learn?"),
        (GOOD + "phi: tnah\n", 4, "phi", "'tnah'", "one of linear, tanh"),
        (GOOD + "learn: 1\n", 4, "learn", "1", "true or false"),
        (GOOD + "learn: yes\n", 4, "learn", "'yes'", "true or false"),
        (GOOD + "low: '1'\n", 4, "low", "the text '1'", "a number"),
        (GOOD + "low: true\n", 4, "low", "true", "a number"),
        (GOOD + "low: .nan\n", 4, "low", "nan", "a number"),
        (GOOD + "high: .inf\n", 4, "high", "inf", "a number"),
        (GOOD + "high: 1e999\n", 4, "high", "inf", "a number"),
        (GOOD + "high:\n", 4, "high", "nothing (null)", "a number"),
        (GOOD + "low: 2\n", 4, "low", "2", "at most high = 1"),
        (GOOD + "  - 3\n", 4, "parts[1]", "3", "mapping with the keys tau_m, size"),
        (GOOD + "  - {size: 2}\n", 4, "parts[1].tau_m", "missing", "a number > 0"),
        (GOOD + "  - {tau_m: 0}\n", 4, "parts[1].tau_m", "0", "a number > 0"),
        (GOOD + "  - {tau_m: 1, size: 1.5}\n", 4, "parts[1].size", "1.5", "from 1 to 4096"),
        (GOOD + "  - {tau_m: 1, size: 0}\n", 4, "parts[1].size", "0", "from 1 to 4096"),
        (GOOD + "  - {tau_m: 1, siz: 0}\n", 4, "parts[1].siz", "unknown", "did you mean size?"),
        (GOOD + "shape: {kind: bnet}\n", 4, "shape.kind", "'bnet'", "one of straight, bent"),
        (GOOD + "shape: {kind: [1]}\n", 4, "shape.kind", "a list", "one of straight, bent"),
        (GOOD + "shape: {}\n", 4, "shape.kind", "missing", "one of straight, bent"),
        (GOOD + "shape: 3\n", 4, "shape", "3", "straight or bent"),
        (GOOD + "shape: {kind: bent}\n", 4, "shape.angle", "missing", "a number"),
        (GOOD + "shape: {kind: bent, angle: x}\n", 4, "shape.angle", "'x'", "a number"),
        (GOOD + "shape: {kind: bent, angel: 1, angle: 1}\n", 4, "shape.angel", "unknown", "angle?"),
        ("\nname: a\n", 2, "parts", None, None),
        ("name: a\nparts: []\n", 2, "parts", "an empty list", "a list of 1 or more"),
        ("name: a\nparts: {tau_m: 1}\n", 2, "parts", "a mapping", "a list of 1 or more"),
        ("parts:\n  - {tau_m: 1}\n", 1, "name", "missing", "text"),
        (GOOD + "? [a]\n: 1\n", 4, "", "a key that is a list", "a word"),
        (GOOD + "low: !!float 0.5\n", 4, "", "the tag", "no tags"),
        (GOOD + "low: &x 0.5\n", 4, "", "the anchor &x", "no anchors"),
        (GOOD + "<<: {low: 1}\n", 4, "<<", "unknown key", "name, phi"),
        (GOOD + "3: 1\n", 4, "3", "unknown key", "name, phi"),
    ],
)
def test_one_mistake(
    tmp_path: Path, text: str, line: int, key: str, found: str | None, allowed: str | None
) -> None:
    if found is None or allowed is None:  # a default stands in: no mistake
        assert validate(Thing, read(written(tmp_path, text))).parts == ()
        return
    (told,) = mistakes(tmp_path, text)
    assert told[:2] == (line, key)
    assert found in told[2]
    assert allowed in told[3]


def test_several_mistakes_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = "low: 3\nname: 1\nphi: x\nphi: y\nparts:\n  - {tau_m: -1, size: true}\n  - {sise: 1}\n"
    told = mistakes(tmp_path, text)
    assert [(line, key) for line, key, _, _ in told] == [
        (1, "low"),  # a rule across fields, told together with the rest
        (2, "name"),
        (3, "phi"),
        (4, "phi"),
        (6, "parts[0].tau_m"),
        (6, "parts[0].size"),
        (7, "parts[1].tau_m"),
        (7, "parts[1].sise"),
    ]


def test_alias_bomb_is_refused_without_being_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    told = mistakes(tmp_path, "\n".join(lines))
    assert {"the anchor &a0", "the alias *a0"} <= {found for _, _, found, _ in told}


def test_python_tags_construct_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"{GOOD}low: !!python/object/apply:os.mkdir ['{marker}']\n"
    assert "python/object" in mistakes(tmp_path, text)[0][2]
    assert not marker.exists()


def test_a_model_built_in_python_obeys_the_rules_too() -> None:
    with pytest.raises(ValidationError, match="at most high = 1"):
        Thing(name="a", low=2.0)


def test_hash_depends_on_content_only() -> None:
    one, same = Thing(name="a", low=0), Thing(low=0.0, name="a", phi="tanh")
    assert one.hash() == same.hash()
    assert one.hash() != Thing(name="a", low=1e-9).hash()
    assert len(one.hash()) == 64


def test_find_by_name_by_path_and_by_neither(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("chips", "ideal").name == "ideal.yaml"
    (tmp_path / "mine.yml").write_text("a: 1\n")
    assert find("chips", "mine.yml", base=tmp_path) == tmp_path / "mine.yml"
    (tmp_path / "bare").write_text("a: 1\n")
    assert find("chips", "bare") == Path("bare")
    (tmp_path / "ideal").mkdir()  # a folder of results must not hide the name
    assert find("chips", "ideal").parent.name == "chips"
    with pytest.raises(FileMistakes) as caught:
        find("chips", "idael")
    (mistake,) = caught.value.mistakes
    assert "no chip named 'idael'" in mistake.found
    assert all(name in mistake.allowed for name in zoo_names("chips"))
    assert "did you mean ideal?" in mistake.allowed
    with pytest.raises(FileMistakes) as caught:
        find("chips", "gone.yaml", where=Where("e.yaml", 3, "chip"))
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.key) == ("e.yaml", 3, "chip")
    assert "gone.yaml" in mistake.found
    for name in ("", "..", "\0", "x" * 5000):
        with pytest.raises(FileMistakes):
            find("chips", name)


def outcome(path: Path) -> tuple[Mistake, ...] | Thing:
    try:
        return validate(Thing, read(path))
    except FileMistakes as error:
        return error.mistakes


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*Thing.model_fields, "tau_m", "kind"]) | st.text()


@settings(derandomize=True, deadline=None, max_examples=80)
@given(data=st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_yaml_is_either_valid_or_a_list_of_mistakes(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=False, width=10**6), encoding="utf-8")
    got = outcome(path)
    assert isinstance(got, Thing) or (got and all((m.line or 1) >= 1 for m in got))


@settings(derandomize=True, deadline=None, max_examples=80)
@given(raw=st.binary(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"#? \n\t1.", max_size=60))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, raw: bytes | str) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    assert outcome(path)
