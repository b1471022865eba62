# lxmert-export: all commands for newcomers. They need Python >= 3.11 and make, nothing else. (The package itself runs on 3.10.)
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
ORACLE := .venv-tf
BIN := $(VENV)/bin
DEMO := build/demo-pretraining-onnx-fp16
QUESTION := how many circles are there?
TEST_ARGS ?= -n 2 --dist worksteal
GPU_ARGS ?=
FLOOR_ARGS ?=
TRUST_ARGS ?=

export LXMERT_TF_ORACLE_PYTHON := $(abspath $(ORACLE)/bin/python)
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## Export the built-in checkpoint to fp16 ONNX, show the proof, and ask it about a picture
	$(BIN)/lxmert-export onnx --fp16 --attentions -o $(DEMO) --overwrite
	$(BIN)/lxmert-export verify $(DEMO)
	$(BIN)/lxmert-export inspect $(DEMO)
	$(BIN)/lxmert-export ask $(DEMO) --draw-scene 7 --image build/scene.png --overwrite \
		'$(QUESTION)' --save build/answer.png --word circles

train-demo: $(VENV)/.ready ## Train the built-in checkpoint again (under 45 minutes on 2 cores); continues where it stopped
	$(BIN)/python -m lxmert_export.training

# Two tests run at a time: threads of BLAS and OpenMP in each, and in what they start, would only wait for one another.
test quick: export OMP_NUM_THREADS := 1

test: $(VENV)/.ready $(VENV)/.browser $(ORACLE)/.ready ## Run the test suite; its ten slowest tests are listed at the end
	$(BIN)/python -m pytest --durations=10 $(TEST_ARGS)

quick: $(VENV)/.ready ## Run what to run between commits: one export a target, the golden files, the command line
	$(BIN)/python -m pytest --durations=10 $(TEST_ARGS) -m "quick and not oracle and not browser"

check: $(VENV)/.ready ## Check lint, format, types, import contracts, generated docs, and that every test can be collected
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m pytest --collect-only -qqq

map: $(VENV)/.ready ## Print the rooms of the code: lines, floors, who imports whom
	$(BIN)/python docs/map.py

docs: $(VENV)/.ready ## Write docs/api.md and docs/cli.md from the code
	$(BIN)/python docs/generate.py

parity: $(VENV)/.ready ## Export and judge every target at full size (214 M parameters), with time and memory; continues where it stopped
	$(BIN)/python -m benchmarks.full_size_parity

study: $(VENV)/.ready ## Judge thousands of correct checkpoints and every planted fault in every target; continues where it stopped
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.int8_study

trust: $(VENV)/.ready ## Damage files, kill and fail writers, share runners: every trial of docs/trust.md; hours; continues where it stopped
	$(BIN)/python -m benchmarks.trust $(TRUST_ARGS)

speed: $(VENV)/.ready ## Measure our files beside every peer at full size, and on the workload; on a quiet machine; continues where it stopped
	$(BIN)/python -m benchmarks.speed

benchmark: $(VENV)/.ready $(ORACLE)/.ready ## Compare conversion and tokenizers with transformers' own
	$(BIN)/python -m benchmarks.beside_transformers
	$(BIN)/python -m benchmarks.beside_tensorflow
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.tokenizers

gpu: $(VENV)/.ready ## On an NVIDIA GPU: compare full-size files with float64, and time them beside PyTorch and TensorRT
	$(BIN)/python -m benchmarks.gpu.check $(GPU_ARGS)

floors: $(VENV)/.ready ## Test the lowest and the newest of every declared version, on every Python that is found; continues where it stopped
	$(BIN)/python -m benchmarks.floors --pip-args='$(PIP_ARGS)' $(FLOOR_ARGS)

clean: ## Remove the environments and everything built
	rm -rf $(VENV) $(ORACLE) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

# Gets a Chromium for the tests of the HTML report, if there is none: Debian's if run as root, else Playwright's.
$(VENV)/.browser: $(VENV)/.ready parity_tests/reports/browser.py
	$(BIN)/python -m parity_tests.reports.browser
	touch $@

# tf_keras requires the package tensorflow (so --no-deps); for a test oracle tensorflow-cpu does the same.
$(ORACLE)/.ready: constraints-tensorflow.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints-tensorflow.txt transformers tensorflow-cpu torch h5py
	$(ORACLE)/bin/python -m pip install --quiet $(PIP_ARGS) --no-deps -c constraints-tensorflow.txt tf-keras
	touch $@

.PHONY: help demo train-demo test quick check map docs parity study trust speed benchmark gpu floors clean
