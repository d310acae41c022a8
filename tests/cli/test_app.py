"""The command line: fast help, one-line errors, and train, Ctrl-C, sample, resume in processes."""

import lzma
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import __version__
from unrolled.cli import demo
from unrolled.cli._app import run
from unrolled.config import CONFIGS, LanguageModelConfig
from unrolled.models import load_tree
from unrolled.tasks import read_text
from unrolled.tasks._baselines import xz_bits
from unrolled.train import fit
from unrolled.train._callbacks import read_rows

SMALL = [
    "--hidden-size", "16", "--embedding-size", "4", "--batch-size", "8", "--window", "16",
    "--log-every", "5", "--accelerator", "cpu",
]  # fmt: skip


def command(*arguments: object) -> list[str]:
    code = "from unrolled.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )


# Help


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "lm", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from unrolled.cli._app import run; run(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'safetensors'} & sys.modules.keys();"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""


@pytest.mark.slow
def test_help_loads_few_modules() -> None:
    """Help is fast because it loads few: with all that the commands import there are thousands."""
    code = (
        "import sys; from unrolled.cli._app import run; run(['--help']);"
        "print(len(sys.modules), file=sys.stderr)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(completed.stderr) < 300


def test_every_option_has_a_help_line(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [["train", name] for name in CONFIGS]
    commands += [[name] for name in ("sample", "evaluate", "predict", "inspect", "bench", "export")]
    for arguments in commands:
        assert run([*arguments, "--help"]) == 0
        options = re.findall(r"\n  (--[\w-]+)(?: <[\w\[\]]+>)?( *)(\S*)", capsys.readouterr().out)
        assert len(options) >= 3
        assert [name for name, _, text in options if not text] == []


def test_version_and_bare_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"unrolled {__version__}\n"
    assert run([]) == 0
    assert "sample" in capsys.readouterr().out
    assert run(["train"]) == 0
    assert "lm" in capsys.readouterr().out


# Errors

SAMPLE = ["sample", "run", "--prime", "s"]
FAULTS: list[tuple[list[str], str]] = [
    (["paint"], "No such command 'paint'"),
    (["train", "lm", "--hiden", "3"], "No such option: --hiden"),
    (["train", "lm", "--steps", "many"], "'--steps': .* valid integer.*, got 'many'"),
    (["train", "lm", "--clip=big"], "'--clip': .* valid number.*, got 'big'"),
    (["train", "lm", "--steps", "0"], "--steps must be at least 1, got 0"),
    (["train", "lm", "--cell", "grru"], "--cell must be one of .* got 'grru'; did you mean GRU?"),
    (["train", "lm", "--cell", "no.py:Mine"], r"must be a Python file, there is no .*no\.py"),
    (["train", "lm", "--input", "bag"], "--input must be one of embedding, one-hot, got 'bag'"),
    (
        ["train", "lm", "--validation-fraction", "1"],
        "--validation-fraction must be above 0 and below 1, got 1.0",
    ),
    (["train", "lm", "absent"], "absent: must be a file or a folder"),
    (["train", "lm", "empty"], "empty: must have some text, got none"),
    (["train", "lm", "short"], "short: must have at least 4097 tokens .* got"),
    (["train", "lm", "short", "--run", "."], "--run must be a new or an empty folder, got ."),
    (["train", "lm", "short", "--run", "short"], "--run must be a new or an empty folder"),
    (["train", "lm", "short", "--run", "short/in"], "Not a directory"),
    (["train", "lm", "--resume", "absent"], r"absent/config\.json: No such file"),
    (
        ["train", "lm", "short", "--resume", "absent"],
        "--resume can be combined with --steps only, got paths",
    ),
    (
        ["train", "lm", "--cell", "LSTM", "--resume", "x"],
        "--resume can be combined with --steps only, got cell",
    ),
    (["train", "lm", "--resume", "absent", "--steps", "0"], "--steps must be at least 1, got 0"),
    (["sample"], "Missing argument 'RUN'"),
    (["sample", "absent"], "RUN must be a run folder or a checkpoint file; absent does not exist"),
    (["sample", "folder"], "RUN must be a run folder, but folder has no checkpoint"),
    (["sample", "short"], "short: not a whole safetensors file"),
    (["sample", "run/cut.safetensors"], r"cut\.safetensors: not a whole safetensors file"),
    (
        ["sample", "run", "--prime", "s", "--top-p", "1.5"],
        "--top-p must be above 0 and at most 1, got 1.5",
    ),
    ([*SAMPLE, "--top-k", "0"], "--top-k must be at least 1, got 0"),
    (
        ["sample", "run", "--prime", "s", "--temperature", "-1"],
        "--temperature must be at least 0, got -1",
    ),
    ([*SAMPLE, "--length", "-1"], "--length must be at least 0, got -1"),
    ([*SAMPLE, "--seed", "-1"], "--seed must be at least 0"),
    (["sample", "run", "--prime", ""], "--prime must have at least one character"),
    (["sample", "run", "--prime", "§"], "--prime: characters must be in the vocabulary, got '§'"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, a run of two steps, and that run's checkpoint cut in half."""
    workspace = tmp_path_factory.mktemp("cli")
    (workspace / "empty").touch()
    (workspace / "short").write_bytes(b"short " * 50)
    (workspace / "folder").mkdir()
    config = LanguageModelConfig(
        paths=(str(workspace / "short"),), vocabulary="characters", hidden_size=4, batch_size=2,
        window=8, steps=2, accelerator="cpu",
    )  # fmt: skip
    checkpoint = fit(config, workspace / "run", progress=False).last
    data = checkpoint.read_bytes()
    (workspace / "run" / "cut.safetensors").write_bytes(data[: len(data) // 2])
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), FAULTS, ids=[" ".join(a) for a, _ in FAULTS])
def test_a_users_error_is_one_line(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(workspace)
    files = sorted(Path().rglob("*"))
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(f"unrolled: .*{message}.*\n", error), error
    assert [path for path in Path().rglob("*") if path not in files and path.name != "runs"] == []


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    text = str(workspace / "short")
    assert run(["train", "lm", text, "--run", str(folder), "--accelerator", "gpu"]) == 2
    assert (
        "--accelerator must be cpu or auto, because torch finds no GPU" in capsys.readouterr().err
    )
    assert not folder.exists()


@pytest.mark.slow
def test_sampling_is_seeded_and_continues_the_prime(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)

    def sample(*arguments: str) -> str:
        assert run(["sample", "run", "--prime", "sho", "--length", "20", *arguments]) == 0
        return capsys.readouterr().out

    text = sample("--seed", "1")
    assert re.fullmatch(r"sho[short ]{20}\n", text)
    assert sample("--seed", "1") == text
    assert sample("--seed", "2") != text
    assert sample("--temperature", "0", "--seed", "1") == sample("--top-k", "1", "--seed", "2")


# Whole jobs


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_samples_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(read_text(limit=20_000))
    endless = ["--steps", "1000000", "--validate-every", "10000000"]
    training = subprocess.Popen(
        command("train", "lm", "text", *SMALL, *endless),
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    metrics = tmp_path / "runs" / "lm" / "metrics.csv"
    deadline = time.monotonic() + 300
    while len(read_rows(metrics)) < 3 and time.monotonic() < deadline:
        assert training.poll() is None
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    out, error = training.communicate(timeout=300)
    assert training.returncode == 130, error
    interrupted = re.fullmatch(
        r"unrolled: interrupted after step (\d+), the checkpoint is runs/lm/last\.safetensors; "
        r"continue with: unrolled train lm --resume runs/lm",
        error.splitlines()[-1],
    )
    assert interrupted, error
    assert "curve       runs/lm/curve.png" in out
    assert (tmp_path / "runs/lm/curve.png").read_bytes().startswith(b"\x89PNG")
    step = int(interrupted[1])
    assert load_tree(tmp_path / "runs/lm/last.safetensors")["global_step"] == step

    sampled = call("sample", "runs/lm", "--prime", "def ", "--length", 50, cwd=tmp_path)
    assert sampled.returncode == 0, sampled.stderr
    assert sampled.stderr == ""
    assert sampled.stdout.startswith("def ")

    resumed = call("train", "lm", "--resume", "runs/lm", "--steps", step + 5, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(rf"step +{step + 5}  validation loss", resumed.stderr), resumed.stderr
    assert sorted(file.name for file in (tmp_path / "runs" / "lm").iterdir()) == [
        "best.safetensors", "config.json", "curve.png", "last.safetensors", "metrics.csv",
    ]  # fmt: skip


@pytest.mark.slow
def test_each_run_gets_a_new_folder(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lm", "lm-2"):
        assert run(["train", "lm", str(workspace / "short"), *SMALL, "--steps", "1"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"run         runs/{name}\n")
        assert f"runs/{name}/best.safetensors, runs/{name}/last.safetensors" in out
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lm", "lm-2"]
    assert list(Path().iterdir()) == [Path("runs")]


@pytest.mark.slow
def test_the_demo_prints_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config: dict[str, Any] = {"limit": 50_000, "hidden_size": 16, "batch_size": 8, "steps": 40}
    config |= {"validate_every": 20, "cell": "LSTM", "accelerator": "cpu"}
    monkeypatch.setattr(demo, "CONFIG", LanguageModelConfig(**config))
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    printed = capsys.readouterr()
    assert demo.main() == 0
    assert capsys.readouterr() == printed
    for line in (
        "47,500 for training, 2,496 held out",
        "before training",
        "after training",
        "xz -9, after the training text",
        "curve       runs/demo/curve.png",
        "checkpoint  runs/demo/best.safetensors",
    ):
        assert line in printed.out
    assert Path("runs/demo/curve.png").is_file()
    bits = float(re.findall(r"this model +([\d.]+)", printed.out)[0])
    assert 2.0 < bits < 8.0
    measured = [float(x) for x in re.findall(r"([\d.]+) bits/char", printed.err)]
    assert len(measured) == 2
    assert bits == pytest.approx(min(measured), abs=1e-3)


def test_xz_is_measured_in_bits_a_byte() -> None:
    training_text, text = os.urandom(4000), os.urandom(4000)
    bits_alone, bits_after_training = xz_bits(training_text, text)
    assert bits_alone == len(lzma.compress(text, preset=9)) / 500
    assert bits_alone > 8.0
    assert bits_after_training == pytest.approx(8.0, abs=0.1)
    assert xz_bits(text, text)[1] < 0.2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/bin/xz").exists(), reason="the xz program is not installed")
def test_xz_is_what_the_program_writes() -> None:
    text = read_text(limit=100_000)
    packed = subprocess.run(["xz", "-9", "--stdout"], input=text, capture_output=True, check=True)
    assert xz_bits(b"", text)[0] == pytest.approx(len(packed.stdout) * 8 / len(text), rel=1e-3)
