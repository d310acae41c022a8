"""Which package of csrc may include which others, and that no two files include each other."""

import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "csrc"

# docs/decisions/0030-packages-of-the-core.md gives the reasons.
ALLOWED = {
    "support": set(),
    "program": {"support"},
    "dispatch": {"program", "support"},
    "kernels": {"dispatch", "program", "support"},
    "model": {"dispatch", "include", "program", "support"},
    "python": {"dispatch", "model", "program", "support"},
    "include": set(),
}
# Kernels know the types of a call, not who chooses among builds or reads arguments: what those
# define inline would be compiled with the flags of one instruction set.
INTERFACES_OF_KERNELS = {
    "dispatch/build.h",
    "dispatch/call.h",
    "dispatch/prepared.h",
    "dispatch/snapshot.h",
    "dispatch/weight_cache.h",
}


def _includes() -> dict[str, set[str]]:
    """By file, the files of csrc that it includes, as paths below csrc."""
    files = {
        path.relative_to(SOURCES).as_posix(): path
        for path in SOURCES.rglob("*")
        if path.suffix in {".h", ".cpp"}
    }
    results = {}
    for name, path in files.items():
        headers = re.findall(r'^#include "(.+)"$', path.read_text(), re.MULTILINE)
        results[name] = {f"include/{header}" if "/" not in header else header for header in headers}
        missing = results[name] - files.keys()
        assert not missing, f"{name} includes {missing}, not a path below csrc"
    return results


INCLUDES = _includes()


def test_every_file_has_a_package() -> None:
    assert {name.split("/")[0] for name in INCLUDES} == ALLOWED.keys()


def test_packages_include_only_what_they_may() -> None:
    for name, headers in INCLUDES.items():
        package = name.split("/")[0]
        for header in headers:
            target = header.split("/")[0]
            assert target == package or target in ALLOWED[package], f"{name} includes {header}"


def test_kernels_include_only_interfaces_of_dispatch() -> None:
    for name, headers in INCLUDES.items():
        if name.startswith("kernels/"):
            interfaces = {header for header in headers if header.startswith("dispatch/")}
            assert interfaces <= INTERFACES_OF_KERNELS, name


def test_no_file_includes_itself() -> None:
    reached = {name: set(headers) for name, headers in INCLUDES.items()}
    for middle in reached:
        for headers in reached.values():
            if middle in headers:
                headers |= reached[middle]
    assert not [name for name, headers in reached.items() if name in headers]
