# Two commands do everything: `make demo` runs the main job, `make test` checks the project.
# Both make their own environment first. `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := scheduler sdpcontroller katcp_iface pipelines agent_setup
SYSTEM := redis-server=redis-server lstopo=hwloc-nox
# What only tests need: a browser for pages, an imager to compare with, a shell for containers.
SYSTEM_TEST := chromium=chromium wsclean=wsclean busybox=busybox-static
# What the test of the deployment makes machines of.
SYSTEM_DEPLOY := mmdebstrap=mmdebstrap

.PHONY: help demo test environment environment-katcp environment-dp3 environment-matvis environment-deploy referees observation system system-test lint types imports unit faults e2e ansible soak demo-docker format lock clean

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: environment  ## Observe a field with a simulated array, from correlator to image, on this machine
	$(BIN)/sdp demo $(ARGS)

demo-docker: environment  ## The same, in containers (needs a Docker engine, no registry)
	$(BIN)/sdp demo --executor docker $(ARGS)

test: system-test environment environment-katcp environment-dp3 environment-deploy lint types imports  ## Everything: lint, types, import contracts, unit and end-to-end tests, faults, the deployment
	@$(BIN)/sdp warm-up
	@# Two cores are enough: half of the tests wait more than they compute.
	@scripts/docker-engine $(MAKE) --no-print-directory -j2 --output-sync=target unit faults
	@scripts/docker-engine $(MAKE) --no-print-directory -j2 --output-sync=target e2e ansible

environment-katcp: environment  ## The old katcp package in an environment of its own, for its test
	@scripts/katcp-environment .venv-katcp $(BIN)/python

environment-dp3 environment-matvis: environment-%: environment
	@scripts/referee-environment $* .venv-$* $(BIN)/python

environment-deploy: environment
	@scripts/system-packages $(SYSTEM_DEPLOY) || true
	@scripts/environment $(VENV) pipelines,imaging,test,deploy

environment: system
	@scripts/environment $(VENV) pipelines,imaging,test

system:
	@scripts/system-packages $(SYSTEM)

system-test:
	@scripts/system-packages $(SYSTEM_TEST)

lint: environment  ## Style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment  ## Types (mypy --strict)
	$(BIN)/mypy

imports: environment  ## Import contracts: the arrows of docs/architecture.md
	$(BIN)/lint-imports

referees: environment environment-dp3 environment-matvis  ## Compare with simulators of other people: DP3 and matvis (installs 1 GB)
	$(BIN)/pytest -m referee

observation: environment system-test  ## Observe for ten minutes in real time; look with katdal, mvftoms, wsclean (MINUTES=N)
	$(BIN)/python -m benchmarks.observation $(if $(MINUTES),--minutes $(MINUTES))

unit: environment environment-katcp environment-dp3  ## Unit and component tests
	scripts/docker-engine $(BIN)/pytest -m "not e2e and not ansible and not slow"

faults: environment  ## A controller killed at every crash point, and 200 faults at random, judged (minutes)
	$(BIN)/pytest -m slow -o faulthandler_timeout=0 tests/faults

e2e: environment  ## The whole system in real processes (minutes)
	scripts/docker-engine $(BIN)/pytest -m e2e -o faulthandler_timeout=1200

ansible: environment-deploy  ## The Ansible roles: ansible-lint, and applied twice to containers or trees (minutes)
	scripts/docker-engine $(BIN)/pytest -m ansible -o faulthandler_timeout=0

soak: environment  ## Break controllers, links and servers at random, 1000 times, and judge (FAULTS=N SEED=N)
	$(BIN)/python -m tests.soak --faults $(or $(FAULTS),1000) $(if $(SEED),--seed $(SEED))

format: environment  ## Put the code into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: environment  ## Pin what is installed now
	$(BIN)/pip freeze --exclude-editable --exclude sdp-controller --exclude http-parser --exclude python-lzf > requirements.lock

clean:  ## Remove the environment and everything generated
	rm -rf $(VENV) demo-output observation-output build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
