# make quickstart   the whole pipeline, small and real, on this machine
# make test         the tests
# make chaos        a study hit at random times, held against an undisturbed one (docs/reliability.md); an hour
# make test-hostile 26,000 generated and damaged files to the readers of rows and tables, instead of 1,300; minutes
# make venv         only the set-up, in .venv (the other two call it)
#
# With an NVIDIA GPU the set-up takes the CUDA build of torch; without one, the versions in constraints-cpu.txt.
# TORCH_INDEX may name a package index with CPU builds of torch, which saves gigabytes of CUDA libraries.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
GPU := $(shell nvidia-smi -L 2>/dev/null)

.PHONY: quickstart test test-hostile chaos venv lint clean

quickstart: venv
	$(BIN)/vvlm-ray quickstart

test: venv
	$(BIN)/python -m pytest

chaos: venv
	$(BIN)/python benchmarks/chaos.py --seeds 0 1 2 3 4 5 6 7 8 9

test-hostile: venv
	VVLM_RAY_HOSTILE=20 $(BIN)/python -m pytest tests/data/test_hostile_text.py tests/reality/tables/test_any_input.py --timeout 3000

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
ifneq ($(GPU),)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
else
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints-cpu.txt -e '.[dev]'
# torchvision's usual wheel is linked to CUDA; beside a CPU build of torch it fails to import and takes
# transformers' model imports with it. lmms-eval asks for it and runs without.
	$(BIN)/python -m pip uninstall --quiet --yes torchvision
endif
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
