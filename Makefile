# Each target does its own set-up in a local virtual environment and can be run alone in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
RUNS ?= runs/demo

.PHONY: demo test check bench clean docs

demo: $(STAMP)
	$(BIN)/perimetry demo --out $(RUNS)

# One thread a process: tests fork children, and a child of a process that has OpenMP threads can hang.
# The page is tested in Chromium, which is looked for and, where there is none, installed; what cannot be had is said and skipped.
test: $(STAMP)
	$(BIN)/python -m tests.monitor.web.install $(VENV)/.browser
	env $$(cat $(VENV)/.browser) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/house

bench: $(STAMP)
	$(BIN)/python benchmarks/train_step.py --out runs/bench/train_step.json
	$(BIN)/python benchmarks/score.py --out runs/bench/score.json
	$(BIN)/python benchmarks/harvest.py --out runs/bench/harvest.json
	$(BIN)/python benchmarks/probing.py --out runs/bench/probing.json
	$(if $(PEERS),$(BIN)/python benchmarks/fidelity_agreement.py --peers $(PEERS) --out runs/bench/fidelity_agreement.json)
	$(if $(PEERS),$(BIN)/python benchmarks/probing_agreement.py --peers $(PEERS) --out runs/bench/probing_agreement.json)
	$(BIN)/python benchmarks/serve.py --out runs/bench/serve.json
	$(BIN)/python benchmarks/kills.py --out runs/bench/kills.json

docs: $(STAMP)
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_results.py

# The build itself runs without isolation, so that its back end is pinned by the constraints too.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "perimetry needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0 hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
