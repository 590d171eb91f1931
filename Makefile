# tinyr1: make targets. Every target that needs the environment makes it first (.venv, pinned, once).
RUN ?= smol
# RUN=params/x.yaml and RUN=x.yaml are the run x.
ifneq ($(filter params/% %.yaml,$(RUN)),)
override RUN := $(patsubst params/%,%,$(patsubst %.yaml,%,$(RUN)))
endif
PYTHON ?= python3
PY := .venv/bin/python
EXACT := $(if $(filter command line environment,$(origin PYTHON)),--exact-python)
STAGES := 01_data_curation 02_branch_sft 03_fusion_merge 04_evaluation 05_ablations

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# The Python of the kit sees the packages of .venv and UTF-8, whatever the shell around it is set up for.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONINSPECT PYTHONPLATLIBDIR PYTHONIOENCODING
# Many containers set it. Each process of a run would then compile PyTorch anew, which doubles the time of its start.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONUTF8 := 1
export LC_ALL := C.UTF-8
export PYTHONNOUSERSITE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONWARNINGS := ignore:IProgress not found

.DEFAULT_GOAL := help
HOME_DIR := $(or $(TINYR1_HOME),runs)
MODEL ?= $(HOME_DIR)/$(RUN)/merged/math-science-code
BENCHMARKS ?= aime24,gpqa,lcb
PROTOCOL ?= sound
ARGS ?=
MERGE := make merge MATH=models/math SCIENCE=models/science CODE=models/code OUT=models/merged
EVALUATE := make evaluate MODEL=models/merged BENCHMARKS=aime24,gpqa PROTOCOL=sound RUN=r1-1.5b
.PHONY: help setup reproduce plan doctor ablations test test-full test-hosts gpu-check lab chat merge evaluate bench publish compare readme clean lint $(STAGES)
.PHONY: check-merge check-evaluate check-compare test-long test-runs test-rooms

help:
	@echo "make reproduce [RUN=smol]   all five notebooks; smol: about 20 min on 2 CPU cores, 8 GB; FORCE=1 starts what does not fit"
	@echo "make ablations [RUN=smol]   what its params file compares beside that, with controls and other seeds; FILE= another list"
	@echo "make plan [RUN=smol]        tokens, memory, disk, hours, money, and what does not fit; ARGS=\"--gpus 8 --gpu H100-80GB --price 2.5\""
	@echo "make doctor [RUN=name]      what a run needs and what of it is missing here; without RUN= this machine, for a bug report"
	@echo "make test                   tests and the smoke run; about 10 min on 2 CPU cores"
	@echo "make test-full              also the slow tests (kill -9 at random moments)"
	@echo "make test-hosts             two hosts with ssh on this machine; as root, with ip, unshare, sshd and pdsh"
	@echo "make gpu-check              what the kit computes on a GPU, beside a CPU; at most 12 min on one 80 GB card"
	@echo "make lab                    JupyterLab at notebook 01; ARGS=\"--port 9000 --no-browser\", also as root and in containers"
	@echo "make NN_stage [RUN=smol]    one notebook: $(STAGES)"
	@echo "make chat [MODEL=folder]    talk to a model, the merged one by default; any CPU or GPU"
	@echo "make merge MATH= SCIENCE= CODE= OUT= [ARGS=\"--reading released\"]   merge three checkpoints of your own"
	@echo "make evaluate MODEL= BENCHMARKS= [PROTOCOL=sound] [RUN=r1-1.5b] [ARGS=]   any model folder or hub id, or several"
	@echo "                            with commas, which are compared in pairs; a GPU for large ones"
	@echo "                            ARGS: further options; make merge ARGS=--help lists them, make evaluate alike"
	@echo "make bench                  speed against TRL, transformers and mergekit; about 45 min, 25 GB of disk"
	@echo "make publish [RUN=smol]     copy the report of a finished run to reports/RUN, and its scores into README.md"
	@echo "make compare A=run B=run    parameters, machines, scores and durations of two runs side by side"
	@echo "make readme [RUN=smol]      the results of reports/RUN and the plans of params/ into README.md"
	@echo "make clean [RUN=smol]       remove a run's artifacts and unpublished report (runs/RUN, or TINYR1_HOME/RUN)"
	@echo "make setup [PYTHON=python3] the environment alone; about 1 min, once"

