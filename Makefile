# `make demo` and `make test` do all their set-up themselves.

# A test run starts thousands of processes: what they import is compiled once.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
# Processes that run tests beside each other; 0: all in one.
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

ROUNDS ?= 7

.PHONY: help bench demo test again soak lint peers venv install uninstall clean

help:
	@echo "make demo   a study goes in, a pipeline runs on it, the journey is printed"
	@echo "make test   ruff, mypy, pytest, against real DICOM peers"
	@echo "make soak   the long tests: every kill point, 200 random kills, power cuts, 1000 associations"
	@echo "make bench  the gateway beside DCMTK, Orthanc and pynetdicom, about an hour; PARTS=\"receive latency\" chooses"
	@echo "make install, make uninstall   on this machine; see docs/installation.md"
	@echo "make lint   ruff and mypy alone"
	@echo "make venv   the virtual environment in $(VENV)"
	@echo "make clean  delete $(VENV) and what tools left"

venv: $(STAMP)

$(STAMP): pyproject.toml $(wildcard actors/receiver/native/*)
	@PYTHON="$(PYTHON)" tools/make-venv "$(VENV)"

demo: $(STAMP)
	@$(BIN)/python -m demo.demo

peers:
	@tools/install-peers

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: peers lint
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) || { \
		code=$$?; [ $$code = 1 ] || exit $$code; $(MAKE) --no-print-directory again; }

# Tests that failed beside others (code 1) fail the run when they fail alone too; that they failed once stands above.
# Whatever else ends pytest is no test's failure, and has no second try.
again:
	@echo "make: the tests that failed are run once more, alone"
	$(BIN)/pytest -n 0 --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

soak: peers $(STAMP)
	$(BIN)/pytest -m soak $(PYTEST_ARGS)

bench: peers $(STAMP)
	$(BIN)/python -m bench $(PARTS) --rounds $(ROUNDS) $(BENCH_ARGS)

install:
	@PYTHON="$(PYTHON)" tools/install

uninstall:
	@tools/install uninstall

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	rm -f actors/receiver/_lane.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
