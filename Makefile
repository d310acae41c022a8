# Each target sets up all that it needs; a second run reuses what the first one installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The build tools are installed in the environment: an isolated build would compile everything again each time.
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

MAKEFLAGS += --no-print-directory
CMAKE := $(or $(shell command -v cmake),$(BIN)/cmake)
CORE_TESTS := $(CMAKE) -S . -DUNROLLED_TESTS=ON -DUNROLLED_WERROR=ON
CHECK := $(CMAKE) --build build

.PHONY: demo test test-long core core-long capi wheel c sanitize fuzz neon lint hooks measure clean

# Trains a language model on this machine's Python sources, then samples from it.
demo: $(INSTALLED)
	$(BIN)/python -m unrolled.cli.demo

test: lint capi wheel
	$(BIN)/python -m pytest -n 2 -m 'not long'

# Tests that need many repetitions. `make test test-long` sets up and builds once.
test-long: capi core-long
	$(BIN)/python -m pytest -n 2 -m long

# The C++ tests of the core, with the objects from which the module was linked.
core core-long: $(INSTALLED) $(CMAKE)
	$(CORE_TESTS) -B build/core -DUNROLLED_CORE="$$(ls -t $(CURDIR)/build/*-*-*/libcore.a | head -n 1)"
	$(CHECK)/core --parallel 2 --target $(subst core,check,$@)

# Builds the example of the C interface as a user would.
capi: core
	$(CMAKE) --install build/core --prefix $(CURDIR)/build/installed
	$(CMAKE) -S examples/c -B build/effect -DCMAKE_PREFIX_PATH=$(CURDIR)/build/installed
	$(CHECK)/effect

# Builds the wheel from the objects of the module's build, and tests it in an environment without torch.
wheel: $(INSTALLED)
	rm -rf build/wheel build/without-torch
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -m venv build/without-torch
	build/without-torch/bin/python -m pip install --quiet --constraint constraints.txt build/wheel/*.whl
	build/without-torch/bin/python tests/support/without_torch.py build/wheel/*.whl

# Header and archive for C and C++, without Python: make c PREFIX=/usr/local
PREFIX ?= $(CURDIR)/build/c/installed
c: $(CMAKE)
	$(CMAKE) -S . -B build/c -DUNROLLED_C=ON
	$(CHECK)/c --parallel 2
	$(CMAKE) --install build/c --prefix $(PREFIX)

# The C++ tests with the address and undefined behavior sanitizers, for all builds that this machine can run.
sanitize: $(CMAKE)
	$(CORE_TESTS) -B build/sanitize -DUNROLLED_SANITIZE=ON \
		-DUNROLLED_BUILDS="$(if $(shell grep -sm1 avx512_bf16 /proc/cpuinfo),avx512bf16;)$(if $(shell grep -sm1 avx512dq /proc/cpuinfo),avx512;)avx2;neon;plain;plain16"
	$(CHECK)/sanitize --parallel 2 --target check

# Random calls of the module with both sanitizers: make fuzz FUZZ='--cells 20000 --seed 1'. Two builds
# of the kernels are tested: the best one for the processor, and one with another vector width.
FUZZ ?= --calls 2000 --cells 1000
PRELOAD = $(shell for one in libasan.so libubsan.so libstdc++.so; do g++ -print-file-name=$$one; done)
fuzz: $(INSTALLED) $(CMAKE)
	$(CMAKE) -S . -B build/fuzz -DUNROLLED_SANITIZE=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
		-Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)" \
		-DUNROLLED_BUILDS="$(if $(shell grep -sm1 avx512_bf16 /proc/cpuinfo),avx512bf16,$(if $(shell grep -sm1 avx512dq /proc/cpuinfo),avx512,avx2));neon;plain16"
	$(CMAKE) --build build/fuzz --parallel 2 --target _core
	LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m tests.support.fuzz \
		--core build/fuzz/_core.*.so $(FUZZ)

# The C++ tests for NEON, in an emulator.
neon: $(CMAKE)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
		{ echo 'make neon: apt-get install g++-aarch64-linux-gnu qemu-user'; exit 1; }
	$(CORE_TESTS) -B build/neon -DUNROLLED_BUILDS=neon \
		-DCMAKE_TOOLCHAIN_FILE=tests/core/aarch64.cmake
	$(CHECK)/neon --parallel 2 --target check

$(BIN)/cmake:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet cmake

FORMATTED := $(wildcard csrc/*/*.h csrc/*/*.cpp tests/core/*.h tests/core/*.cpp tests/core/*.c examples/c/*.cpp)
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/lint-imports

# Checks before each commit: .pre-commit-config.yaml.
hooks: $(INSTALLED)
	$(BIN)/pre-commit install

# CPU time and lines that each test adds: make measure TESTS='tests/nn tests/cells'
TESTS ?= tests
measure: $(INSTALLED)
	$(BIN)/python -m tests.support.measure run $(TESTS)
	$(BIN)/python -m tests.support.measure report

$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/* csrc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) 'scikit-build-core>=0.11' 'nanobind>=2.4' cmake ninja
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build runs
