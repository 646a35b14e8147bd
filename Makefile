# The commands of the project. They need Python 3.11 to 3.13, make and the package registries. Everything else is
# created inside the checkout: a virtual environment for each Airflow release, and `.demo/` for the demo.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

# The Python for new environments. Default: the first of python3.11, 3.12 and 3.13 that works.
PYTHON ?=
# Additional arguments for pytest: make test ARGS="-k rollout -x"
ARGS ?=
# make faults CELL='<name>' plays one cell of the fault matrix.
CELL ?=
# make demo KEEP=1 leaves the local Model Serving running.
KEEP ?=
# The number of parallel test processes. Most tests spend most of their time waiting.
WORKERS ?= 6

# Without bytecode files, each of the many Airflow processes of tests and demo would compile Airflow again.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTEST_ADDOPTS
export UV_SYSTEM_CERTS = 1
# All programs here talk over the loopback interface, never through a proxy.
comma := ,
export NO_PROXY := $(if $(NO_PROXY),$(NO_PROXY)$(comma))127.0.0.1,localhost
export no_proxy := $(NO_PROXY)

# Settings of your own Airflow, cluster or local server must not leak into tests and demo.
alone = unset $$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' | grep -E '^(AIRFLOW|HOPSWORKS|HSML)_') REST_ENDPOINT SECRETS_DIR;

python = .venv/bin/python
pytest = -m pytest $(ARGS)
quick = not slow
# A class, or the functions of a module, run in one worker: they share costly fixtures. In the order of the files, the
# many small unit tests come last and fill the gaps. (`loadgroup` would split finer, but does nothing on pytest 9.2.)
spread = -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# ------------------------------------------------------------------------------------------------------ environments
everything := local,examples,metrics,tables

