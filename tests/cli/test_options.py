"""Options from hostile YAML files and command lines: one short sentence, exit code 2."""

from pathlib import Path

import pytest

from unrolled.cli._app import run
from unrolled.config import CONFIGS

ALIASES = "".join(f" - &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10))
FILES = {
    "date": ("steps: 2020-01-01", "steps must be an integer, got datetime.date"),
    "date for a text": ("cell: 2020-01-01", "cell must be a string, got datetime.date"),
    "no date": ("cell: 2020-99-99", "cell must be a !!timestamp, got '2020-99-99'"),
    "many digits": (f"steps: {'9' * 5000}", "steps must be a !!int, got '999"),
    "many bits": (f"steps: 0x{'f' * 5000}", "--steps must be below 2**63"),
    "many bits of a float": (f"clip: 0x{'f' * 5000}", "--clip must be below 2**63"),
    "many bits of a text": (
        f"cell: 0x{'f' * 5000}",
        "cell must be a string, got a",
    ),
    "wrong tag": ("steps: !!int abc", "steps must be a !!int, got 'abc'"),
    "wrong boolean": ("bidirectional: !!bool 7", "bidirectional must be a !!bool, got '7'"),
    "unknown tag": ("steps: !mine 3", "steps must be a !mine, got '3'"),
    "code": ("cell: !!python/name:os.system", "cell must be a !!python/name:os.system"),
    "brackets": ("steps: " + "[" * 3000, "nested too deeply"),
    "braces": ("{a: " * 3000, "nested too deeply"),
    "repeated references": (f"steps:\n - &a0 [x]\n{ALIASES}", "steps must be a scalar or a list"),
    "a reference to itself": ("steps: &a [*a]", "steps must be a scalar or a list"),
    "merged mappings": ("<<: {steps: 3}", "<< must be a scalar or a list"),
    "a mapping": ("cell: {a: 1}", "cell must be a scalar or a list"),
    "a list for a key": ("? [a]\n: 1", "must have options by name, got a sequence"),
    "twice": ("steps: 1\nsteps: 2", "must set each option once, but sets steps twice"),
    "long value": (f"steps: {'x' * 100_000}", "steps must be an integer, got 'xxx"),
    "long name": (f"? {'x' * 100_000}\n: 1", "has the unknown option xxx"),
    "long choice": (f"precision: {'x' * 100_000}", "--precision must be one of 32, bf16, 16, got"),
    "nothing": ("steps:", "steps must be an integer, got None"),
    "empty": ("", "must have options by name, got an empty file"),
    "infinite rate": ("learning_rate: .inf", "--learning-rate must be above 0 and finite"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_of_options(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = FILES[name]
    (tmp_path / "options.yaml").write_text(text)
    assert run(["train", "lm", "--config", str(tmp_path / "options.yaml"), "--print-config"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unrolled: --")
    assert expected in error
    assert error.count("\n") == 1
    assert len(error) < 1000


def test_options_of_a_yaml_file_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "steps: 7\nlearning-rate: 1e-3\nclip: 2\nprecision: 16\ncell: LSTM\nsuffixes: [.a, .b]\n"
    (tmp_path / "options.yaml").write_text(text)
    assert run(["train", "lm", "--config", str(tmp_path / "options.yaml"), "--print-config"]) == 0
    printed = capsys.readouterr().out
    for line in ("steps: 7", "learning_rate: 0.001", "clip: 2.0", "precision: '16'", "- .b"):
        assert f"{line}\n" in printed


def test_a_long_value_on_the_command_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--steps", "x" * 100_000], ["--precision=" + "x" * 100_000]):
        assert run(["train", "lm", *arguments, "--print-config"]) == 2
        error = capsys.readouterr().err
        assert arguments[0].split("=")[0] in error
        assert len(error) < 2500


RENAMED = [("remember", "chrono-steps", 5), ("recurrent-rate", "recurrent-lr-scale", 0.5)]


@pytest.mark.parametrize(("former", "present", "value"), RENAMED)
def test_a_file_with_the_former_name_of_an_option_is_read(
    former: str, present: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spelling in (former, former.replace("-", "_")):
        (tmp_path / "options.yaml").write_text(f"{spelling}: {value}")
        arguments = ["train", "lm", "--config", str(tmp_path / "options.yaml"), "--print-config"]
        assert run(arguments) == 0
        assert f"{present.replace('-', '_')}: {value}\n" in capsys.readouterr().out
    (tmp_path / "options.yaml").write_text(f"{former}: {value}\n{present}: {value}")
    assert run(arguments) == 2
    assert f"but sets {present.replace('-', '_')} twice" in capsys.readouterr().err


@pytest.mark.parametrize("task", CONFIGS)
@pytest.mark.parametrize(("former", "present", "value"), RENAMED)
def test_the_former_name_of_an_option_is_reported_with_the_present_one(
    former: str, present: str, value: float, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([f"--{former}", str(value)], [f"--{former}={value}"]):
        assert run(["train", task, *arguments]) == 2
        assert capsys.readouterr().err == f"unrolled: --{former} was renamed to --{present}\n"


def test_a_command_without_the_present_option_does_not_suggest_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["sample", "run", "--remember", "5"]) == 2
    assert "No such option: --remember" in capsys.readouterr().err
