#!/bin/sh
# Measure latency and tokens per second of what serve_distilled_model.sh serves.
#
#     scripts/benchmark_distilled_model.sh [--requests 5] [--tokens 64] [--prompt TEXT] [--json]
set -eu

# shellcheck source=scripts/.env.distilled
. "$(dirname "$0")/.env.distilled"

exec "${LINNIX:-linnix}" models benchmark "$@" -- "$LLM_MODEL"