# What is asked for is checked before anything is installed.
setup: $(addprefix check-,$(filter merge evaluate compare,$(MAKECMDGOALS)))
	@$(PYTHON) -I tinyr1/environment.py $(EXACT)

reproduce: setup
	@$(PY) -m tinyr1.run "$(RUN)"

plan: setup
	@$(PY) -m tinyr1.plan "$(RUN)" $(ARGS)

# RUN has a default, and the machine is described where nobody has given one.
doctor: setup
	@$(PY) -m tinyr1.doctor $(if $(filter file,$(origin RUN)),,"$(RUN)")

ablations: setup
	@$(PY) -m tinyr1.run "$(RUN)"
	@$(PY) -m tinyr1.ablate "$(RUN)" $(if $(FILE),--file "$(FILE)")
	@$(PY) -m tinyr1.run "$(RUN)" --stage 05_ablations

$(STAGES): setup
	@$(PY) -m tinyr1.run "$(RUN)" --stage $@

# $(call if_installed,package,command): the command, or a message where the package is not installed
if_installed = if $(PY) -c "import $1" 2>/dev/null; then $2; else echo "lint: $1 is not installed, its check is left out"; fi

# It has no module to start, and the first line of its script could not hold a path with a blank.
CONTRACTS := from importlinter.cli import lint_imports_command as check; check()

lint: setup
	@$(PY) -m ruff check tinyr1 tests notebooks
	@$(call if_installed,importlinter,$(PY) -c "$(CONTRACTS)" --no-logo)
	@$(call if_installed,mypy,$(PY) -m mypy)

test: lint
	@$(PY) -m pytest -m "not slow"

# The tests that look at what programs leave on the machine run alone; then three parts beside each other, which wait or
# compute on one core for the most part: runs with other domains or kills and the merge, all other runs, and the other
# rooms. Each of the three has folders of its own.
LONG := tests/test_domains.py tests/test_kill.py tests/merge
RUNS := $(filter-out $(LONG),$(wildcard tests/test_*.py)) tests/branch tests/hosts
ROOMS := tests/core tests/data tests/evaluate tests/report tests/sampling tests/gpu
test-full: lint
	@$(PY) -m pytest tests/sandbox
	@$(MAKE) --no-print-directory -j3 --output-sync=target test-long test-runs test-rooms

# Two hosts on this machine: network namespaces with an ssh server each. As root; part of test-full.
test-hosts: setup
	@$(PY) -m pytest tests/hosts

# Not in the tests: it needs a card. In another environment: python tests/gpu/gpu_check.py.
gpu-check:
	@$(if $(wildcard $(PY)),$(PY),$(PYTHON)) tests/gpu/gpu_check.py $(ARGS)

test-long: PART := $(LONG)
test-runs: PART := $(RUNS)
test-rooms: PART := $(ROOMS)
test-long test-runs test-rooms: test-%:
	@folder=$$(mktemp -d) && $(PY) -m pytest --basetemp="$$folder/$*" -o cache_dir=".pytest_cache/$*" --durations=25 \
	$(PART); status=$$?; rm -rf "$$folder"; exit $$status

