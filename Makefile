# Evergreen: thin names for the commands that people use. `make help` lists them.
# Nothing but Linux, make and Python 3.11-3.14 has to be there; PYTHON=... chooses another interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.8
VENV := .venv
# What the packages take on the disk, with some room for the download.
NEEDS_MB := 1800
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
EVERGREEN := $(RUN) evergreen
# What it says of the next step names make.
export EVERGREEN_MAKE := 1
# Where it is set each process compiles the thousands of files that it imports: ten seconds, each time.
unexport PYTHONDONTWRITEBYTECODE
# The machine's certificates, as pip takes them: a company's own authority may be among them.
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt)
UV := UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=$(if $(CERTIFICATES),true,false) $(BIN)/uv
# On a terminal uv draws its progress; elsewhere it would list three hundred packages.
QUIET := $(if $(shell [ -t 2 ] && echo tty),,--quiet)
COMPILE := pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock"
DATA ?= simulated
# JSON=1 prints JSON, with each target that tells something.
AS_JSON = $(if $(JSON),--json)
IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

.PHONY: release coverage test-compose compose-env compose-up compose-status compose-down compose-demo compose-client help run venv up down status why history quarantine mail silence logs clean serve predict client demo check replay report test attack lint hooks docs bench bench-large decisions lock

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

venv: $(VENV)/.installed ## make .venv and install the locked requirements

up: $(VENV)/.installed ## start PostgreSQL, MLflow, Airflow, the prediction service and the mail catcher
	@$(EVERGREEN) up

demo: $(VENV)/.installed ## the whole story; DATA=simulated or DATA=bike_sharing
	@$(EVERGREEN) demo --data "$(DATA)"

check: $(VENV)/.installed ## check the specs in include/
	@$(EVERGREEN) check

run: $(VENV)/.installed ## trigger a DAG and wait; DAG=train__bike_demand PARAMS="reason=test"
	@$(EVERGREEN) run "$(DAG)" $(PARAMS) $(AS_JSON)

replay: $(VENV)/.installed ## compare retraining policies over past time; MODEL=bike_demand FROM=2025-06-02 TO=2025-12-15
	@$(EVERGREEN) replay "$(MODEL)" --from "$(FROM)" --to "$(TO)" $(if $(POLICIES),--policies $(POLICIES))

serve: $(VENV)/.installed ## the prediction service alone, until Ctrl-C, for a warehouse elsewhere (the stack has its own); PORT=8088
	@$(EVERGREEN) serve $(if $(PORT),--port "$(PORT)")

report: $(VENV)/.installed ## draw the report of a judged window; MODEL=bike_demand WINDOW=2025-06-02
	@$(EVERGREEN) report "$(MODEL)" "$(WINDOW)" $(if $(VERSION),--version "$(VERSION)")

# These work on what `make up` made, so they install nothing.
define existing
	@if [ -x $(BIN)/python ]; then exec $(EVERGREEN) $(1); else echo "Nothing is installed here yet; \`make up\` starts the stack."; fi
endef

down: ## stop the stack; nothing is lost
	$(call existing,down)

status: ## what needs you, how models and datasets are, what is up; exit code 0 only if all is
	$(call existing,status $(AS_JSON))

why: ## why a version is champion, or is not; MODEL=bike_demand VERSION=3
	$(call existing,why "$(MODEL)" $(VERSION) $(AS_JSON))

history: ## what was decided; MODEL=bike_demand KIND=promoted SINCE=2026-01-01 LIMIT=50
	$(call existing,history "$(MODEL)" $(if $(KIND),--kind "$(KIND)") $(if $(REASON),--reason "$(REASON)") $(if $(SINCE),--since "$(SINCE)") $(if $(LIMIT),--limit "$(LIMIT)") $(AS_JSON))

quarantine: ## the rows that are held back; DATASET=bike_hourly BATCH=7 LIMIT=50
	$(call existing,quarantine "$(DATASET)" $(BATCH) $(if $(LIMIT),--limit "$(LIMIT)") $(AS_JSON))

mail: ## list the caught e-mails; N=3 prints the third, WEB=1 shows all in a browser
	$(call existing,mail $(N) $(if $(WEB),--web) $(AS_JSON))

predict: ## predictions of a CSV file's lines; MODEL=bike_demand FILE=hours.csv, OUTPUT=predicted.csv, BYKEY=1: the columns are the key
	$(call existing,predict "$(MODEL)" "$(FILE)" $(if $(OUTPUT),--output "$(OUTPUT)") $(if $(BYKEY),--by-key) $(AS_JSON))

client: ## who may ask the prediction service; NAME=web-shop makes a client and prints its key: MODELS=bike_demand RATE=50; REVOKE=1 ends it
	$(call existing,client $(if $(NAME),$(if $(REVOKE),revoke,add) "$(NAME)" $(if $(MODELS),--models "$(MODELS)") $(if $(RATE),--rate "$(RATE)"),list) $(AS_JSON))

