"""The process of a model may crash, hang and say nonsense: it costs a turn, and is not left."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from linnix_core import LinnixError
from linnix_core.testing.records import reason_request
from linnix_core.testing.waiting import eventually
from linnix_plugin_llama_cpp import child as child_module
from linnix_plugin_llama_cpp.child import Child
from linnix_plugin_openai import NoAnswer, TooLate

PATIENCE_S = 60.0

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, which is built for ten minutes")


def about(class_):
    return reason_request(class_, timeout_s=PATIENCE_S)


def answered(reasoner):
    """The process that answered."""
    assert reasoner.linnix_reason(about("cpu_spin")).facts
    return reasoner._child


def ends_with(pid, signum):
    os.kill(pid, signum)
    wait_for_end(pid)


def wait_for_end(pid):
    """Wait for the end of a process, which may have another parent."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        assert readable, "it runs still"
    finally:
        os.close(descriptor)


# --- crashes ------------------------------------------------------------------------------


def test_after_a_crash_the_next_turn_has_a_new_process(make_reasoner):
    reasoner = make_reasoner()
    first = answered(reasoner).pid
    ends_with(first, signal.SIGSEGV)
    assert answered(reasoner).pid != first


def test_a_crash_within_a_turn_is_named(make_reasoner, stand_in):
    stand_in("""
import json, os, signal, sys
print(json.dumps({"loaded": {"name": "", "quantization": "", "template": True}}), flush=True)
sys.stdin.readline()
print("GGML_ASSERT(x > 0) failed", file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGABRT)
""")
    reasoner = make_reasoner()
    with pytest.raises(NoAnswer, match=r"ended by SIGABRT: GGML_ASSERT\(x > 0\) failed"):
        reasoner.linnix_reason(about("cpu_spin"))
    assert "SIGABRT" in reasoner.linnix_health().reason


def test_a_processor_that_is_too_old_is_told_apart(make_reasoner, stand_in):
    stand_in("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(NoAnswer, match="SIGILL") as caught:
        make_reasoner().linnix_reason(about("cpu_spin"))
    assert "build it here" in caught.value.hint


def test_an_exit_is_told_with_its_last_words(make_reasoner, stand_in):
    stand_in("import sys; sys.exit('no library \\x1b[2J')")
    with pytest.raises(NoAnswer, match="has failed: no library") as caught:
        make_reasoner().linnix_reason(about("cpu_spin"))
    assert "\x1b" not in str(caught.value)


# --- hanging, and being late --------------------------------------------------------------


def test_a_process_that_hangs_is_killed_at_the_deadline(make_reasoner):
    reasoner = make_reasoner()
    child = answered(reasoner)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(TooLate):
        reasoner.linnix_reason(reason_request("cpu_spin", timeout_s=0.5))
    wait_for_end(child.pid)
    assert answered(reasoner).pid != child.pid


def exchange(child, request, seconds):
    """Tell the process another time than it is waited for."""
    line = json.dumps({**request, "seconds": seconds})
    return child._exchange(f"{line}\n".encode(), time.monotonic() + PATIENCE_S)


def test_a_model_that_is_slow_stops_by_itself_and_can_be_asked_again(make_reasoner):
    child = answered(make_reasoner(context=16_000))
    words = [{"role": role, "content": role} for role in ("system", "user")]
    endless = {"messages": words, "grammar": 'root ::= "x" root', "max_tokens": 15_000}
    said = exchange(child, endless, 0.5)
    assert said["why"] == "late"
    assert 0 < said["output"] < 15_000
    assert said["text"] == "x" * said["output"]
    assert exchange(child, {**endless, "grammar": 'root ::= "{}"'}, PATIENCE_S)["why"] == "done"


def test_a_prompt_is_not_read_beyond_the_deadline(make_reasoner):
    child = answered(make_reasoner(context=16_000))
    words = [{"role": role, "content": role * 1000} for role in ("system", "user")]
    request = {"messages": words, "grammar": 'root ::= "{}"', "max_tokens": 9}
    said = exchange(child, request, 0.0)
    assert (said["why"], said["output"]) == ("late", 0)
    # What it has read by halves is forgotten.
    assert exchange(child, request, PATIENCE_S)["text"] == "{}"


def test_a_model_that_is_late_is_said_to_be(make_reasoner, stand_in):
    stand_in("""
import json, sys
print(json.dumps({"loaded": {}}), flush=True)
sys.stdin.readline()
print(json.dumps({"why": "late", "input": 700, "output": 3}), flush=True)
""")
    reasoner = make_reasoner()
    with pytest.raises(TooLate, match="700 tokens to read, 3 written"):
        reasoner.linnix_reason(about("cpu_spin"))
    metrics = {m.labels.get("outcome"): m.value for m in reasoner.linnix_metrics()}
    assert metrics["late"] == 1


def test_the_model_has_to_be_done_before_nobody_waits(make_reasoner, asked):
    make_reasoner().linnix_reason(about("cpu_spin"))
    make_reasoner(timeout=20.0).linnix_reason(about("cpu_spin"))
    whole, own = (request["seconds"] for request in asked())
    assert 20 < whole < PATIENCE_S
    assert own < 20


def test_a_model_that_loads_longer_than_a_turn_is_there_for_the_next(make_reasoner):
    reasoner = make_reasoner()
    with pytest.raises(TooLate, match="still being loaded"):
        reasoner.linnix_reason(reason_request("cpu_spin", timeout_s=0.01))
    loading = reasoner._child
    assert answered(reasoner) is loading


def test_a_model_that_loads_forever_is_given_up(make_reasoner, stand_in, monkeypatch):
    monkeypatch.setattr(child_module, "LOAD_S", 0.1)
    stand_in("import time; time.sleep(100)")
    reasoner = make_reasoner()
    with pytest.raises(TooLate, match="still being loaded"):
        reasoner.linnix_reason(reason_request("cpu_spin", timeout_s=5))
    wait_for_end(reasoner._child.pid)


# --- nonsense -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["'what?'", "'[1, 2]'", "'[' * 100_000", "'\\x00\\xff'", "'x' * 2_000_000"]
)
def test_nonsense_ends_the_process_and_not_the_agent(make_reasoner, stand_in, said):
    stand_in(f"import sys; print({said}, flush=True); sys.stdin.read()")
    reasoner = make_reasoner()
    with pytest.raises(NoAnswer, match="nonsense") as caught:
        reasoner.linnix_reason(about("cpu_spin"))
    assert len(str(caught.value)) < 400
    wait_for_end(reasoner._child.pid)


