"""What the kernel writes is what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_bcc.wire import _HEADER, ARGS_CUT, ARGS_UNREADABLE, EXEC, Message

ARGUMENT = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b""))


def encoded(args=b"", exe=b"", *, flags=0, name=b"name"):
    header = _HEADER.pack(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, EXEC, flags, len(args), len(exe), name)
    return header + args + exe


@given(args=st.lists(ARGUMENT), exe=ARGUMENT)
def test_arguments_and_path_come_back(args, exe):
    text = b"".join(arg + b"\0" for arg in args)
    message = Message.decode(encoded(text, exe + b"\0"))
    assert message.args == tuple(arg.decode("utf-8", "backslashreplace") for arg in args)
    assert message.exe == (exe.decode("utf-8", "backslashreplace") or None)
    assert not message.args_cut


@given(raw=st.binary(max_size=200), flags=st.integers(0, 3), name=st.binary(max_size=16))
def test_whatever_a_process_chose_is_valid_text(raw, flags, name):
    message = Message.decode(encoded(raw, raw, flags=flags, name=name))
    for text in (message.comm, message.exe or "", *(message.args or ())):
        text.encode()


def test_every_field_has_its_place():
    message = Message.decode(encoded())
    assert message[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, EXEC, 0)
    assert message.comm == "name"
    assert (message.args, message.exe) == ((), None)


@pytest.mark.parametrize(
    ("text", "flags", "args", "cut"),
    [
        (b"", 0, (), False),
        (b"\0", 0, ("",), False),
        (b"", ARGS_UNREADABLE, None, False),
        (b"a\0b", ARGS_CUT, ("a", "b"), True),
        (b"a\0b\0", ARGS_UNREADABLE, ("a", "b"), True),
    ],
)
def test_none_cut_and_unreadable_arguments(text, flags, args, cut):
    message = Message.decode(encoded(text, flags=flags))
    assert (message.args, message.args_cut) == (args, cut)
