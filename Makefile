# Every target makes its own .venv on a fresh machine. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
PEERS_BIN := $(PEERS)/bin
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: $(PYTHON) is Python " + \
	sys.version.split()[0] + ", and 3.11 or newer is needed: name it, as in make serve PYTHON=python3.12")'
# With pip's bars where a person looks on; a log gets one line.
PIP_INSTALL := pip install $(shell [ -t 2 ] || echo --quiet)
PIP := $(BIN)/$(PIP_INSTALL)
COMPOSE ?= docker compose -f compose.yaml -f docker/compose.check.yaml

.PHONY: help serve serve-both test check lint chaos models bench bench-gpu bench-service bench-scaling bench-diverse bench-distill bench-evaluation bench-memory bench-engine soak docs check-compose clean

serve: $(VENV)/serve.stamp  ## The service with the bundled model on http://localhost:8000
	$(BIN)/fourstep up

serve-both: $(VENV)/serve.stamp  ## The same with the teacher beside the student, to compare them in the playground
	$(BIN)/fourstep up models/emoji-student models/emoji-teacher

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 6 --dist loadfile --max-worker-restart 0

test: lint  ## The whole suite
	$(PYTEST)

check: lint  ## Style, types and the fast tests: what to run while you work
	$(PYTEST) -m "not slow"

lint: $(VENV)/test.stamp  ## Style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

chaos: $(VENV)/test.stamp  ## Images while workers, Redis, a bucket, API copies and connections break; under ten minutes, with LONG=1 an hour
	$(BIN)/python -m tests.chaos $(if $(LONG),--images 10000) --out bench/results/chaos.json
	$(BIN)/python -m tests.chaos --image-store s3 --images $(if $(LONG),5000,250) --out bench/results/chaos_s3.json
	$(BIN)/python -m tests.chaos.failover $(if $(LONG),--images 1000) --out bench/results/chaos_failover.json
	$(if $(PREVIOUS),$(BIN)/python -m tests.chaos.rolling $(PREVIOUS) --out bench/results/rolling.json)
	$(BIN)/python -m bench.service.power_cut
	$(BIN)/python -m tests.chaos.table

bench: $(PEERS)/stamp  ## Side by side with FastAPI, LitServe, BentoML and Ray Serve; 45 minutes, with QUICK=1 six minutes
	$(if $(QUICK),,$(PEERS_BIN)/python -m bench.comparison.tuning)
	$(if $(QUICK),,$(PEERS_BIN)/python -m bench.comparison.crash)
	$(PEERS_BIN)/python -m bench.comparison $(if $(QUICK),--quick)
	$(PEERS_BIN)/python -m bench.comparison.page --plots
	$(PEERS_BIN)/python -m bench.comparison.page.readme_table

bench-gpu: $(VENV)/test.stamp  ## A CUDA device, in nine minutes: steps, decoding, graphs, compiled code, text encoders, the service
	$(BIN)/python -m bench.gpu

bench-service: $(VENV)/test.stamp  ## The front end and the queue without an engine; one image alone beside the bare engine
	$(BIN)/python -m bench.service.front_end
	$(BIN)/python -m bench.service.front_end --latency

bench-engine: $(VENV)/test.stamp  ## The engine against diffusers, strict mode, step-level batching (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.engine.throughput
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.scheduling.arrivals
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.engine.strict
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.engine.bit_identity
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.gap
	$(BIN)/python -m bench.engine.roofline
	$(BIN)/python -m bench.scheduling.policies
	$(BIN)/python -m bench.scheduling.tables

soak: $(VENV)/test.stamp  ## 10,000 images, some cancelled or expired: is each accounted for, does memory stay flat; LONG=1: real ones, event streams
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.service.soak
	$(if $(LONG),OMP_NUM_THREADS=1 $(BIN)/python -m bench.service.soak --images 20000 --model models/emoji-student)
	$(if $(LONG),$(BIN)/python -m bench.service.stream_soak)

models: $(VENV)/test.stamp  ## Make the bundled models again from the artwork, or go on with it (hours; needs npm)
	$(BIN)/python -m distill.emoji --work build/emoji

bench-scaling: $(VENV)/test.stamp  ## What an image costs Redis; simulated and real workers; the tables of docs/scaling.md
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.scaling
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/python -m bench.scaling.tables

bench-diverse: $(VENV)/test.stamp  ## Diverse sets against random seeds, and what the diversity score is worth
	$(BIN)/python -m bench.diversity.score
	$(BIN)/python -m bench.diversity.previews
	$(BIN)/python -m bench.diversity.diverse_sets

bench-distill: $(VENV)/test.stamp  ## Student updates a second, against the order of the authors' loop
	$(BIN)/python -m bench.distill.updates

bench-evaluation: $(VENV)/test.stamp  ## Memory of an evaluation of 1,024 × 9 pictures of 1024² by two processes (minutes)
	$(BIN)/python -m bench.distill.evaluation

bench-memory: $(VENV)/test.stamp  ## Peak memory of training: three copies against LoRA roles (Linux)
	$(BIN)/python -m bench.distill.memory

$(VENV)/serve.stamp: pyproject.toml
	@test -x $(BIN)/pip || { $(NEW_ENOUGH) && $(PYTHON) -m venv $(VENV); }
	@echo "installing the packages of the worker into $(VENV), 2 to 5 minutes: 1.7 GB, and several more with PyTorch's build for CUDA"
	$(PIP) --editable '.[worker]'
	touch $@

$(VENV)/test.stamp: pyproject.toml
	@test -x $(BIN)/pip || { $(NEW_ENOUGH) && $(PYTHON) -m venv $(VENV); }
	@echo "installing the packages of the tests into $(VENV), 2 to 10 minutes: 2.8 GB, and several more with PyTorch's build for CUDA"
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/serve.stamp

$(PEERS)/stamp: pyproject.toml  # in an environment of its own: BentoML pins other versions than the tests have
	@test -x $(PEERS_BIN)/pip || { $(NEW_ENOUGH) && $(PYTHON) -m venv $(PEERS); }
	@echo "installing the servers to compare with into $(PEERS); minutes"
	$(PEERS_BIN)/$(PIP_INSTALL) --editable '.[peers]'
	touch $@

docs: $(VENV)/test.stamp  ## The documentation as a site in build/site, which needs no network
	$(BIN)/python -m docs.scripts.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "open build/site/index.html; for the search: $(BIN)/python -m http.server --directory build/site"

check-compose: $(VENV)/test.stamp  ## The compose stack, built and started for real; needs a Docker engine
	$(COMPOSE) build
	$(COMPOSE) up --detach --wait redis service worker prometheus
	COMPOSE="$(COMPOSE)" $(BIN)/python -m tests.operations.check_stack; status=$$?; $(COMPOSE) down --volumes; exit $$status

help:  ## Every target with what it does
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1: /p' Makefile

clean:  ## Remove the environments and what was built
	rm -rf $(VENV) $(PEERS) build