@pytest.mark.parametrize("said", [{}, {"why": "done"}, {"why": "done", "text": 1}, {"why": []}])
def test_a_reply_that_lacks_something_is_none(make_reasoner, stand_in, said):
    stand_in(f"""
import json, sys
print(json.dumps({{"loaded": {{}}}}), flush=True)
sys.stdin.readline()
print({json.dumps(said)!r}, flush=True)
""")
    reasoner = make_reasoner()
    with pytest.raises(NoAnswer, match="cannot answer"):
        reasoner.linnix_reason(about("cpu_spin"))
    assert reasoner.linnix_health().status == "degraded"


def test_output_without_an_end_is_bounded(make_reasoner, stand_in):
    stand_in("import os\nwhile True: os.write(1, b'x' * 65536)")
    with pytest.raises(NoAnswer, match="nonsense"):
        make_reasoner().linnix_reason(about("cpu_spin"))


def test_chatter_on_the_side_blocks_nobody(make_reasoner, stand_in):
    stand_in("""
import json, sys
print("x" * 1_000_000, file=sys.stderr, flush=True)
print(json.dumps({"loaded": {"name": "", "quantization": "", "template": True}}), flush=True)
sys.stdin.readline()
print(json.dumps({"why": "failed", "error": "no more"}), flush=True)
""")
    with pytest.raises(NoAnswer, match="no more"):
        make_reasoner().linnix_reason(about("cpu_spin"))


# --- not needed any more ------------------------------------------------------------------


def test_a_model_that_is_not_asked_is_unloaded_and_loaded_again(make_reasoner):
    reasoner = make_reasoner(idle_after=0.2)
    child = answered(reasoner)
    wait_for_end(child.pid)
    assert "not in memory" in reasoner.linnix_health().limits[0]
    assert child._process.returncode == 0
    assert answered(reasoner).pid != child.pid


def test_a_process_that_ends_while_it_is_asked_is_replaced_within_the_turn(
    make_reasoner, monkeypatch
):
    reasoner = make_reasoner(idle_after=0.2)
    child = answered(reasoner)
    wait_for_end(child.pid)
    # As if it had ended between the look at it and the question.
    monkeypatch.setattr(Child, "runs", property(lambda self: self is child))
    monkeypatch.setattr(child, "ask", _once(child, monkeypatch.undo))
    assert answered(reasoner).pid != child.pid


def _once(child, then):
    ask = child.ask

    def asked(request, ends):
        try:
            return ask(request, ends)
        finally:
            then()

    return asked


def test_a_stopped_agent_leaves_no_process_and_starts_none(make_reasoner):
    reasoner = make_reasoner()
    child = answered(reasoner)
    reasoner.linnix_stop(time.monotonic() + PATIENCE_S)
    assert child._process.returncode == -signal.SIGKILL
    with pytest.raises(LinnixError, match="not asked any more"):
        reasoner.linnix_reason(about("cpu_spin"))


def test_a_turn_ends_when_the_agent_does(make_reasoner, stand_in):
    stand_in("import sys; sys.stdin.read()")
    reasoner = make_reasoner()
    told = []

    def turn():
        try:
            reasoner.linnix_reason(about("cpu_spin"))
        except LinnixError as error:
            told.append(str(error))

    thread = threading.Thread(target=turn)
    thread.start()
    eventually(lambda: reasoner._child)
    reasoner.linnix_stop(time.monotonic() + PATIENCE_S)
    thread.join(PATIENCE_S)
    assert "SIGKILL" in told[0]


def test_a_process_whose_agent_was_killed_ends_although_it_computes(tiny):
    program = """
import sys, time
from linnix_plugin_llama_cpp.child import Child
settings = {"model": sys.argv[1], "context": 16000, "threads": 1, "nice": 0, "memory": None,
            "idle_after": 100}
child = Child(settings)
messages = [{"role": role, "content": role} for role in ("system", "user")]
request = {"messages": messages, "grammar": 'root ::= "{}"', "max_tokens": 9}
child.ask(request, time.monotonic() + 60)
print(child.pid, flush=True)
endless = 'root ::= "x" root'
child.ask({**request, "grammar": endless, "max_tokens": 15000}, time.monotonic() + 60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tiny)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_for_end(pid)
