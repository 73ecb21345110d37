#!/bin/sh
# Serve a model that is registered, as LLM_MODEL on LLM_PORT; it goes on after this ends.
#
#     scripts/serve_distilled_model.sh [MODEL]     linnix-demo unless told; `linnix models list` names others
#     scripts/serve_distilled_model.sh status
#     scripts/serve_distilled_model.sh stop
set -eu

# shellcheck source=scripts/.env.distilled
. "$(dirname "$0")/.env.distilled"
linnix=${LINNIX:-linnix}

case ${1:-linnix-demo} in
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        ;;
    status)
        exec "$linnix" models status -- "$LLM_MODEL"
        ;;
    stop)
        exec "$linnix" models undeploy -- "$LLM_MODEL"
        ;;
    *)
        exec "$linnix" models deploy --as "$LLM_MODEL" --option "port=$LLM_PORT" -- \
            "${1:-linnix-demo}" "$LLM_BACKEND"
        ;;
esac
