"""The system's libbpf through ctypes: as much of it as one collector needs.

libbpf is found by its soname, ``libbpf.so.1`` or else ``libbpf.so.0``. What it has to say
(the verifier's log among it) is kept for the message of the error that follows.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, Self

__all__ = ["BpfError", "BpfObject", "Btf", "Libbpf", "LibbpfMissing"]

SONAMES = ("libbpf.so.1", "libbpf.so.0")

# Kinds of BTF types (include/uapi/linux/btf.h).
_KIND_ENUM = 6
_KIND_TYPEDEF = 8

# enum libbpf_print_level: what comes after it only tells how libbpf goes about things.
_INFO = 1

#: libbpf's own numbers: clean null pointers and error codes from libbpf.so.0 as well.
_STRICT_ALL = 0xFFFF_FFFF

_PRINT = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_mem": (c_void_p, (c_char_p, c_size_t, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_link__fd": (c_int, (c_void_p,)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_iter_create": (c_int, (c_int,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "libbpf_set_print": (c_void_p, (_PRINT,)),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__free": (None, (c_void_p,)),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (POINTER(c_uint32), (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
}


class LibbpfMissing(Exception):
    """There is no libbpf that can be used; the text says what was tried."""


class BpfError(Exception):
    """The kernel or libbpf refused; ``log`` holds the last lines that libbpf printed."""

    def __init__(self, what: str, code: int, log: Iterable[str] = ()) -> None:
        self.code = abs(code)
        self.log = tuple(log)
        super().__init__(f"{what}: {os.strerror(self.code)}")


class Libbpf:
    """The library, loaded; raises `LibbpfMissing`."""

    def __init__(self, sonames: Iterable[str] = SONAMES) -> None:
        self._lib, self.soname = _load(sonames)
        for name, (result, arguments) in _FUNCTIONS.items():
            try:
                function = getattr(self._lib, name)
            except AttributeError:
                raise LibbpfMissing(f"{self.soname} is too old: it has no {name}") from None
            function.restype, function.argtypes = result, arguments
        if self.soname.endswith(".0"):
            self._lib.libbpf_set_strict_mode(_STRICT_ALL)
        self.log: deque[str] = deque(maxlen=200)
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._vsnprintf.argtypes = (c_void_p, c_size_t, c_char_p, c_void_p)
        # Kept, because libbpf calls it for as long as it is loaded.
        self._print = _PRINT(self._keep)
        self._lib.libbpf_set_print(self._print)

    def _keep(self, level: int, form: bytes, arguments: int) -> int:
        if level > _INFO:
            return 0
        # A va_list is passed by reference on the processors that Linux runs eBPF on.
        text = ctypes.create_string_buffer(16_384)
        self._vsnprintf(text, len(text), form, arguments)
        self.log.extend(text.value.decode("utf-8", "backslashreplace").splitlines())
        return 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self._lib, name)
        return function

    def number(self, what: str, result: int) -> int:
        """``result``, or `BpfError` if it is a negative error number."""
        if result < 0:
            # -1 with errno is how older versions report.
            code = ctypes.get_errno() if result == -1 and ctypes.get_errno() else -result
            raise BpfError(what, code, self.log)
        return result

    def pointer(self, what: str, result: int | None) -> int:
        """``result``, or `BpfError` if it is null."""
        if not result:
            raise BpfError(what, ctypes.get_errno(), self.log)
        return result


def _load(sonames: Iterable[str]) -> tuple[ctypes.CDLL, str]:
    tried = []
    for soname in sonames:
        try:
            return ctypes.CDLL(soname, use_errno=True), soname
        except OSError as error:
            tried.append(str(error))
    raise LibbpfMissing("; ".join(tried))


class Btf:
    """What the running kernel says of its own types. A context manager."""

    def __init__(self, lib: Libbpf) -> None:
        self._lib = lib
        self._btf = lib.pointer("the kernel's types", lib.btf__load_vmlinux_btf())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.btf__free(self._btf)

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a tracepoint gives; 0 if the kernel has no such tracepoint."""
        found = self._lib.btf__find_by_name_kind(
            self._btf, f"btf_trace_{name}".encode(), _KIND_TYPEDEF
        )
        if found < 0:
            return 0
        # struct btf_type: name, info (its low 16 bits are a length), size or type. The
        # typedef is of a pointer to a function, whose first parameter is of the kernel's own.
        pointer = self._type(found)[2]
        function = self._type(pointer)[2]
        parameters: int = self._type(function)[1] & 0xFFFF
        return max(parameters - 1, 0)

    def enum_value(self, enum: str, name: str) -> int | None:
        """The value of an enumerator, or None."""
        found = self._lib.btf__find_by_name_kind(self._btf, enum.encode(), _KIND_ENUM)
        if found < 0:
            return None
        words = self._type(found)
        for index in range(words[1] & 0xFFFF):
            offset, value = words[3 + 2 * index], words[4 + 2 * index]
            if self._lib.btf__name_by_offset(self._btf, offset) == name.encode():
                return int(value)
        return None

    def _type(self, number: int) -> Any:
        return self._lib.btf__type_by_id(self._btf, number)