# What a person writes may hold any character, so it goes through the environment and no shell reads it.
silence: export EVERGREEN_SILENCE_MODEL = $(value MODEL)
silence: export EVERGREEN_SILENCE_DATASET = $(value DATASET)
silence: export EVERGREEN_SILENCE_UNTIL = $(value UNTIL)
silence: export EVERGREEN_SILENCE_REASON = $(value REASON)
silence: ## keep alerts back; MODEL=bike_demand UNTIL=3d REASON="sensor is moved"; UNTIL=now ends it
	$(call existing,silence --model "$$EVERGREEN_SILENCE_MODEL" --dataset "$$EVERGREEN_SILENCE_DATASET" --until "$$EVERGREEN_SILENCE_UNTIL" --reason "$$EVERGREEN_SILENCE_REASON")

logs: ## list the logs; NAME=scheduler prints the end of one
	$(call existing,logs $(NAME))

clean: ## stop the stack and remove .evergreen with all its data, after a question; YES=1 does not ask
	$(call existing,clean $(if $(YES),--yes))

# On a server there is Docker and no virtual environment; another compose command may be named: COMPOSE="podman compose".
COMPOSE ?= docker compose
IN_COMPOSE := $(COMPOSE) -f docker-compose.yaml
# The image holds no repository; what runs out of a checkout reads its commit itself.
compose-up compose-demo test-compose: export EVERGREEN_COMMIT = $(shell git rev-parse HEAD 2>/dev/null)

# Compose takes the profiles of a command in place of those in .env.
comma := ,
KEPT = $(addprefix --profile ,$(subst $(comma), ,$(shell sed -n 's/^COMPOSE_PROFILES=//p' .env 2>/dev/null)))

compose-env: ## write .env with a secret for each part of docker-compose.yaml; what is there stays. STORE=s3: with a store that all workers see
	@PYTHONPATH=include $(or $(PYTHON),python3) -m evergreen compose-env $(if $(STORE),--store "$(STORE)")

compose-up: compose-env ## build the image and start the stack of docker-compose.yaml; WORKERS=3, METRICS=1: with Prometheus and Grafana, STORE=s3
	@$(if $(METRICS),AIRFLOW_STATSD=True )$(IN_COMPOSE) $(KEPT) $(if $(METRICS),--profile metrics )up --detach --build --wait $(if $(WORKERS),--scale airflow-worker=$(WORKERS))
	@$(MAKE) --no-print-directory compose-status

compose-status: ## what of the compose stack is up
	@$(IN_COMPOSE) ps --all --format 'table {{.Service}}\t{{.State}}\t{{.Health}}\t{{.RunningFor}}\t{{.Ports}}'

compose-down: ## stop the compose stack; nothing is lost. VOLUMES=1 removes its data too, after a question (YES=1: without)
	@if [ -n "$(VOLUMES)" ] && [ -z "$(YES)" ]; then \
	    read -rp "This removes the databases, models and landed files of the compose stack. Type yes: " answer; [ "$$answer" = yes ]; fi
	@$(IN_COMPOSE) --profile dev --profile metrics --profile s3 --profile tools down $(if $(VOLUMES),--volumes)

