# Everything a newcomer needs. `make help` lists it.
# Setting up and running is start.py's to do, which needs no make; these are short names for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?=
CAMVID ?= data/camvid
LSPET ?= data/lspet
KEYPOINTS ?= data/lspet-keypoints.npz
SECONDS ?= 60
EXAMPLES ?= 20000
MODEL ?= camvid-w18
LITSERVE := .cache/litserve/.installed
NNCF := .cache/nncf/.installed
ENGINE_TESTS := tests/model/engines tests/model/kernels

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-fast test-ecosystem check audit format sanitize picture page-pictures bench bench-engine bench-server bench-overload bench-video paper weights-camvid-lite weights-camvid-w18 weights-lspet clean test-faults fuzz test-suites bench-nncf test-arm test-ray test-ray-chaos bench-ray

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with everything, at the versions of constraints.txt, and compile the kernels.
	@$(PYTHON) start.py setup

demo: ## Start the server on the shipped weights, stream a street through all exits, leave the page running.
	@$(PYTHON) start.py demo

serve: ## Run the server in the foreground (http://127.0.0.1:8000).
	@$(PYTHON) start.py serve

test: ## Run all tests (pass TESTS=tests/model for a part).
	@$(PYTHON) start.py test $(TESTS)

test-fast: ## Run the tests that take less than a minute together: no system and no learning tests.
	@$(PYTHON) start.py test -m "not slow" --ignore=tests/system --ignore=tests/model/training --hypothesis-profile=fast

