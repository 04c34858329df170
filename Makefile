# `make help` lists the targets. They write only to this folder, and to temporary files and caches of pip, uv and npm.
# Only `format` and `constraints` change tracked files.

PYTHON ?= python3
BIN := .venv/bin
# awscli pins botocore, so it needs a separate environment.
AWSCLI := awscli==1.46.3
# So does aiobotocore, which the waits benchmark needs for its peer.
AIOBOTOCORE := aiobotocore==3.10.0
CONSTRAINTS := constraints/airflow-3.x.txt
RELEASE := .venvs/release/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# pyenv's python3.N works only for active versions. Activate all installed versions, with the default first.
NOX = pyenv=$$(command -v pyenv) && root=$${pyenv%/bin/pyenv} && [ -d "$$root/versions" ] && \
	export PYENV_ROOT="$${PYENV_ROOT:-$$root}" && \
	export PYENV_VERSION="$$({ pyenv version-name; pyenv versions --bare; } | paste -sd: -)"; $(BIN)/nox

.PHONY: help demo test lint format matrix bench constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-19s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## Run example DAGs on a local DataZone in about half a minute, without an AWS account
	@$(BIN)/python scripts/demo.py

test: .venv/.installed ## Run the unit, integration and fault tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: system-test
system-test: .venv/.installed celery-test ## Run the system tests on Airflow 2.11, 3.0 and the newest, with PostgreSQL; an hour
	@$(NOX) --session 'airflow(2.11.0)' 'airflow(3.0.6)' 'airflow(3.x)' -- tests/system

.PHONY: system-test-short
system-test-short: .venv/.installed ## The same on the newest Airflow with 10 waits and no faults; three minutes
	DATAZONE_TEST_WAITS=10 $(BIN)/python -m pytest tests/system/test_examples.py tests/system/test_deferred_waits.py

.PHONY: celery-test
celery-test: .venvs/celery/.installed ## Run the example DAGs on CeleryExecutor with two workers
	DATAZONE_TEST_EXECUTOR=CeleryExecutor .venvs/celery/bin/python -m pytest tests/system/test_examples.py

.PHONY: ui-test
ui-test: .venv/.installed ## Test the UI of the newest Airflow and of 2.11 with Chromium; screenshots in .ui
	@$(NOX) --session ui

.PHONY: js-test
js-test: .venv/.installed .venvs/awscli/.installed .venvs/js/.installed ## Test the local DataZone with the AWS SDK for JavaScript and the AWS CLI
	$(BIN)/python -m pytest tests/clients

lint: .venv/.installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

format: .venv/.installed ## Format the code, and copy the examples into the documentation
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/update_docs.py

matrix: .venv/.installed ## Run the tests on every supported Airflow, each with one Python
	@$(NOX)

.PHONY: matrix-short
matrix-short: .venv/.installed ## The same with only the unit tests; 15 minutes
	@export DATAZONE_TEST_EXAMPLES=0.2; $(NOX) --session airflow $(NOX_OPTIONS) -- tests/unit

bench: .venv/.installed .venvs/bench/.installed ## Run the benchmarks against the Amazon provider and mapped tasks; over an hour
	$(BIN)/python benchmarks/import_time.py --rounds 40
	.venvs/bench/bin/python benchmarks/waits.py
	.venvs/bench/bin/python benchmarks/batch.py
	$(BIN)/python benchmarks/mapped.py
	.venvs/bench/bin/python benchmarks/watchers.py
	$(BIN)/python benchmarks/stored_size.py
	DATAZONE_TEST_ASSETS=300 DATAZONE_TEST_KILLS=10 $(BIN)/python -m pytest tests/faults/test_batch.py

.PHONY: bench-short
bench-short: .venv/.installed .venvs/bench/.installed ## The same with fewer waits and assets, only to try them out; some minutes
	.venvs/bench/bin/python benchmarks/waits.py --short
	.venvs/bench/bin/python benchmarks/batch.py --short
	$(BIN)/python benchmarks/mapped.py --short
	.venvs/bench/bin/python benchmarks/watchers.py --short

.PHONY: dist
dist: .venvs/release/.installed ## Build the wheel and the sdist, reproducibly
	@rm -rf dist
	env -u SOURCE_DATE_EPOCH $(RELEASE)/python -m build --no-isolation --outdir dist .
	@cd dist && { sha256sum * 2> /dev/null || shasum -a 256 *; }