compose-demo: compose-env ## the story of `make demo` on the compose stack, with two workers and the mail catcher; STORE=s3
	@EVERGREEN_SCHEDULES=off $(IN_COMPOSE) $(KEPT) --profile dev up --detach --build --wait --scale airflow-worker=$(or $(WORKERS),2)
	@EVERGREEN_SERVING_KEY="$$($(IN_COMPOSE) run --rm --no-deps -T init evergreen client add "demo-$$(date +%s)" --json | sed -n 's/.*"key": "\([^"]*\)".*/\1/p')" \
	    EVERGREEN_SCHEDULES=off $(IN_COMPOSE) run --rm --no-deps demo
	@$(IN_COMPOSE) cp airflow-scheduler:/var/lib/evergreen/demo/simulated.png compose-demo.png
	@echo "picture: compose-demo.png; Airflow http://$$($(IN_COMPOSE) port airflow-apiserver 8080), user admin, AIRFLOW_PASSWORD in .env; mail http://$$($(IN_COMPOSE) --profile dev port mail 8025); predictions http://$$($(IN_COMPOSE) port serving 8088)/models, a key: make compose-client NAME=me"

compose-client: ## who may ask the prediction service of the compose stack; NAME=web-shop makes a client: MODELS=bike_demand RATE=50; REVOKE=1 ends it
	@$(IN_COMPOSE) run --rm --no-deps init evergreen client $(if $(NAME),$(if $(REVOKE),revoke,add) "$(NAME)" $(if $(MODELS),--models "$(MODELS)") $(if $(RATE),--rate "$(RATE)"),list) $(AS_JSON)

lint: $(VENV)/.installed-dev ## ruff, its format, and mypy
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

hooks: $(VENV)/.installed-dev ## run the quick checks before each commit (.pre-commit-config.yaml)
	$(RUN) pre_commit install

# It needs nothing of Evergreen's packages, so it installs none of them.
docs: $(VENV)/.installed-docs ## the documentation as a site in build/site; every link and anchor is checked
	$(BIN)/python docs/site_pages.py
	$(BIN)/zensical build --strict --clean

test: lint ## lint, types and all tests; ARGS=... goes to pytest
ifdef ARGS
	$(RUN) pytest $(ARGS)
else
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder tests/attack tests/dags tests/unit
	$(RUN) pytest tests/e2e
endif

coverage: $(VENV)/.installed-dev ## how much of the library the tests run, file by file; PARTS="tests/unit/metrics" for a part of them
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(or $(PARTS),tests/attack tests/dags tests/unit)

test-compose: $(VENV)/.installed-dev ## run the compose stack, its demo and its kills with a real engine; COMPOSE="docker compose" (an hour)
	COMPOSE="$(COMPOSE)" $(RUN) pytest tests/compose $(ARGS)

attack: $(VENV)/.installed-dev ## try to break it; PARTS="kills files", SEED=7; writes docs/reliability.md (an hour)
	$(RUN) pytest $(if $(PARTS),$(PARTS:%=tests/attack/test_attack_%.py),tests/attack) --whole $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.installed-dev ## measure against plain scripts; writes benchmarks/RESULTS.md (an hour)
	$(RUN) benchmarks.answers
	$(RUN) benchmarks $(PARTS)

bench-large: $(VENV)/.installed-dev ## the same with ten million rows; 12 GB of disk
	$(RUN) benchmarks --large $(PARTS)

decisions: $(VENV)/.installed-dev ## are alarms and promotions right? writes benchmarks/DECISIONS.md
	$(RUN) benchmarks.decisions $(PARTS)

release: $(VENV)/.installed ## build dist/evergreen-*.whl, and check it in a clean environment with what it declares; needs CHANGELOG.md's section
	@version=$$($(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])'); \
	$(BIN)/python deploy/release.py notes "v$$version" >/dev/null; \
	rm -rf build dist; $(UV) build $(QUIET) --wheel --no-build-isolation --python $(BIN)/python --out-dir dist .; \
	clean=$$(mktemp -d); trap 'rm -rf "$$clean"' EXIT; \
	$(UV) venv --quiet --python $(BIN)/python "$$clean/venv"; \
	wheel=$$(echo dist/evergreen-"$$version"-*.whl); \
	$(UV) pip install $(QUIET) --python "$$clean/venv/bin/python" "$$wheel[stack,channels,dask,lineage,metrics]"; \
	env -u EVERGREEN_MAKE $(BIN)/python deploy/release.py wheel "$$wheel" --evergreen "$$clean/venv/bin/evergreen"

lock: $(BIN)/uv ## renew requirements.txt and those for development, docs and the image
	$(UV) $(COMPILE) --python-version 3.11 --all-extras pyproject.toml requirements.in --output-file requirements.txt
	$(UV) $(COMPILE) --python-version 3.11 --excludes requirements-dev-excludes.in requirements-dev.in --output-file requirements-dev.txt
	$(UV) $(COMPILE) --python-version 3.11 requirements-docs.in --output-file requirements-docs.txt
	$(UV) $(COMPILE) --python-version 3.12 -c requirements.txt requirements-image.in --output-file requirements-image.txt

$(BIN)/uv:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3.10 python3); do \
	    if "$$python" -c '$(IS_SUPPORTED)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "No Python 3.11-3.14 found$(if $(PYTHON), as $(PYTHON),); install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	if ! "$$found" -m venv --clear $(VENV) >$(VENV).log 2>&1; then \
	    rm -rf $(VENV); tail -n 1 $(VENV).log >&2; rm -f $(VENV).log; \
	    echo "$$found cannot make a virtual environment; on Debian or Ubuntu install python3-venv, or name another: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	rm -f $(VENV).log
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Python reads the file with the path of the package in the encoding of the locale, so it holds no path that may not be ASCII.
$(VENV)/.installed: requirements.txt pyproject.toml Makefile | $(BIN)/uv
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1000)}'); if [ "$$free" -lt $(NEEDS_MB) ]; then \
	    echo "The packages take $(NEEDS_MB) MB and $(CURDIR) has $$free MB free; free some space, then run make $(MAKECMDGOALS) again" >&2; exit 1; \
	fi
	@echo "Installing the locked requirements; the first time this downloads some 400 MB"
	@$(UV) pip install $(QUIET) --python $(BIN)/python --require-hashes --requirement requirements.txt
	@LC_ALL=C.UTF-8 $(UV) pip install $(QUIET) --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@for path in $(VENV)/lib/python*/site-packages/__editable__.evergreen-*.pth; do echo ../../../../include >"$$path"; done
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(UV) pip install $(QUIET) --python $(BIN)/python --no-deps --require-hashes --requirement requirements-dev.txt
	@touch $@

$(VENV)/.installed-docs: requirements-docs.txt | $(BIN)/uv
	@$(UV) pip install $(QUIET) --python $(BIN)/python --require-hashes --requirement requirements-docs.txt
	@touch $@
