# Every target does its own set-up. `make help` lists them; `make ci` is exactly what CI runs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := .uv/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
# Where no bytecode may be kept, each process that a test starts compiles K2 and its libraries again.
unexport PYTHONDONTWRITEBYTECODE
LOCK := requirements/dev.lock
# Coverage is measured only where its floor is proved: tracing makes other tests a third slower.
COVERED := tests/property tests/unit/degrade tests/unit/market tests/unit/query
PYTEST := $(BIN)/pytest --dist loadfile --no-loadscope-reorder -o console_output_style=classic
EXTRAS := --extra server --extra local --extra notebook --extra mcp --extra dev

.uv/stamp: requirements/uv.lock
	@python3 -m venv .uv
	@.uv/bin/pip install -q --require-hashes -r requirements/uv.lock
	@touch $@

# Synced only when the lock or the project file changed: a sync under a live stack would pull k2 from under it.
.venv/stamp: .uv/stamp $(LOCK) pyproject.toml
	@$(UV) venv -q --allow-existing --python "$$(python3 -c 'import sys; print(sys.executable)')" .venv
	@$(UV) pip sync -q --require-hashes $(LOCK)
	@$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup up down demo demo-quick demo-reset test-e2e-health screenshots test test-slow test-tools sim ci bench chaos overload gen catalogue boards lock lint types layers protos help

setup: .venv/stamp ## bring uv and the pinned environment into .venv

up: setup ## run K2 on this machine: broker, registry, feed, lake, query, control
	@$(UV) run k2 up

down: setup ## stop the K2 that `make up` or `k2 up -d` started
	@$(UV) run k2 down

demo: setup ## the demonstration in 12 minutes; starts a simulated stack where none runs (DEMO=--no-wait)
	@$(UV) run k2 demo --start $(DEMO)

demo-quick: setup ## the same in 5 minutes
	@$(UV) run k2 demo --start --quick $(DEMO)

demo-reset: setup ## restart the simulated stack empty, on the same ports, in at most 30 s
	@$(UV) run python scripts/demo_mode.py --reset

test-e2e-health: setup ## look at each address: healthy, failed, or not part of this stack
	@$(UV) run k2 demo health

screenshots: setup ## pictures of the status page of the running stack, in docs/images
	@$(UV) run k2 demo screenshots

test: setup ## every guarantee once, at most 8 minutes on 2 cores: all tests that are not slow
	@echo "1 of 2: the modules that decide, with their coverage floor"
	@$(PYTEST) -n 2 -m "not slow" --cov --cov-report=term:skip-covered $(COVERED)
	@echo "2 of 2: all other modules, the simulation, real brokers and registries, one whole stack"
	@$(PYTEST) -n 3 -m "not slow" $(COVERED:%=--ignore=%)

test-slow: setup ## the rest: disasters again and again, whole stacks, chaos in small form
	@$(PYTEST) -n 3 -m slow

test-tools: setup ## tests that need Prometheus, promtool, Docker Compose, dclint or Go; brings them, skips none
	@scripts/install_tools
	@PATH="$(CURDIR)/.tools/bin:$(CURDIR)/.tools/node_modules/.bin:$$PATH" K2_TEST_TOOLS=1 \
		$(BIN)/pytest -m tools -o console_output_style=classic

lint: setup ## style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## types
	@$(BIN)/mypy

layers: setup ## the layers of ARCHITECTURE.md
	@$(BIN)/lint-imports --no-cache

protos: setup ## proto style, compatibility with what clients know, generated code up to date
	@scripts/check_protos

gen: setup ## regenerate k2/v1 from protos/
	@scripts/generate_protos

catalogue: setup ## write docs/metrics.md again from the declared metrics
	@$(BIN)/python -m scripts.metrics_catalogue

boards: setup ## build the boards of compose/observe again from scripts/boards.py
	@$(BIN)/python -m scripts.boards

lock: .uv/stamp ## pin the dependencies of pyproject.toml again
	@$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header $(EXTRAS) pyproject.toml -o $(LOCK)

bench: setup ## measure (at most 10 minutes), judge the ratios; writes bench-results/
	@$(BIN)/python -m tests.bench

sim: setup ## simulate SEEDS histories of writers, feeds and queries under faults (SEEDS=200)
	@$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),200)

overload: setup ## five times what the writer takes for SECONDS=300 on a real stack, then the whole account
	@$(BIN)/python -m tests.chaos.overload --seconds $(or $(SECONDS),300) --hold $(or $(HOLD),600)

chaos: setup ## a storm of faults on a real stack for MINUTES=20, then the whole account
	@$(BIN)/python -m tests.chaos.storm --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1)

ci: lint types layers protos test test-slow ## exactly what CI runs, at most 25 minutes on 2 cores

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 26
