#!/usr/bin/env bash
# torch 2.13.0, CPU build: a package of AOTInductor passes None to a custom operator of Python for an
# argument declared Tensor[] that is an empty list, so that the operator's own schema refuses the
# call, although the same exported program runs. With Tensor[]? in its place the package runs.
#
# Seen: "eager 3.0, exported program 3.0, package: Expected a value of type 'List[Tensor]' …
# found type 'NoneType'; declared Tensor[]?: 3.0".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 setuptools==80.9.0
export TORCHINDUCTOR_CACHE_DIR="$place/cache"
"$place/venv/bin/python" - "$place" <<'PYTHON'
import sys

import torch


def define(name, declared):
    schema = f"(Tensor x, {declared} more) -> Tensor"

    @torch.library.custom_op(f"example::{name}", mutates_args=(), schema=schema)
    def total(x, more):
        return sum(more or [], x.clone())

    total.register_fake(lambda x, more: torch.empty_like(x))

    class Model(torch.nn.Module):
        def forward(self, x):
            return getattr(torch.ops.example, name)(x, [])

    program = torch.export.export(Model(), (torch.ones(3),))
    path = f"{sys.argv[1]}/{name}.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=path)
    return Model(), program, torch._inductor.aoti_load_package(path)


model, program, package = define("plain", "Tensor[]")
eager, exported = model(torch.ones(3)).sum().item(), program.module()(torch.ones(3)).sum().item()
try:
    package(torch.ones(3))
    message = "no error"
except RuntimeError as error:
    message = next(line for line in str(error).splitlines() if "Expected a value" in line)
optional = define("optional", "Tensor[]?")[2](torch.ones(3)).sum().item()
print(torch.__version__, f"eager {eager}, exported program {exported}, package: {message};", optional)
sys.exit(not (eager == exported == optional == 3.0 and "found type 'NoneType'" in message))
PYTHON
