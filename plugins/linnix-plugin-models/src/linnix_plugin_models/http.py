"""Files from the web and from the Hugging Face Hub, resumed where they ended."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_models.transfer import Broken, Entry, TransferError

__all__ = ["HttpSource", "HubReference", "HubSource", "file_name"]

CHUNK = 2**20
_TIMEOUT_S = 60.0


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LinnixError(
            f"{name} is not installed", hint=f'pip install "linnix-plugin-models[{extra}]"'
        ) from None


def file_name(url: str) -> str:
    """What a file behind an address is called."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise TransferError(f"{printable(url, 200)} names no file")
    return name


class HttpSource:
    """One file behind an address."""

    is_file = True

    def __init__(self, url: str, *, sha256: str | None = None) -> None:
        self._url = url
        self._sha256 = sha256
        self._name = file_name(url)
        self._web = _Web()

    def entries(self) -> Sequence[Entry]:
        """The one file; its size and state if the server tells."""
        headers = self._web.head(self._url)
        size = headers.get("content-length")
        state = headers.get("etag") or headers.get("last-modified") or ""
        return [
            Entry(self._name, int(size) if size and size.isdigit() else None, state, self._sha256)
        ]

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Chunk by chunk; from the beginning where the server cannot resume."""
        return self._web.read(self._url, offset, entry)

    def close(self) -> None:
        """End the connection."""
        self._web.close()


@attrs.frozen
class HubReference:
    """``hf:OWNER/NAME[@REVISION][/FILE]``"""

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Raises `LinnixError`."""
        match = re.fullmatch(
            r"hf:(?://)?(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+?))?(?:/((?:[\w.@+-]|[ /])+))?", text
        )
        if match is None or (match[3] or "").endswith("/"):
            raise LinnixError(
                f"{printable(text, 200)!r} names nothing on the Hub",
                hint="write hf:OWNER/NAME, hf:OWNER/NAME/FILE or hf:OWNER/NAME@REVISION",
            )
        return cls(match[1], match[2], match[3])


class HubSource:
    """A repository of the Hugging Face Hub, or one file of it.

    huggingface_hub says what there is, at which revision, with which digests, and who asks
    (its token, its endpoint); the bytes come by the same way as other files of the web.
    """

    def __init__(self, reference: HubReference, include: Sequence[str] = ()) -> None:
        hub = _library("huggingface_hub", "hub")
        self._hub = hub
        self._reference = reference
        self._include = include
        self.is_file = reference.file is not None
        headers: Mapping[str, str] = hub.utils.build_hf_headers(library_name="linnix")
        self._web = _Web(headers)
        self._revision = reference.revision

    def entries(self) -> Sequence[Entry]:
        """Files of the revision that is the newest now, or the one that was asked for."""
        try:
            info = self._hub.HfApi().model_info(
                self._reference.repo,
                revision=self._reference.revision,
                files_metadata=True,
                timeout=_TIMEOUT_S,
            )
        except Exception as error:  # noqa: BLE001 - its errors have no common class
            said = printable(str(error).strip().partition("\n")[0], 200)
            kind = Broken if "onnect" in type(error).__name__ else TransferError
            raise kind(f"{self._reference.repo} on the Hub: {said}") from None
        self._revision = info.sha
        found = []
        for file in info.siblings or ():
            name = file.rfilename
            if self._reference.file is not None:
                if name != self._reference.file:
                    continue
            elif self._include and not any(fnmatchcase(name, p) for p in self._include):
                continue
            digest = file.lfs.sha256 if file.lfs else None
            found.append(Entry(name, file.size, str(file.blob_id or info.sha), digest))
        if not found:
            wanted = self._reference.file or ", ".join(self._include) or "file"
            raise TransferError(f"{self._reference.repo} has no {printable(wanted, 100)}")
        if self._reference.file is not None:
            # One file is called as itself, without the folders that it is in.
            return [attrs.evolve(found[0], path=found[0].path.rpartition("/")[2])]
        return found

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Chunk by chunk."""
        name = self._reference.file or entry.path
        url = self._hub.hf_hub_url(self._reference.repo, name, revision=self._revision)
        return self._web.read(url, offset, entry)

    def close(self) -> None:
        """End the connection."""
        self._web.close()


class _Web:
    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._httpx = _library("httpx", "http")
        # What is compressed on the way cannot be resumed by its offset.
        self._client = self._httpx.Client(
            follow_redirects=True,
            timeout=_TIMEOUT_S,
            headers={**(headers or {}), "accept-encoding": "identity"},
        )

    def head(self, url: str) -> Mapping[str, str]:
        def ask() -> Mapping[str, str]:
            answer = self._client.head(url)
            _check(answer, url)
            headers: Mapping[str, str] = answer.headers
            return headers

        return self._asked(url, ask)

    def read(self, url: str, offset: int, entry: Entry) -> Iterator[bytes]:
        headers = {"range": f"bytes={offset}-"} if offset else {}
        if offset and entry.state.startswith('"'):
            headers["if-range"] = entry.state
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                _check(answer, url)
                skip = offset if answer.status_code != 206 else 0
                for chunk in answer.iter_bytes(CHUNK):
                    if skip:
                        skip, dropped = max(skip - len(chunk), 0), skip
                        chunk = chunk[dropped:]  # noqa: PLW2901
                    if chunk:
                        yield chunk
        except self._httpx.HTTPError as error:
            raise Broken(f"{printable(url, 200)}: {error or type(error).__name__}") from None

    def close(self) -> None:
        self._client.close()

    def _asked(self, url: str, ask: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
        try:
            return ask()
        except self._httpx.InvalidURL as error:
            raise TransferError(f"{printable(url, 200)} is no address: {error}") from None
        except self._httpx.UnsupportedProtocol:
            raise TransferError(f"{printable(url, 200)}: only http:// and https:// work") from None
        except self._httpx.HTTPError as error:
            raise Broken(f"{printable(url, 200)}: {error or type(error).__name__}") from None


def _check(answer: Any, url: str) -> None:
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Broken(f"{printable(url, 200)}: the server answers {answer.status_code}")
    if answer.status_code >= 400:
        raise TransferError(f"{printable(url, 200)}: the server answers {answer.status_code}")