# In a container the browser is outside, and so is what asks for the page; the token of the printed address is needed.
lab: setup
	@flags=; test "$$(id -u)" != 0 || flags=--allow-root; \
	test ! -e /.dockerenv -a ! -e /run/.containerenv -a -z "$$container$$KUBERNETES_SERVICE_HOST" || \
	flags="$$flags --no-browser --ip=0.0.0.0"; \
	env -u JUPYTER_PATH $(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
	--LabApp.default_url=/lab/tree/notebooks/01_data_curation.ipynb $$flags $(ARGS)

chat: setup
	@$(PY) -m tinyr1.chat --run "$(RUN)" $(if $(filter command line environment,$(origin MODEL)),"$(MODEL)") $(ARGS)

check-merge:
	@case "$(ARGS)" in *--help*|*--verify*|*--recipe*) ;; *) \
	for given in "MATH=$(MATH)" "SCIENCE=$(SCIENCE)" "CODE=$(CODE)"; do test -d "$${given#*=}" || \
	{ echo "$$given is not a folder: name that of a checkpoint, as in: $(MERGE)" >&2; exit 1; }; done;; esac
	@case "$(ARGS)" in *--help*|*--verify*|*--dry-run*) ;; *) test -n "$(OUT)" || \
	{ echo "OUT= is missing: name a folder for the merged checkpoint, as in: $(MERGE)" >&2; exit 1; };; esac

merge: setup
	@$(PY) -m tinyr1.merge --math "$(MATH)" --science "$(SCIENCE)" --code "$(CODE)" --out "$(OUT)" $(ARGS)

check-evaluate:
	@case "$(ARGS)" in *--help*) exit 0;; esac; fail() { echo "$$1, as in: $(EVALUATE)" >&2; exit 1; }; \
	test -n "$(BENCHMARKS)" || fail "BENCHMARKS= is empty: name some"; \
	test -f "$(or $(TINYR1_PARAMS),params)/$(RUN).yaml" || fail "RUN=$(RUN) is unknown: there is no params/$(RUN).yaml"; \
	case "$(PROTOCOL)" in sound|released) ;; *) fail "PROTOCOL=$(PROTOCOL) is neither sound nor released: name one of them";; esac; \
	case "$(ARGS)" in *--endpoint*|*--responses*) exit 0;; esac; \
	test -n "$(MODEL)" || fail "MODEL= is no folder and no hub id: name a checkpoint or owner/name"; \
	models="$(MODEL)"; set -f; IFS=,; for model in $$models; do \
	test -d "$$model" || echo "$$model" | grep -qx "[^/]*[^/]/[^/][^/]*" || \
	fail "MODEL=$$model is no folder and no hub id: name a checkpoint or owner/name"; done

evaluate: RUN = r1-1.5b
evaluate: setup
	@models="$(MODEL)"; set -f; set --; IFS=,; for model in $$models; do set -- "$$@" --model "$$model"; done; unset IFS; \
	set +f; $(PY) -m tinyr1.evaluate "$$@" --benchmarks "$(BENCHMARKS)" --protocol "$(PROTOCOL)" --run "$(RUN)" $(ARGS)

bench: export PYTHONPATH = tests
bench: setup
	@$(PY) tests/bench/bench_curate.py
	@$(PY) tests/bench/bench_duplicates.py
	@$(PY) tests/bench/bench_prepare.py
	@$(PY) tests/bench/bench_train.py
	@$(PY) tests/bench/bench_merge.py
	@$(PY) tests/bench/bench_sandbox.py
	@$(PY) tests/bench/bench_generate.py "$$(mktemp -d)/bench"

publish: setup
	@$(PY) -m tinyr1.report.publish "$(RUN)"
	@$(PY) -m tinyr1.plan.readme_table

check-compare:
	@test -n "$(A)" -a -n "$(B)" || { echo "name two runs, or folders of reports, as in: make compare A=smol B=reports/smol" >&2; exit 1; }

compare: setup
	@$(PY) -m tinyr1.report.compare_runs "$(A)" "$(B)"

readme: setup
	@$(PY) -m tinyr1.report.readme "$(RUN)"
	@$(PY) -m tinyr1.plan.readme_table

clean:
	@test -n "$(RUN)" || { echo "RUN is empty; name the run, as in: make clean RUN=smol" >&2; exit 1; }
	@case "$(RUN)" in *[!A-Za-z0-9._-]*|.|..) echo "RUN=$(RUN) is not the name of a run" >&2; exit 1;; esac
	@if test -e "$(HOME_DIR)/$(RUN)"; then rm -rf "$(HOME_DIR)/$(RUN)" && echo "removed $(HOME_DIR)/$(RUN)"; \
	else echo "$(HOME_DIR)/$(RUN): not there"; fi