class BpfObject:
    """One object file on its way into the kernel: opened, changed, loaded, attached, closed."""

    def __init__(self, lib: Libbpf, image: bytes) -> None:
        self._lib = lib
        lib.log.clear()
        self._image = image  # libbpf reads from it until the object is loaded
        self._links: dict[str, int] = {}
        self._object: int | None = lib.pointer(
            "the object cannot be read", lib.bpf_object__open_mem(image, len(image), None)
        )

    def resize(self, name: str, entries: int) -> None:
        """Set how many entries a map will have; before `load`."""
        self._lib.number(name, self._lib.bpf_map__set_max_entries(self._map(name), entries))

    def leave_out(self, program: str) -> None:
        """Do not load this program; before `load`."""
        found = self._program(program)
        self._lib.number(program, self._lib.bpf_program__set_autoload(found, False))

    def load(self) -> None:
        """Have the kernel verify and take everything."""
        self._lib.number("the kernel refused", self._lib.bpf_object__load(self._object))

    def attach(self, program: str) -> None:
        """Let a program run from now on."""
        link = self._lib.bpf_program__attach(self._program(program))
        self._links[program] = self._lib.pointer(program, link)

    def detach(self) -> None:
        """Let no program run any more. What has begun to run may still finish."""
        while self._links:
            self._lib.bpf_link__destroy(self._links.popitem()[1])

    def map_fd(self, name: str) -> int:
        """The descriptor of a map; it belongs to this object."""
        return self._lib.number(name, self._lib.bpf_map__fd(self._map(name)))

    def iterate(self, program: str) -> int:
        """A new descriptor to read what an attached iterator writes; the caller closes it."""
        link = self._lib.bpf_link__fd(self._links[program])
        return self._lib.number(program, self._lib.bpf_iter_create(link))

    def missed(self, program: str) -> int:
        """How often the kernel passed over a program because it was running already."""
        info = (ctypes.c_uint64 * 32)()
        size = c_uint32(ctypes.sizeof(info))
        descriptor = self._lib.bpf_program__fd(self._program(program))
        self._lib.number(
            program, self._lib.bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size))
        )
        # struct bpf_prog_info: recursion_misses is at byte 208, since 5.12.
        return int(info[26]) if size.value >= 216 else 0

    def close(self) -> None:
        """Give everything back; may be called twice."""
        self.detach()
        if self._object is not None:
            self._lib.bpf_object__close(self._object)
            self._object = None

    def _map(self, name: str) -> int:
        found = self._lib.bpf_object__find_map_by_name(self._object, name.encode())
        return self._lib.pointer(f"the object has no map {name}", found)

    def _program(self, name: str) -> int:
        found = self._lib.bpf_object__find_program_by_name(self._object, name.encode())
        return self._lib.pointer(f"the object has no program {name}", found)
