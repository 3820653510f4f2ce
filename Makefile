# usae: build, test, demonstrate. Everything runs from a fresh clone, given Swift 6.3 and Python 3.11 or later: missing
# Debian packages are installed where that can be done, Python's go to .venv.

PYTHON ?= python3
SWIFT ?= swift
export PATH := $(PATH):/opt/swift/usr/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Set here alone, whatever the environment has.
unexport PYTHONPATH PYTHONHOME USAE_KERNELS USAE_SCIPY_OPENBLAS_LIB

BIN := .venv/bin
# Tests reach into the library (@testable), and need its speed.
TEST_BUILD := --scratch-path .build-test -c release -Xswiftc -enable-testing
NATIVE := Package.swift setup.py pyproject.toml $(shell find Sources python/src -type f -o -type l)
# Oldest glibc that the wheel runs with: that of scipy-openblas32, the OpenBLAS in it. What is built here needs no newer one.
GLIBC := 2.27
FUZZ_SEED ?= 1
# Empty: pip builds the wheel with what pyproject.toml asks for, in an environment of its own.
ISOLATION := --no-build-isolation
FILES := $(NATIVE) MANIFEST.in $(wildcard tools/old_glibc.*) $(shell find python/usae -type f ! -name '*.so' ! -name '*.pyc')

.NOTPARALLEL:
.PHONY: help test test-quick test-swift test-sanitizers test-abi test-instruction-sets test-arm64 test-python test-demo \
  test-wheel test-matrix fuzz demo docs wheel release lint clean system browser

help:
	@echo 'make test-quick   lint, and the Python tests that are not slow: under a minute'
	@echo 'make test         every check below, in this order:'
	@echo '  lint                     ruff and mypy'
	@echo '  test-swift               the Swift library, by its own tests and its example'
	@echo '  test-sanitizers          the same, and calls of usae.h at random, under AddressSanitizer and ThreadSanitizer'
	@echo '  test-abi                 usae.h, by C11 programs that see nothing else, one at random, and by a C++ compiler'
	@echo '  test-instruction-sets    that no AVX code leaks into the portable kernels'
	@echo '  test-arm64               the kernels of arm64, in an emulator'
	@echo '  test-python              the Python package, against PyTorch; the examples and the README'
	@echo '  test-demo                the demonstration, small'
	@echo '  test-wheel               the sdist, and the wheel built from it, where there is neither OpenBLAS nor Swift'
	@echo 'make fuzz         usae.h, files, public functions and commands at random, for minutes; FUZZ_SEED=N is another run'
	@echo 'make docs         the documentation site, into site/; open site/index.html'
	@echo 'make demo         the demonstration, into demo-output/'
	@echo 'make bench-T      a benchmark, T being step, single, encode, limits, scaling or distributed, into benchmarks/results/'
	@echo 'make test-matrix  the wheel with the oldest and the newest Pythons and packages that are declared; minutes'
	@echo 'make wheel        a wheel to give away, with OpenBLAS in it, and the sdist that it was built from, into dist/'
	@echo 'make release      what a release needs, built anew and checked, into dist/; it stops before anything is published'
	@echo 'make clean        remove what make made'

test: lint test-swift test-sanitizers test-abi test-instruction-sets test-arm64 test-python test-demo test-wheel

# --- What has to be there ---------------------------------------------------------------------------------------------

system:
	@tools/install_system_packages.sh $(PYTHON)

browser:
	@tools/install_browser.sh

.venv/.requirements: requirements-dev.txt | system
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

.venv/.release: .venv/.requirements requirements-release.txt
	$(BIN)/python -m pip install --quiet -r requirements-release.txt
	@touch $@

# The site reads the sources alone, so it needs neither Swift nor the library.
.venv/.docs: requirements-docs.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-docs.txt
	@touch $@

