"""The native API of an Ollama server, as far as models are put there and taken away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import gt

from linnix_core import Duration, LinnixError, PluginUnavailable, Secret, printable
from linnix_plugin_ollama.names import is_same_model
from linnix_plugin_ollama.server import QUICK_S, ModelMissing, Progress, Server
from linnix_plugin_openai import Exchange

__all__ = ["Listed", "Shown", "Store", "StoreConfig"]

#: Seconds for a model to travel to the server, and to be made of what has arrived.
UPLOAD_S = 6 * 3600.0
CREATE_S = 1800.0

CHUNK = 1 << 20

_JSON = {"content-type": "application/json"}
_FROM = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\W*$", re.MULTILINE)


@attrs.frozen
class Listed:
    """A model as the server lists it; ``manifest`` changes with everything about it."""

    name: str
    size: int = 0
    manifest: str = ""


@attrs.frozen
class Shown:
    """What the server shows of a model; ``weights`` is the ``sha256:…`` of its file."""

    weights: str | None
    template: str
    quantization: str


class Store(Server):
    """An Ollama server at ``url`` that models are put on. Raises `LinnixError`."""

    def version(self) -> str:
        """The version of the server; ``""`` where it does not say, as gateways."""
        document = self.exchange.get(f"{self.url}/api/version", QUICK_S).document
        return printable(str(document.get("version", "")), 40)

    def listed(self) -> list[Listed]:
        """The models that the server has."""
        return self._list("/api/tags")

    def loaded(self) -> list[Listed]:
        """The models that are in memory now."""
        return self._list("/api/ps")

    def find(self, model: str) -> Listed | None:
        """One model as it is listed."""
        return next((each for each in self.listed() if is_same_model(each.name, model)), None)

    def _list(self, path: str) -> list[Listed]:
        answer = self.exchange.get(f"{self.url}{path}", QUICK_S)
        listed = answer.document.get("models")
        if not answer.is_success or not isinstance(listed, list):
            raise self.refused(answer)
        return [
            Listed(
                entry["name"],
                size if isinstance(size := entry.get("size"), int) else 0,
                printable(str(entry.get("digest", "")), 80),
            )
            for entry in listed
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        ]

    def show(self, model: str) -> Shown | None:
        """What a model is made of; None where there is none of that name."""
        answer = self.post("/api/show", {"model": model}, QUICK_S)
        said = answer.document
        if not answer.is_success or "error" in said or not said:
            error = self.refused(answer)
            if isinstance(error, ModelMissing):
                return None
            raise error
        weights = _FROM.search(str(said.get("modelfile", "")))
        details = said.get("details")
        level = details.get("quantization_level") if isinstance(details, dict) else None
        return Shown(
            f"sha256:{weights[1]}" if weights else None,
            str(said.get("template", "")),
            printable(str(level or ""), 40),
        )

    # --- changes ----------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        """Whether a file of that digest is there already."""
        answer = self.exchange.send("HEAD", f"{self.url}/api/blobs/{digest}", QUICK_S)
        if answer.status not in (200, 404):
            raise self.refused(answer)
        return answer.status == 200

    def upload(self, path: Path, digest: str, told: Callable[[int, int], None]) -> None:
        """Bring a file there as it is read; the server compares its digest."""
        size = path.stat().st_size
        answer = self.exchange.send(
            "POST",
            f"{self.url}/api/blobs/{digest}",
            UPLOAD_S,
            _read(path, size, told),
            {"content-length": str(size), "content-type": "application/octet-stream"},
        )
        if answer.status not in (200, 201):
            raise self.refused(answer)

    def create(self, model: str, body: Mapping[str, Any]) -> Iterator[Progress]:
        """Make a model of what was uploaded, and tell what is being done."""
        whole = {"model": model, **body, "stream": True}
        yield from self.follow("/api/create", whole, CREATE_S, "making of the model")

    def load(self, model: str, options: Mapping[str, Any], timeout_s: float) -> None:
        """Have a model brought into memory."""
        body = {"model": model, "stream": False, "options": dict(options)}
        answer = self.post("/api/generate", body, timeout_s)
        if not answer.is_success or answer.document.get("done") is not True:
            raise self.refused(answer)

    def delete(self, model: str) -> bool:
        """Remove a model; False where there was none of that name."""
        body = json.dumps({"model": model}).encode()
        answer = self.exchange.send("DELETE", f"{self.url}/api/delete", QUICK_S, body, _JSON)
        if answer.is_success and "error" not in answer.document:
            return True
        error = self.refused(answer)
        if isinstance(error, ModelMissing):
            return False
        raise error


@attrs.frozen(kw_only=True)
class StoreConfig:
    """The keys of deployers whose models end up on an Ollama server."""

    num_ctx: int = attrs.field(
        default=4096,
        validator=gt(0),
        metadata={"help": "tokens of the context that a model is tried with"},
    )
    probe_timeout: Duration = attrs.field(
        default=Duration(45.0),
        validator=gt(Duration(0.0)),
        metadata={"help": "time for the answer that status and test ask for, loading included"},
    )

    plain_http: bool = attrs.field(
        default=False, metadata={"help": "allow http to other machines, key and all in clear text"}
    )
    proxy: Secret | None = attrs.field(
        default=None,
        metadata={"help": 'address of a proxy; else HTTPS_PROXY and the like; "" is none'},
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata={"help": "PEM file of authorities to trust in place of the public ones"},
    )

    def wire(
        self, url: str, api_key: str = "", headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """What asks the server at ``url``. Raises `PluginUnavailable`."""
        proxy = None if self.proxy is None else self.proxy.reveal()
        try:
            return Exchange(
                url, api_key=api_key, proxy=proxy, ca_file=self.ca_file, headers=headers
            )
        except ValueError as error:
            raise PluginUnavailable(
                str(error), hint="correct it in the table of this deployer"
            ) from None


def _read(path: Path, size: int, told: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(min(CHUNK, size - done)):
                yield chunk
                done += len(chunk)
                told(done, size)
    except OSError as error:
        raise LinnixError(f"{path} cannot be read: {error.strerror}") from None
    if done != size:
        raise LinnixError(f"{path} became shorter while it was uploaded")
