"""Where things lie in the repository: golden files, examples, and what `make capi` builds."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
GOLDEN_FILES = sorted(GOLDEN.glob("*.safetensors"))  # exported by earlier versions
EXAMPLES = ROOT / "examples"
STEPS = ROOT / "build" / "core" / "tests" / "core" / "steps"  # of tests/core/steps.c
EFFECT = ROOT / "build" / "effect" / "effect"  # of examples/c/effect.cpp