INTEGRATIONS := $(notdir $(patsubst %/requirements.txt,%,$(wildcard integrations/*/requirements.txt)))

test-ecosystem: setup ## Test with Triton's, KServe's and the Open Inference client and the SDKs of the integrations' hosts, each in an environment of its own.
	$(BIN)/python tests/ecosystem/environments.py tritonclient open-inference kserve $(INTEGRATIONS)
	$(BIN)/python -m pytest -n 0 tests/ecosystem/test_clients_of_others.py tests/integrations

test-suites: setup ## Test with schemathesis, the Autobahn cases, AsyncAPI's schema and Envoy, downloaded into environments of their own.
	$(BIN)/python tests/ecosystem/environments.py schemathesis kosoku envoy
	$(BIN)/python -m pytest -n 0 -rs tests/ecosystem/test_suites_of_others.py tests/system/test_two_servers_behind_a_proxy.py

test-ray: setup ## Test with a real Ray on this machine (`anytime-server ray`), downloaded into an environment of its own (0.5 GB).
	$(BIN)/python tests/ecosystem/environments.py ray
	$(BIN)/python -m pytest -n 0 -rs tests/ecosystem/test_ray_serve.py tests/ecosystem/test_ray_replicas.py

test-ray-chaos: setup ## Send 10,000 requests to a real Ray while its replicas are killed, added, taken away and replaced.
	$(BIN)/python tests/ecosystem/environments.py ray
	$(BIN)/python -m pytest -n 0 -s --chaos-requests 10000 tests/ecosystem/test_ray_chaos.py

test-faults: setup ## Provoke faults on real server processes, for a minute each where they go on (the suite: for seconds).
	$(BIN)/python -m pytest -n 0 --timeout 600 --fault-seconds 60 tests/system/faults

fuzz: setup ## Feed damaged photos, arrays, frames and headers to their readers, long (EXAMPLES=20000 each; the suite: 100).
	EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 --hypothesis-profile=fuzz tests/fuzz

check: setup ## Lint, format check, types, and who may import whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: ## Look up known holes of the pinned packages; says so where no advisories can be reached.
	@$(PYTHON) .ci/audit.py

format: setup ## Rewrite sources in the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize: setup ## Run the engines' tests with kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
	ANYTIME_SANITIZE=1 $(BIN)/python -m anytime_model.kernels.build
	ANYTIME_SANITIZE=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  $(BIN)/python -m pytest -k "not openvino" $(ENGINE_TESTS)

ARM_TESTS := tests/model/engines/native tests/model/engines/test_lite.py tests/model/kernels

test-arm: setup ## Run the engine's tests with kernels for ARM under an emulator (needs g++-aarch64-linux-gnu and qemu-user; minutes).
	PYTHONPATH=tests/arm $(BIN)/python -m pytest -n 0 --timeout 600 -p arm_kernels \
	  --ignore tests/model/kernels/test_build.py $(ARM_TESTS)

picture: setup ## Make the README's picture from the shipped weights (with a server running).
	$(BIN)/anytime stream client/web/samples/street-1.jpg --sheet docs/street-exits.png

page-pictures: setup ## Take docs' pictures of the page (with a server running that does nothing else, and Chromium).
	$(BIN)/python bench/page_pictures.py

bench: bench-engine bench-server ## Run both benchmarks.

bench-engine: setup ## Our engine beside torch, ONNX Runtime and OpenVINO, as ratios of one run.
	$(BIN)/python bench/engine.py --preset w18
	$(BIN)/python bench/engine.py --preset w48

bench-video: setup ## Videos frame by frame and with reuse (CAMVID=data/camvid), with docs/video-reuse.png.
	$(BIN)/python bench/video.py --data $(CAMVID) --max-difference 0.08 --picture docs/video-reuse.png

bench-nncf: $(NNCF) ## The environment in which bench/engine.py makes OpenVINO's int8.

$(NNCF): bench/nncf-requirements.txt
	$(PYTHON) -m venv .cache/nncf
	.cache/nncf/bin/pip install --quiet --requirement $<
	touch $@

bench-server: setup ## Overhead, cancellation, pings, kept deadlines (BESIDE=../old compares two checkouts).
	$(BIN)/python bench/server.py $(if $(BESIDE),--beside $(BESIDE))

bench-ray: setup ## What Ray's proxy adds to an answer, a first map and a cancel.
	$(BIN)/python tests/ecosystem/environments.py ray
	$(BIN)/python bench/ray_proxy.py

bench-overload: setup $(LITSERVE) ## Servers beyond their capacity, ours beside LitServe (SECONDS=60 a rate, MODEL=camvid-w18); draws docs/overload.png.
	$(BIN)/python bench/overload.py --seconds $(SECONDS) --model $(MODEL)

$(LITSERVE): bench/litserve-requirements.txt
	$(BIN)/python -m venv .cache/litserve
	.cache/litserve/bin/pip install --quiet --requirement $<
	touch $@

weights-camvid-lite: setup ## Train and export weights/camvid-lite (CAMVID=folder); run it again to go on.
	$(BIN)/anytime-model train --recipe camvid-lite --data $(CAMVID) --out runs/camvid-lite \
	  $(if $(wildcard runs/camvid-lite/progress.pt),--resume)
	$(BIN)/anytime-model finish --recipe camvid-lite --progress runs/camvid-lite/progress.pt --data $(CAMVID) \
	  --out weights --name camvid-lite --allowed-loss 0 --licence "CC BY-NC 4.0 (research use; trained on CamVid)" \
	  --description "Streets of one English city, seen from a car, in 11 classes; EfficientNet-Lite0 from ImageNet weights; trained on CamVid."

weights-camvid-w18: setup ## Train and export weights/camvid-w18 (CAMVID=folder); run it again to go on.
	$(BIN)/anytime-model train --recipe camvid-w18 --epochs 109 --data $(CAMVID) --out runs/camvid-w18 \
	  $(if $(wildcard runs/camvid-w18/progress.pt),--resume)
	test -e runs/camvid-w18/camvid-w18.safetensors || $(BIN)/anytime-model finish --recipe camvid-w18 \
	  --progress runs/camvid-w18/progress.pt --data $(CAMVID) --out runs/camvid-w18 --name camvid-w18 --scale 1.5 --half
	$(BIN)/anytime-model train --recipe camvid-w18-taught --data $(CAMVID) \
	  --init runs/camvid-w18/camvid-w18.safetensors --teacher weights/camvid-lite.safetensors \
	  --out runs/camvid-w18-taught $(if $(wildcard runs/camvid-w18-taught/progress.pt),--resume)
	$(BIN)/anytime-model finish --recipe camvid-w18-taught --progress runs/camvid-w18-taught/progress.pt \
	  --data $(CAMVID) --out weights --name camvid-w18 --scale 1.5 --licence "CC BY-NC 4.0 (research use; trained on CamVid)" \
	  --description "Streets of one English city, seen from a car, in 11 classes; W18, redesigned exits, masks; trained on CamVid, taught by camvid-lite."

weights-lspet: setup ## Train and export weights/lspet-w18 (LSPET=folder KEYPOINTS=file); run it again to go on.
	$(BIN)/anytime-model train --recipe lspet-w18 --epochs 11 --data $(LSPET) --out runs/lspet-w18 \
	  $(if $(wildcard runs/lspet-w18/progress.pt),--resume)
	test -e runs/lspet-w18/lspet-w18.safetensors || $(BIN)/anytime-model finish --recipe lspet-w18 \
	  --progress runs/lspet-w18/progress.pt --data $(LSPET) --out runs/lspet-w18 --name lspet-w18 --scale 0.8
	$(BIN)/anytime-model train --recipe lspet-w18-taught --data $(LSPET) --keypoints $(KEYPOINTS) \
	  --init runs/lspet-w18/lspet-w18.safetensors --out runs/lspet-w18-taught \
	  $(if $(wildcard runs/lspet-w18-taught/progress.pt),--resume)
	$(BIN)/anytime-model finish --recipe lspet-w18-taught --progress runs/lspet-w18-taught/progress.pt \
	  --data $(LSPET) --out weights --name lspet-w18 --scale 0.8 --allowed-loss 0.005 --licence "research use only (trained on LSPET)" \
	  --description "14 joints of one sporting person in the middle of the picture; W18, redesigned exits, masks; trained on LSPET."

paper: setup ## The paper's tables and claims with ours beside them: builds docs/PAPER.md.
	$(BIN)/python bench/paper.py

clean: ## Remove the environment and all caches.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis artifacts
