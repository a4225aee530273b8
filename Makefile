# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
KERNEL_SOURCES := $(wildcard model/anytime_model/kernels/native/*) model/anytime_model/kernels/build.py
TESTS ?= tests
ENGINE_TESTS := $(wildcard tests/model/test_engines_*.py tests/model/test_native_*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format sanitize picture bench bench-engine bench-server clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(KERNELS) ## Make .venv with everything, at the versions of constraints.txt, and compile the kernels.

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing packages (PyTorch is the large one, some minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(KERNELS): $(STAMP) $(KERNEL_SOURCES)
	@echo "Compiling the native kernels ..."
	@$(BIN)/python -m anytime_model.kernels.build > /dev/null \
	  || echo "No native kernels: everything works all the same, computed by torch. Install g++ and run make setup."
	@touch $@

demo: setup ## Start the server on the shipped weights, stream a street through all exits, leave the page running.
	$(BIN)/anytime demo --weights weights --out artifacts/demo

serve: setup ## Run the server in the foreground (http://127.0.0.1:8000).
	$(BIN)/anytime-server serve

test: setup ## Run all tests (pass TESTS=tests/model for a part).
	$(BIN)/python -m pytest $(TESTS)

check: setup ## Lint, format check, types, and who may import whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Rewrite sources in the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize: setup ## Run the engines' tests with kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
	ANYTIME_SANITIZE=1 $(BIN)/python -m anytime_model.kernels.build
	ANYTIME_SANITIZE=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(BIN)/python -m pytest -k "not openvino" $(ENGINE_TESTS)

picture: setup ## Make the README's picture from the shipped weights (with a server running).
	$(BIN)/anytime stream client/web/samples/street-1.jpg --sheet docs/street-exits.png

bench: bench-engine bench-server ## Run both benchmarks.

bench-engine: setup ## Our engine beside torch, ONNX Runtime and OpenVINO, as ratios of one run.
	$(BIN)/python bench/engine.py --preset w18
	$(BIN)/python bench/engine.py --preset w48

bench-server: setup ## Overhead, cancellation, pings under load, and kept deadlines of the server.
	$(BIN)/python bench/server.py

clean: ## Remove the environment and all caches.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis artifacts
