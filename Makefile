PYTHON ?= python3
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED = 0
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev browser strace demo serve test test-slow lint check bench bench-train bench-data bench-reward bench-scoring bench-serve bench-canary

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/.run ## install what `make demo` needs into .venv

.venv/.run: pyproject.toml constraints.txt embedded.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	@echo "Installing bb3x-ray into .venv (a few minutes the first time)"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r embedded.txt
	@touch $@

setup-dev: .venv/.dev ## and what the tests need

.venv/.dev: .venv/.run
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the main job: two rounds of talk, learning and handing over
	$(BIN)/bb3x run --config configs/local.yaml $(ARGS)

serve: setup ## chat with the champion on http://127.0.0.1:8000
	$(BIN)/bb3x serve --config configs/local.yaml $(ARGS)

browser: ## Chromium for the page tests (Debian; skipped elsewhere)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "no chromium: the page tests will be skipped"

strace: ## strace for the test of the log's syncs (Debian; skipped elsewhere)
	@command -v strace >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq strace >/dev/null; } || echo "no strace: one test will be skipped"

test: setup-dev browser strace ## all tests that end within 15 minutes
	$(BIN)/pytest -m 'not slow'

lint: setup-dev ## lint, format, types, the laws
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bb3x_ray
	$(BIN)/lint-imports

check: lint ## these, and unit tests
	$(BIN)/pytest -m 'not slow and not ray and not browser'

bench: setup-dev ## what is claimed of speed, measured side by side
	$(BIN)/python -m benchmarks

test-slow: setup-dev ## the tests that take longer: whole runs killed, as a job, with trolls; every ZeRO stage and precision
	$(BIN)/pytest -m slow

bench-train: .venv/.bench ## a training step beside its peers: about half an hour, alone on the machine
	$(BIN)/python -m benchmarks.train $(ARGS)

bench-data: setup-dev .venv/.bench ## the log at BlenderBot 3x's size: 6.2 million utterances, about 10 GB of disk; ARGS="growth" draws how it grows
	$(BIN)/python -m benchmarks.data $(ARGS)

bench-scoring: setup-dev ## scoring through Ray Data beside a bare loop, 20,000 rows: an hour on two cores; ARGS="--rows 2000"
	$(BIN)/python -m benchmarks.scoring $(ARGS)

bench-serve: setup-dev ## the chat server beside transformers serve and a static batch, alone on the machine: 20 minutes on two cores
	$(BIN)/python -m benchmarks.serve $(ARGS)

bench-reward: setup-dev ## the reward model on real thumbs and pairs, beside tf-idf; BB3X_TEST_DATA names the data's folder
	$(BIN)/python -m benchmarks.reward $(or $(ARGS),all)

bench-canary: setup-dev ## how often a canary is rolled back that should, and that should not, on simulated people
	$(BIN)/python -m benchmarks.canary $(ARGS)

.venv/.bench: .venv/.run
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
