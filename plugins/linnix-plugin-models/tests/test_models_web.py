"""Models from the web and from the Hub, over real sockets from servers of this test."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from linnix_core import LinnixError
from linnix_plugin_models import ModelRegistry, SyncFile, http
from linnix_plugin_models.formats import UnsafeWeights
from linnix_plugin_models.http import HubReference, file_name
from linnix_plugin_models.pulling import pull_from_web
from linnix_plugin_models.syncfile import Preferences
from linnix_plugin_models.transfer import TransferError, partial_folder


class Web:
    """Files by path, what was asked, and how the next answers fail."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None
        self.status: int | None = None
        self.ranges = True
        self.api: dict[str, object] = {}
        self.tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        web, wanted = self.web, self.headers.get("range")
        web.asked.append((self.command, self.path, wanted))
        web.tokens.append(self.headers.get("authorization"))
        path = self.path.partition("?")[0]
        content = web.files.get(path)
        if path in web.api:
            content = json.dumps(web.api[path]).encode()
        if web.status or content is None:
            status, web.status = web.status or 404, None
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        begin = int(wanted[6:-1]) if wanted and web.ranges else 0
        self.send_response(206 if begin else 200)
        self.send_header("content-length", str(len(content) - begin))
        self.send_header("etag", f'"{hashlib.sha256(content).hexdigest()[:8]}"')
        self.end_headers()
        if body:
            part = content[begin:]
            if web.cut_after is not None:
                part, web.cut_after = part[: web.cut_after], None
                self.close_connection = True
            self.wfile.write(part)


