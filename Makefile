# Two commands do everything: `make demo` (the whole loop) and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint check install extras lock bench kills clean coverage hostile smoke trials trials-http

demo: install ## set up, then the whole loop, from nothing to a served answer
	$(BIN)/srghn demo

.PHONY: shift
shift: install ## the world moves twice and is then unknown: alarm, diagnosis, run, recall (5 minutes)
	rm -rf .srghn-shift && mkdir .srghn-shift
	SRGHN_HOME=.srghn-shift $(BIN)/srghn demo --shift --json > .srghn-shift/told.json
	$(BIN)/python -m tests.pipelines.demo.closed .srghn-shift/told.json .srghn-shift docs/results

test: install ## set up, then all tests but the long ones, one process per core
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: install ## ruff, mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## everything that must hold before a commit

install: $(STAMP) ## set up .venv with the locked versions; does nothing when up to date

# pip would compile on one core. A file for another Python does not compile (torch has one), and is not imported.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked versions into $(VENV) (minutes, the first time) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

extras: install ## add EnvPool (740 MB); its tests are skipped without it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements.lock "envpool==1.2.5"

lock: ## resolve pyproject.toml anew and write requirements.lock (needs pip 25.1 or later)
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report .lock.json \
	  ".[all]" --group dev hatchling editables
	$(BIN)/python .ci/lock.py .lock.json > requirements.lock.new
	rm .lock.json && mv requirements.lock.new requirements.lock

.PHONY: worlds
worlds: install ## environments and networks from outside, to a served answer; run again, it goes on
	@test -x .venv-worlds/bin/python || $(BIN)/python -m venv .venv-worlds
	@$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
	  > "$$(.venv-worlds/bin/python -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
	@.venv-worlds/bin/python -m pip install --quiet --disable-pip-version-check ".[worlds]" || \
	  { echo "make worlds: the packages of the extra 'worlds' were not installed; they come from PyPI,"; \
	    echo "so this needs a network, or a mirror in PIP_INDEX_URL. Run it again: it goes on."; exit 1; }
	.venv-worlds/bin/python -W ignore -m tests.matrix.run

bench: install ## measure against the peers that are installed
	$(BIN)/srghn bench --quick

kills: install ## SIGKILL at named write boundaries: 100 runs, 300 writers of a ledger, 200 servers and commands
	$(BIN)/python -m tests.benchmarks.kills --runs 100
	$(BIN)/python -m tests.benchmarks.ledger_kills --kills 300
	$(BIN)/python -m tests.benchmarks.service_kills --kills 200

.PHONY: long
long: install ## the tests that take minutes: docs/results/long.csv
	$(BIN)/pytest -m long --results docs/results/long.csv

.PHONY: hosts
hosts: install ## two hosts, one ledger and one artefact store: a run taken, cut off, resumed and served elsewhere
	$(BIN)/python -m tests.benchmarks.hosts

coverage: install ## the tests, and which lines none of them runs (.coverage, htmlcov/index.html)
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder \
	  --cov=srghn --cov=regression_suite --cov=serving --cov=pipelines \
	  --cov-report=term:skip-covered --cov-report=html

SMOKE_PYTHONS ?= python3.12 python3.13
SMOKE_EXTRAS  ?= evolve,serve,client

smoke: ## install under each other Python there is, and run tests/smoke.py with it
	@for python in $(SMOKE_PYTHONS); do \
	  $$python -c "" 2>/dev/null || { echo "$$python: not installed, skipped"; continue; }; \
	  folder=$$(mktemp -d) && $$python -m venv $$folder && \
	  $$folder/bin/python -m pip install --quiet --disable-pip-version-check ".[$(SMOKE_EXTRAS)]" && \
	  $$folder/bin/python tests/smoke.py; code=$$?; rm -rf $$folder; [ $$code = 0 ] || exit $$code; \
	done

trials: install ## simulated trials, 400 a row: fills in the missing rows of docs/results/trials.csv
	$(BIN)/python -m pipelines.lab.trials docs/results/trials.csv
	$(BIN)/python -m pipelines.lab.trials docs/results/liars.csv

trials-http: install ## 60 trials over HTTP by 50 clients, each decision held against the simulator's
	$(BIN)/python -m tests.benchmarks.trials_http --trials 20 --table docs/results/trials-http.csv

.PHONY: watching
watching: install ## how often watch and diagnosis are right: docs/results/{watch-*,diagnosis}.csv
	nice $(BIN)/python -m pipelines.lab.watching docs/results
	nice $(BIN)/python -m pipelines.lab.diagnosing docs/results

hostile: install ## what bad bodies cost the server, as multiples of a valid one
	$(BIN)/python -W ignore -m tests.benchmarks.hostile --megabytes 0.4
	$(BIN)/python -W ignore -m tests.benchmarks.hostile --megabytes 4
	$(BIN)/python -W ignore -m tests.benchmarks.hostile --megabytes 0.4 --native
	$(BIN)/python -W ignore -m tests.benchmarks.hostile --megabytes 4 --native

.PHONY: unattended
unattended: install ## each part of the loop killed in turn under clients, cancel, cron, screens: 12 minutes idle
	$(BIN)/python -W ignore -m tests.benchmarks.loop_kills --table docs/results/unattended.csv

.PHONY: swaps
swaps: install ## 100 champion swaps under 32 connections, a worker killed meanwhile
	$(BIN)/python -W ignore -m tests.benchmarks.swaps

.PHONY: soak
soak: install ## 20 minutes at half load: memory, p99, and what SIGTERM drops
	$(BIN)/python -W ignore -m tests.benchmarks.soak

.PHONY: fuzz
fuzz: install ## 10,000 cases of Schemathesis over all endpoints, and 200 walks from answer to answer
	$(BIN)/python -W ignore -m tests.benchmarks.fuzz --cases 15000

clean: ## remove what the build made; never .srghn, which holds your ledger
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov

.PHONY: calibration
calibration: install ## simulate thousands of gates and write docs/calibration.md: 2 minutes idle
	nice $(BIN)/python -m regression_suite.calibration.program docs