# $(call make_environment,<folder>,<Airflow>,<newest minor version of Python 3 it runs on>,<extras>,<dependency group>)
# An existing environment is updated in place.
define make_environment
	@set -e; \
	check='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(3)))'; \
	if ! $(1)/bin/python -c "$$check" 2>/dev/null; then \
	    found=; \
	    for each in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
	        if $$each -c "$$check" 2>/dev/null; then found=$$each; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "Airflow $(2) needs Python 3.11 to 3.$(3) with its venv module, but $(if $(PYTHON),PYTHON=$(PYTHON) is not one,there is none on PATH): install one, or name it with make PYTHON=<path>." >&2; \
	        exit 1; \
	    fi; \
	    echo "== $(1): a new environment, $$($$found --version)"; \
	    $$found -m venv --clear $(1); \
	fi; \
	echo "== $(1): installing Airflow $(2) and the provider (about 160 packages the first time: a minute or two)"; \
	if ! $(1)/bin/python -m uv --version >/dev/null 2>&1; then \
	    $(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/airflow-$(2).txt uv; \
	fi; \
	$(1)/bin/python -m uv pip install --quiet --python $(1)/bin/python --compile-bytecode \
	    -c constraints/airflow-$(2).txt -e '.[$(4)]' --group $(5); \
	touch $(1)/.made
endef

.venv/.made: pyproject.toml constraints/airflow-3.3.2.txt
	$(call make_environment,.venv,3.3.2,13,$(everything),dev)

.venv-3.0.6/.made: pyproject.toml constraints/airflow-3.0.6.txt
	$(call make_environment,.venv-3.0.6,3.0.6,12,$(everything),test --group form)

# A pre-release of 3.4, until there is another on the registry.
.venv-3.4.0b2/.made: pyproject.toml constraints/airflow-3.4.0b2.txt
	$(call make_environment,.venv-3.4.0b2,3.4.0b2,13,$(everything),test)

.venv-3.2.2/.made: pyproject.toml constraints/airflow-3.2.2.txt
	$(call make_environment,.venv-3.2.2,3.2.2,13,$(everything),test)

.venv-3.1.8/.made: pyproject.toml constraints/airflow-3.1.8.txt
	$(call make_environment,.venv-3.1.8,3.1.8,13,$(everything),test --group form)

.venv-2.11.2/.made: pyproject.toml constraints/airflow-2.11.2.txt
	$(call make_environment,.venv-2.11.2,2.11.2,12,$(everything),test)

# The official SDKs of `make conformance`; `hopsworks` is the newest.
sdks := hopsworks hopsworks-5.1.2 hopsworks-4.6.8 hsml

# $(call make_sdk_environment,<SDK>): an official SDK, which cannot be installed beside Airflow, and the libraries of its models.
define make_sdk_environment
	@echo "== .venv-$(1): installing the SDK"
	@$(python) -m uv venv --quiet --allow-existing --python $(python) .venv-$(1)
	@$(python) -m uv pip install --quiet --python .venv-$(1)/bin/python --compile-bytecode -r constraints/$(1).txt
	@touch $@
endef

.venv-hopsworks/.made: constraints/hopsworks.txt | .venv/.made
	$(call make_sdk_environment,hopsworks)

.venv-hopsworks-5.1.2/.made: constraints/hopsworks-5.1.2.txt | .venv/.made
	$(call make_sdk_environment,hopsworks-5.1.2)

.venv-hopsworks-4.6.8/.made: constraints/hopsworks-4.6.8.txt | .venv/.made
	$(call make_sdk_environment,hopsworks-4.6.8)

.venv-hsml/.made: constraints/hsml.txt | .venv/.made
	$(call make_sdk_environment,hsml)

# The provider beside other providers, to compare their import times.
.venv-providers/.made: constraints/providers.txt pyproject.toml | .venv/.made
	@echo "== .venv-providers: installing other providers"
	@$(python) -m uv venv --quiet --allow-existing --python $(python) .venv-providers
	@$(python) -m uv pip install --quiet --python .venv-providers/bin/python --compile-bytecode -r constraints/providers.txt
	@$(python) -m uv pip install --quiet --python .venv-providers/bin/python --no-deps -e .
	@touch $@

# ---------------------------------------------------------------------------------------------------------- commands
.PHONY: help
help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "make %-13s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## Run four nights of the main DAG on this machine; KEEP=1 leaves the local Model Serving running
	@$(MAKE) --no-print-directory .venv/.made || { echo "DEMO FAILED: its environment could not be made, see above"; exit 1; }
	@$(alone) exec .venv/bin/hsml-local demo $(if $(KEEP),--keep)

.PHONY: test
test: .venv/.made model-server ## Run the tests on Airflow 3.3.2; `make check` adds crashes, faults and whole systems
	@$(alone) $(python) $(pytest) $(spread) -m "$(quick)" --ignore=tests/faults --ignore=tests/system

.PHONY: fuzz
fuzz: .venv/.made ## Try 200,000 random and mutated answers, files and arguments on every reader of the provider
	@$(alone) HSML_TEST_CASES=200000 $(if $(HSML_TEST_SEED),HSML_TEST_SEED=$(HSML_TEST_SEED)) \
	    $(python) $(pytest) -n 3 -o faulthandler_timeout=1800 tests/unit/test_fuzz_readers.py

.PHONY: faults
faults: .venv/.made ## Spoil the requests of every operation in every way, and judge on the server; HSML_TEST_CELLS=all for the whole matrix
	@$(alone) $(if $(HSML_TEST_SEED),HSML_TEST_SEED=$(HSML_TEST_SEED)) $(if $(HSML_TEST_CELLS),HSML_TEST_CELLS=$(HSML_TEST_CELLS)) \
	    $(python) -W ignore -m tests.faults $(if $(CELL),--cell '$(CELL)') $(ARGS)

.PHONY: check
check: lint model-server .venv-2.11.2/.made .venv-3.0.6/.made .venv-3.4.0b2/.made ## Run what CI runs: lint, the tests with coverage, the Airflow-facing ones on 2.11.2, 3.0.6 and 3.4
	@echo "== tests on Airflow 3.3.2, with coverage"
	@$(alone) $(python) $(pytest) $(spread) -m "$(quick)" --cov --cov-report=term
	@for airflow in 2.11.2 3.0.6 3.4.0b2; do \
	    echo "== Airflow-facing tests on Airflow $$airflow"; \
	    ($(alone) .venv-$$airflow/bin/python $(pytest) $(spread) -m "airflow and $(quick) and not whole_airflow") || exit; \
	done

.PHONY: check-all
check-all: check smoke fuzz faults conformance integration docs ## Run everything before a release: check, smoke, fuzz, faults, conformance, integration, the site, and the slow tests
	@echo "== slow tests, including browser tests (skipped without chromium on PATH)"
	@$(python) -m uv pip install --quiet --python $(python) --compile-bytecode -c constraints/airflow-3.3.2.txt --group browser --group release
	@$(alone) $(python) $(pytest) -m slow -o faulthandler_timeout=1800
	@echo "== deferred: promotions, their events, rollbacks and restarts"
	@$(alone) AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE=True $(python) $(pytest) $(spread) -m "$(quick)" \
	    tests/airflow/test_rollback.py tests/airflow/test_verification.py tests/airflow/test_restart.py tests/airflow/test_events.py
	@for airflow in 2.11.2 3.0.6 3.4.0b2; do \
	    echo "== whole Airflows of $$airflow"; \
	    ($(alone) .venv-$$airflow/bin/python $(pytest) $(spread) -m "whole_airflow and $(quick)") || exit; \
	done
	@for line in 3.7 4.6; do \
	    echo "== tests that depend on Hopsworks, against $$line"; \
	    ($(alone) HSML_TEST_HOPSWORKS=$$line $(python) $(pytest) $(spread) -m "(airflow or hopsworks) and $(quick)") || exit; \
	    for airflow in 2.11.2 3.0.6; do \
	        echo "== example DAGs and rollbacks on Airflow $$airflow against Hopsworks $$line"; \
	        ($(alone) HSML_TEST_HOPSWORKS=$$line .venv-$$airflow/bin/python $(pytest) $(spread) -m "(airflow or hopsworks) and $(quick)" \
	            tests/system/test_example_dags.py tests/airflow/test_rollback.py) || exit; \
	    done; \
	done

# Imports, provider info, parsing, and the example DAGs.
smoke = tests/airflow/test_provider.py tests/system/test_example_dags.py

.PHONY: smoke
smoke: model-server .venv-3.1.8/.made .venv-3.2.2/.made ## Run the example DAGs on Airflow 3.1 and 3.2, and on each Python up to 3.14 that is on PATH
	@for airflow in 3.1.8 3.2.2; do \
	    echo "== example DAGs on Airflow $$airflow"; \
	    ($(alone) .venv-$$airflow/bin/python $(pytest) $(spread) -m "$(quick)" $(smoke)) || exit; \
	done
	@for version in 3.12 3.13 3.14; do \
	    if ! python$$version -c "" 2>/dev/null; then echo "== no Python $$version on PATH: left out"; continue; fi; \
	    echo "== example DAGs on Python $$version, Airflow 3.3.2"; \
	    $(python) -m uv venv --quiet --allow-existing --python "$$(command -v python$$version)" .venv-py$$version && \
	    $(python) -m uv pip install --quiet --python .venv-py$$version/bin/python --compile-bytecode \
	        -c constraints/airflow-3.3.2.txt -e '.[$(everything)]' --group test && \
	    ($(alone) .venv-py$$version/bin/python $(pytest) $(spread) -m "$(quick)" $(smoke)) || exit; \
	done

.PHONY: conformance
conformance: .venv/.made model-server $(sdks:%=.venv-%/.made) ## Run Hopsworks' official SDKs, unmodified, against the local Model Serving
	@$(if $(findstring --cluster,$(ARGS)),,$(alone)) $(python) -m conformance.run $(ARGS)

.PHONY: integration
integration: .venv/.made ## Run the example DAGs on Airflow as in production: PostgreSQL with the LocalExecutor, then with Redis and the CeleryExecutor
	@$(python) -m uv pip install --quiet --python $(python) --compile-bytecode -c constraints/airflow-3.3.2.txt --group integration
	@$(alone) exec $(python) -m integration.run $(ARGS)

.PHONY: docs
docs: .venv/.made ## Build the documentation as a site, in site/; a broken link is an error
	@$(python) -m uv pip install --quiet --python $(python) --compile-bytecode -c constraints/airflow-3.3.2.txt --group docs
	@NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict
	@echo "The documentation is in site/index.html"

.PHONY: licences
licences: .venv/.made ## Print the licence of each package that the provider and its extras bring
	@$(python) release/licences.py

.PHONY: release
release: .venv/.made ## Build sdist and wheel of the tagged commit, and run the DAG of README.md with each in a fresh environment
	@$(python) -m uv pip install --quiet --python $(python) --compile-bytecode -c constraints/airflow-3.3.2.txt --group release
	@$(alone) $(python) release/build.py

.PHONY: ui
ui: .venv/.made model-server ## Test the UI in a real browser, from the connection form to the live deployment; screenshots in .ui
	@$(python) -m uv pip install --quiet --python $(python) --compile-bytecode -c constraints/airflow-3.3.2.txt --group browser
	@mkdir -p .ui
	@$(alone) HSML_TEST_PICTURES=.ui $(python) $(pytest) -m slow -o faulthandler_timeout=1800 tests/system/test_ui.py

.PHONY: parse-time
parse-time: .venv-providers/.made ## Measure the import time of the operators beside other providers
	@$(alone) .venv-providers/bin/python benchmarks/parse_time.py

.PHONY: lint
lint: .venv/.made ## Run ruff, import-linter and mypy --strict
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	.venv/bin/lint-imports --no-logo --no-cache
	$(python) -m mypy

.PHONY: model-server
model-server: .venv/.made ## Build the model server's environment in advance
	@$(alone) .venv/bin/hsml-local prepare

.PHONY: constraints
constraints: .venv/.made ## Resolve constraints/ again from pyproject.toml; UPGRADE=1 takes the newest versions
	@$(call resolve,3.3.2,--extra local --extra examples --extra metrics --extra tables --group dev --group browser --group docs --group integration --group release,,3.13)
	@$(call resolve,3.4.0b2,--extra local --extra examples --extra metrics --extra tables --group test,'apache-airflow-core==3.4.0b2' 'apache-airflow-task-sdk==1.4.0b2',3.13)
	@$(call resolve,3.2.2,--extra local --extra examples --extra metrics --extra tables --group test,'fastapi<0.137' 'cadwyn<8' 'svcs<26',3.13)
	@$(call resolve,3.1.8,--extra local --extra examples --extra metrics --extra tables --group test --group form,,3.13)
	@$(call resolve,3.0.6,--extra local --extra examples --extra metrics --extra tables --group test --group form,'fastapi[standard-no-fastapi-cloud-cli]==0.117.1' 'starlette<0.49' 'cadwyn<5.5' 'universal-pathlib<0.3',3.12)
	@$(call resolve,2.11.2,--extra local --extra examples --extra metrics --extra tables --group test,,3.12)
	@$(call resolve_sdk,hopsworks,hopsworks[python]==5.2.1)
	@$(call resolve_sdk,hopsworks-5.1.2,hopsworks[python]==5.1.2)
	@$(call resolve_sdk,hopsworks-4.6.8,hopsworks[python]==4.6.8)
	@$(call resolve_sdk,hsml,hsml==3.7.2)
	@file=constraints/providers.txt; echo "== $$file"; \
	{ echo 'apache-airflow==3.3.2'; printf 'apache-airflow-providers-%s\n' airbyte amazon databricks dbt-cloud http; } | \
	$(python) -m uv pip compile --quiet --python-version 3.11 --no-header --no-annotate $(if $(UPGRADE),--upgrade) \
	    pyproject.toml - --output-file $$file >/dev/null && \
	{ echo '# The providers that `make parse-time` compares with. Made by `make constraints`.'; cat $$file; } > $$file.new && mv $$file.new $$file

# $(call resolve,<Airflow>,<extras and groups>,<pins>,<newest Python>): for every Python and platform at once. Without the pins, 3.0.6
# resolves to a fastapi with which every task fails ('Input should be a valid dictionary or object'), and to a universal_pathlib
# whose ObjectStoragePath cannot read URLs; and 3.2.2 to a fastapi with which no task can report its end, and to a svcs with
# which `airflow dags test` finds no services.
resolve = file=constraints/airflow-$(1).txt; echo "== $$file"; \
    printf '%s\n' 'apache-airflow==$(1)' $(3) | \
    $(python) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(if $(UPGRADE),--upgrade) \
        pyproject.toml - $(2) --output-file $$file >/dev/null && \
    { echo '\# The versions for development and tests on Airflow $(1), Python 3.11 to $(4). Made by `make constraints`.'; cat $$file; } > $$file.new && \
    mv $$file.new $$file

# $(call resolve_sdk,<SDK>,<requirement>): with the same scikit-learn as the model server, which loads the models.
resolve_sdk = file=constraints/$(1).txt; echo "== $$file"; \
    { echo '$(2)'; grep '^scikit-learn==' constraints/airflow-3.3.2.txt; } | \
    $(python) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate $(if $(UPGRADE),--upgrade) \
        - --output-file $$file >/dev/null && \
    { echo '\# The environment of the official SDK $(2) in `make conformance`. Made by `make constraints`.'; cat $$file; } > $$file.new && \
    mv $$file.new $$file

.PHONY: clean
clean: ## Remove environments, demo files and caches
	rm -rf .venv .venv-2.11.2 .venv-3.0.6 .venv-3.1.8 .venv-3.2.2 .venv-3.4.0b2 .venv-py3.1* $(sdks:%=.venv-%) .venv-providers .conformance .demo .integration .ui .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* \
	    coverage.xml htmlcov site build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