@pytest.fixture
def web(monkeypatch):
    state = Web()
    handler = type("Bound", (Handler,), {"web": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pull(tmp_path):
    registry = ModelRegistry(tmp_path / "registry.json")
    sync = SyncFile(preferences=Preferences(max_retries=1))

    def run(address, **options):
        options.setdefault("destination", tmp_path / "models")
        return pull_from_web(registry, sync, address, **options)

    run.registry = registry
    return run


def test_a_file_of_the_web_becomes_a_model(web, pull, weights, tmp_path):
    web.files["/a%20b/Tiny-Q8_0.gguf"] = weights.gguf(7)
    pulled = pull(f"{web.url}/a%20b/Tiny-Q8_0.gguf", role="asm")
    assert pulled.path == tmp_path / "models" / "Tiny-Q8_0" / "Tiny-Q8_0.gguf"
    model = pull.registry.get("Tiny-Q8_0")
    assert (model["role"], model["source"]) == ("asm", f"{web.url}/a%20b/Tiny-Q8_0.gguf")
    (artifact,) = model.artifacts
    assert (artifact.format, artifact.quantization) == ("gguf", "Q8_0")
    assert artifact.digest == f"sha256:{hashlib.sha256(weights.gguf(7)).hexdigest()}"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_taken_up(web, pull, weights, ranges, monkeypatch):
    clock = SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("linnix_plugin_models.transfer.time", clock)
    monkeypatch.setattr(http, "CHUNK", 50)
    content = weights.gguf(7, values=320)
    web.files["/m.gguf"] = content
    web.cut_after, web.ranges = 1000, ranges
    pulled = pull(f"{web.url}/m.gguf")
    assert pulled.path.read_bytes() == content
    assert [wanted for verb, _, wanted in web.asked if verb == "GET"] == [None, "bytes=1000-"]


def test_what_has_another_digest_than_was_said_is_not_kept(web, pull, weights, tmp_path):
    web.files["/m.gguf"] = weights.gguf()
    with pytest.raises(TransferError, match="its source says"):
        pull(f"{web.url}/m.gguf", sha256="0" * 64)
    assert not (tmp_path / "models" / "m" / "m.gguf").exists()
    assert pull.registry.models() == []
    right = hashlib.sha256(weights.gguf()).hexdigest()
    assert pull(f"{web.url}/m.gguf", sha256=right).size == len(weights.gguf())


def test_a_page_instead_of_a_model_is_refused(web, pull, tmp_path):
    web.files["/m.gguf"] = b"<html>please log in</html>"
    with pytest.raises(UnsafeWeights, match="does not begin with GGUF"):
        pull(f"{web.url}/m.gguf")
    assert not partial_folder(tmp_path / "models" / "m" / "m.gguf").exists()


def test_servers_that_fail_and_addresses_that_are_none_are_told(web, pull, monkeypatch):
    clock = SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("linnix_plugin_models.transfer.time", clock)
    with pytest.raises(TransferError, match="answers 404"):
        pull(f"{web.url}/none.gguf")
    web.status = 503
    with pytest.raises(TransferError, match="answers 404"):  # tried again after the 503
        pull(f"{web.url}/none.gguf")
    with pytest.raises(TransferError, match="only http"):
        pull("ftp://127.0.0.1/m.gguf")
    with pytest.raises(TransferError, match="names no file"):
        pull(f"{web.url}/")
    with pytest.raises(TransferError, match=r"127\.0\.0\.1:9"):
        pull("http://127.0.0.1:9/m.gguf")


def test_without_the_library_the_extra_to_install_is_named(pull, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(http.importlib, "import_module", missing)
    with pytest.raises(LinnixError, match="httpx is not installed") as error:
        pull("https://127.0.0.1/m.gguf")
    assert "linnix-plugin-models[http]" in error.value.hint
    with pytest.raises(LinnixError) as error:
        pull("hf:a/b")
    assert "linnix-plugin-models[hub]" in error.value.hint


# --- the Hub --------------------------------------------------------------------------


@pytest.fixture
def hub(web, weights, monkeypatch):
    """The two routes of the Hub that are used, as its API documents them."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", web.url)
    template = web.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    real = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: real(endpoint=web.url, token="secret"))
    files = {
        "model.safetensors": weights.safetensors(),
        "config.json": b'{"_name_or_path": "Qwen/Base"}',
        "q/tiny-Q4_K_M.gguf": weights.gguf(15),
        "training_args.bin": b"\x80\4x",
    }
    sha = "c" * 40
    siblings = []
    for name, content in files.items():
        web.files[f"/owner/tiny/resolve/{sha}/{name}"] = content
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 1}}
        siblings.append(
            {"rfilename": name, "size": len(content), "blobId": digest[:40],
             **(lfs if name.endswith(("gguf", "tensors")) else {})}
        )  # fmt: skip
    answer = {"id": "owner/tiny", "sha": sha, "siblings": siblings, "tags": []}
    web.api["/api/models/owner/tiny"] = answer
    web.api["/api/models/owner/tiny/revision/v2"] = answer
    return siblings


def test_a_repository_of_the_hub_becomes_a_model(web, hub, pull, tmp_path):
    pulled = pull("hf:owner/tiny", include=["*.safetensors", "*.json", "*.bin"])
    assert {p.name for p in pulled.path.iterdir()} == {"model.safetensors", "config.json"}
    assert pulled.refused == ("training_args.bin",)
    model = pull.registry.get("tiny")
    assert (model["base_model"], model["source"]) == ("Qwen/Base", "hf:owner/tiny")
    assert model.artifacts[0].format == "safetensors"


def test_one_file_of_it_at_a_revision(web, hub, pull, tmp_path):
    pulled = pull("hf:owner/tiny@v2/q/tiny-Q4_K_M.gguf", model_id="mine")
    assert pulled.path == tmp_path / "models" / "mine" / "tiny-Q4_K_M.gguf"
    assert pull.registry.get("mine").artifacts[0].quantization == "Q4_K_M"


def test_the_digest_of_the_hub_is_checked(web, hub, pull):
    hub[0]["lfs"]["sha256"] = "0" * 64
    with pytest.raises(TransferError, match="its source says"):
        pull("hf:owner/tiny")


def test_what_the_hub_does_not_have_is_told(web, hub, pull):
    with pytest.raises(TransferError, match=r"has no none\.gguf"):
        pull("hf:owner/tiny/none.gguf")
    with pytest.raises(TransferError, match="owner/nobody on the Hub"):
        pull("hf:owner/nobody")


def test_references_to_the_hub():
    assert HubReference.parse("hf:a/b") == HubReference("a/b")
    assert HubReference.parse("hf:a/b-1.5@main/x y/z.gguf") == HubReference(
        "a/b-1.5", "main", "x y/z.gguf"
    )
    for wrong in ("hf:a", "hf:a/b@", "hf:../x/y/", "hf:a/b/$(id)"):
        with pytest.raises(LinnixError, match="names nothing on the Hub"):
            HubReference.parse(wrong)
    with pytest.raises(TransferError):
        file_name("https://example.org/a/..%2F..")