# A new environment every time. uv creates it in seconds.
.PHONY: wheel-environment
wheel-environment: export UV_SYSTEM_CERTS := true
wheel-environment: export UV_PYTHON_DOWNLOADS := never
wheel-environment: dist .venv/.installed
	@rm -rf .venvs/wheel
	@$(BIN)/uv venv --quiet --no-project --python $(BIN)/python .venvs/wheel
	@$(BIN)/uv pip install --quiet --python .venvs/wheel --constraint $(CONSTRAINTS) dist/*.whl

.PHONY: sbom
sbom: wheel-environment ## Write the bill of materials of the wheel with the newest Airflow: dist/sbom.cdx.json
	@sed "s/^dynamic = \[\"version\"\]/version = \"$$($(RELEASE)/hatchling version)\"/" pyproject.toml \
		> .venvs/wheel/pyproject.toml
	$(RELEASE)/cyclonedx-py environment --pyproject .venvs/wheel/pyproject.toml --mc-type library \
		--output-reproducible --output-file dist/sbom.cdx.json .venvs/wheel/bin/python

.PHONY: audit
audit: sbom ## Check the wheel and its dependencies for known vulnerabilities in the package index
	@$(BIN)/python -m pip --python .venvs/wheel list --format freeze \
		--exclude airflow-provider-amazon-datazone > .venvs/wheel/requirements.txt
	$(RELEASE)/pip-audit --strict --no-deps --disable-pip --requirement .venvs/wheel/requirements.txt

.PHONY: release-check
release-check: sbom ## Build the release and check its contents, reproducibility and a wheel-only installation
	$(BIN)/python -m pytest tests/release

.PHONY: docs
docs: .venvs/docs/.installed ## Build the documentation in docs/_build/index.html; a warning is an error
	@.venvs/docs/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build
	@echo "Built docs/_build/index.html"

constraints: ## Resolve the dependencies of every supported Airflow again (needs uv, Python 3.10 to 3.12)
	constraints/update.sh

clean: ## Remove everything that the other targets build
	rm -rf .venv .venvs .nox .demo .ui dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Its metadata has the version.
.venv/.installed: pyproject.toml airflow_provider_datazone/__init__.py $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or later is required: make PYTHON=/path/of/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Building .venv with $$($(PYTHON) --version): this takes a few minutes"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[testing]' --group dev
	@touch $@

.venvs/awscli/.installed: Makefile
	@$(PYTHON) -m venv --clear .venvs/awscli
	@.venvs/awscli/bin/python -m pip install --quiet '$(AWSCLI)'
	@touch $@

# A copy, because npm writes node_modules next to package.json.
.venvs/js/.installed: tests/clients/package.json tests/clients/package-lock.json
	@command -v npm > /dev/null || { echo "npm and Node.js 20 or later are required" >&2; exit 1; }
	@rm -rf .venvs/js
	@mkdir -p .venvs/js
	@cp $^ .venvs/js
	@cd .venvs/js && npm ci --engine-strict --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.venvs/celery/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -m venv --clear .venvs/celery
	@.venvs/celery/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@.venvs/celery/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[testing]' \
		--group test --group celery
	@touch $@

.venvs/bench/.installed: pyproject.toml $(CONSTRAINTS) Makefile
	@$(PYTHON) -m venv --clear .venvs/bench
	@grep -vE '^(boto3|botocore|s3transfer)==' $(CONSTRAINTS) > .venvs/bench/constraints.txt
	@.venvs/bench/bin/python -m pip install --quiet --constraint .venvs/bench/constraints.txt \
		--editable . '$(AIOBOTOCORE)'
	@touch $@

.venvs/release/.installed: pyproject.toml constraints/release.txt
	@$(PYTHON) -m venv --clear .venvs/release
	@.venvs/release/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@.venvs/release/bin/python -m pip install --quiet --constraint constraints/release.txt --group release
	@touch $@

# On Python 3.10, myst-parser needs an older markdown-it-py than Airflow's constraints.
.venvs/docs/.installed: pyproject.toml airflow_provider_datazone/__init__.py $(CONSTRAINTS) constraints/docs.txt Makefile
	@$(PYTHON) -m venv --clear .venvs/docs
	@grep -v '^markdown-it-py==' $(CONSTRAINTS) > .venvs/docs/constraints.txt
	@.venvs/docs/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@.venvs/docs/bin/python -m pip install --quiet --constraint .venvs/docs/constraints.txt \
		--constraint constraints/docs.txt --editable '.[testing]' --group docs
	@touch $@