# Editable, so that only a change of native code asks for another build.
.venv/.installed: .venv/.requirements $(NATIVE) | system
	USAE_BLAS=system SWIFT='$(SWIFT)' $(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

# From the sdist, which thereby is shown to be whole.
dist/.wheel: .venv/.requirements $(FILES) | system
	rm -rf build dist
	$(BIN)/python setup.py --quiet sdist --dist-dir dist
	USAE_BLAS=scipy USAE_GLIBC=$(GLIBC) SWIFT='$(SWIFT)' $(BIN)/python -m pip wheel --quiet $(ISOLATION) --no-deps \
	  --wheel-dir build/wheel dist/usae-*.tar.gz
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --plat manylinux_$(subst .,_,$(GLIBC))_$$(uname -m) --wheel-dir dist \
	  build/wheel/usae-*.whl
	@touch $@

# --- Checks -----------------------------------------------------------------------------------------------------------

lint: .venv/.requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Slow tests are marked `slow`; python/tests/conftest.py reports unmarked ones.
test-quick: lint .venv/.installed
	$(BIN)/python -m pytest -q python/tests -m 'not slow'

test-swift: | system
	$(SWIFT) build $(TEST_BUILD) --build-tests
	$(SWIFT) test $(TEST_BUILD) --skip-build --disable-xctest
	$(SWIFT) run $(TEST_BUILD) train-from-swift

# XCTest's runner, which is not used, is the only thing that leaks. Optimised: without, the kernels alone take minutes. What
# `swift test` builds by itself `swift run` would build again.
# Kernels share no memory between threads, and damaged sums take the way of whole ones, which SharedStepTests go. Under
# ThreadSanitizer they took twelve of fourteen minutes.
test-sanitizers: WITHOUT_THREADS := KernelTests|InstructionSetTests|SharedSumTests
test-sanitizers: ASAN := $(subst .build-test,.build-asan,$(TEST_BUILD)) --sanitize=address
test-sanitizers: TSAN := $(subst .build-test,.build-tsan,$(TEST_BUILD)) --sanitize=thread
test-sanitizers: | system
	$(SWIFT) build $(ASAN) --build-tests
	$(SWIFT) test $(ASAN) --skip-build --disable-xctest
	$(SWIFT) run $(ASAN) usae-fuzz-abi 1 20000
	$(SWIFT) build $(TSAN) --build-tests
	$(SWIFT) test $(TSAN) --skip-build --disable-xctest --skip '$(WITHOUT_THREADS)'
	$(SWIFT) run $(TSAN) usae-fuzz-abi 2 5000

test-abi: | system
	$(SWIFT) run $(TEST_BUILD) usae-abi-test
	$(SWIFT) run $(TEST_BUILD) usae-fuzz-abi 1 20000
	clang++ -fsyntax-only -std=c++17 -Wall -Wextra -Wpedantic -Werror -x c++ Sources/CUSAE/usae.c -I Sources/CUSAE/include

test-instruction-sets: .venv/.installed
	tools/check_instruction_sets.sh .build-wheel/release

test-arm64:
	SWIFT='$(SWIFT)' tools/test_arm64.sh

test-python: .venv/.installed | browser
	$(BIN)/python -m pytest python/tests

test-demo: .venv/.installed
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(BIN)/usae demo --small --output "$$folder" && $(BIN)/usae demo --small --networks small --output "$$folder"

test-wheel: dist/.wheel
	SWIFT='$(SWIFT)' tools/test_wheel.sh dist/usae-*.whl $(PYTHON)

test-matrix: dist/.wheel
	$(BIN)/python tools/test_matrix.py dist/usae-*.whl

# A short run of each is part of `make test`.
fuzz: .venv/.installed
	$(SWIFT) run $(TEST_BUILD) usae-fuzz-abi $(FUZZ_SEED) 200000
	$(BIN)/python python/fuzz/files.py --seed $(FUZZ_SEED) --cases 20000 --seconds 300
	$(BIN)/python python/fuzz/functions.py --seed $(FUZZ_SEED) --cases 5000 --seconds 300
	$(BIN)/python python/fuzz/cli.py --seed $(FUZZ_SEED) --cases 400 --seconds 300

# --- Results ----------------------------------------------------------------------------------------------------------

demo: .venv/.installed
	$(BIN)/usae demo --output demo-output

# Strict: a link that leads nowhere is an error.
docs: .venv/.docs
	$(BIN)/python tools/docs_site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict

bench-%: .venv/.installed
	$(BIN)/python benchmarks/run.py $*

wheel: dist/.wheel
	@ls dist/usae-*

release: .venv/.release
	SWIFT='$(SWIFT)' $(BIN)/python tools/release.py

clean:
	rm -rf .venv .build .build-test .build-asan .build-tsan .build-wheel* build dist demo-output site python/*.egg-info
	rm -f python/usae/*.so
