#!/usr/bin/env bash
# The GPU tests and every benchmark on one CUDA card, in under nine minutes: benchmarks/gpu.sh [FOLDER] [PYTHON]
# With several cards, a minute more for what they do together.
# The records go to FOLDER (benchmarks/results/gpu if none is given); a program that fails does not stop the others.
# What a card cannot do is left out with a line in log.txt.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results/gpu}
python=${2:-python}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 # what was printed and written before a limit is kept
failed=0
run() { # seconds at most, name, arguments
  local limit=$1 name=$2
  shift 2
  echo "== $name" | tee -a "$out/log.txt"
  timeout -s INT -k 10 "$limit" "$python" "$@" 2>&1 | tee -a "$out/log.txt" | tail -n 40
  if [ "${PIPESTATUS[0]}" -ne 0 ]; then
    echo "== $name FAILED" | tee -a "$out/log.txt"
    failed=1
  fi
}
: >"$out/log.txt"
# the card's own half precision, and how many cards there are
read -r half cards < <("$python" -c 'import torch
print("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16", torch.cuda.device_count())') || exit 1
# older cards take seconds for a step of 16 pairs in fp32
if [ "$half" = bf16 ]; then batches="1 4 16" steps=10; else batches="1 4" steps=2; fi
# What compiles comes last in each program: it can take minutes, and what was measured before it is kept.
run 30 doctor -m ganparts.cli doctor
run 180 tests -m pytest -q -n 4 -m gpu tests/test_gpu.py
run 140 "step, batch 1" -m benchmarks.train_step --rounds 9 --replay history --modes "${half}_captured" captured \
  tf32_captured ours low lowest "${half}_captured_streams" textbook_bf16_compiled "${half}_compiled_captured" \
  --out "$out/train_step.json"
run 70 "step, batch 16" -m benchmarks.train_step --batch-sizes 16 --rounds 5 \
  --modes "${half}_captured" "${half}_compiled_captured" textbook_bf16_compiled --out "$out/train_step_16.json"
run 40 "step, as a P100" -m benchmarks.train_step --profile p100 --batch-sizes 1 16 --rounds 3 \
  --modes ours captured captured_low captured_lowest --out "$out/train_step_p100.json"
run 25 memory -m benchmarks.memory --batch-sizes $batches --out "$out/memory.json"
run 20 kernels -m benchmarks.kernels --steps $steps --modes "${half}_captured" textbook_tf32 textbook captured \
  --out "$out/kernels.json"
run 15 "data loading" -m benchmarks.data_loading --out "$out/data_loading.json"
run 10 "import time" -m benchmarks.import_time --rounds 3 --out "$out/import_time.json"
if [ "$cards" -gt 1 ]; then
  run 40 scaling -m benchmarks.scaling --size 256 --processes "$cards" --out "$out/scaling.json"
  run 20 "scaling, one" -m benchmarks.scaling --size 256 --processes 1 --batch-size "$cards" --out "$out/scaling_one.json"
fi
run 10 report -m benchmarks.report "$out"
exit $failed
