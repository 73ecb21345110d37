"""From bundles and recordings to examples: answered by rules of thumb, without names of hosts."""

import gzip
import json
import os
import stat

import attrs
import pytest

from linnix_core import (
    Alert,
    Bundle,
    Evidence,
    Fact,
    Incident,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    bundle_of,
    dump_bundle,
    encode,
)
from linnix_core.testing.records import reason_request
from linnix_plugin_insight import BadExample, Label, load_example
from linnix_plugin_insight.making import anonymous, make_example
from linnix_plugin_insight.recordings import Recording

BOOT = "6f9a1c52-2222-4333-8444-123456789abc"


def read(path):
    return [load_example(line) for line in path.read_bytes().splitlines()]


# --- answers ------------------------------------------------------------------------------


def test_the_answer_is_that_of_the_rules_of_thumb(bundle, ask):
    example = make_example(bundle, ask)
    assert example.answer == ask(bundle.request)
    assert example.insight["class"] == example.answer.class_
    assert example.label is None


def test_the_same_incident_has_the_same_name_and_another_has_another(bundle, ask):
    names = [make_example(b, ask).id for b in (bundle, bundle, Bundle(reason_request("oom_risk")))]
    assert names[0] == names[1] != names[2]


def test_who_knows_better_is_believed(bundle, ask):
    example = make_example(bundle, ask, label=Label("oom_risk", (), ("P2",)))
    assert (example.answer.class_, example.answer.process) == ("oom_risk", "P2")
    assert example.insight["class"] == "oom_risk"
    assert example.agrees


def test_what_is_normal_blames_nobody_and_waits(bundle, ask):
    example = make_example(bundle, ask, label=Label("normal"))
    assert example.answer.process is None
    assert example.insight["primary_process"] is None
    assert example.insight["actions"] == ["Watch whether it comes back"]


def test_a_class_that_is_just_as_true_is_left(bundle, ask):
    example = make_example(bundle, ask, label=Label("oom_risk", ("cpu_spin",), ("P1",)))
    assert example.answer == ask(bundle.request)


def test_a_label_of_a_process_that_was_not_given_makes_no_example(bundle, ask):
    with pytest.raises(BadExample):
        make_example(bundle, ask, label=Label("cpu_spin", (), ("P77",)))


# --- names --------------------------------------------------------------------------------


SECRETS = ("web-01.example", BOOT, "/home/jane", "s3cret", "tenant-7", "run-42", "team-blue")


@pytest.fixture
def telling():
    """A bundle that tells who it is of, in every place that could."""
    key = ProcessKey(BOOT, 4412, 10_000_000)
    subject = Subject(key, "/home/jane/bin/tool", "tool", "/tenant-7")
    records = [
        ProcessEvent("fork", 4400, 9_000_000, comm="bash", exe="/usr/bin/bash", boot_id=BOOT),
        ProcessEvent(
            "fork", 4412, 10_000_000, ppid=4400, parent_start_ns=9_000_000, comm="tool",
            exe="/home/jane/bin/tool", args=("tool", "--password=s3cret"), cwd="/home/jane",
            cgroup="/tenant-7", boot_id=BOOT, host="web-01.example", run_id="run-42",
        ),
        ProcessSample(4412, 10_000_000, 10**9, "tool", cpu_percent=99.0, boot_id=BOOT),
    ]  # fmt: skip
    alert = Alert(
        "spin", "high", "tool of /home/jane spins", "cpu_spin", subject,
        (Evidence("cpu", 99, "%"),), ts_ns=5, host="web-01.example", run_id="run-42", boot_id=BOOT,
    )  # fmt: skip
    incident = Incident(
        "tenant-7", "high", "tool of /home/jane spins", "cpu_spin", subject, rules=("spin",),
        evidence=alert.evidence, actions=("cat /home/jane/notes",), opened_ns=5, updated_ns=5,
        labels={"team": "team-blue"}, id="i1", host="web-01.example", run_id="run-42",
        boot_id=BOOT,
    )  # fmt: skip
    made = bundle_of(incident, [*records, alert])
    assert made.alerts or made.request.processes
    return made


def test_nothing_tells_whose_machine_it_was(telling):
    said = dump_bundle(anonymous(telling)).decode()
    assert [word for word in SECRETS if word in said] == []
    assert "/usr/bin/bash" in said or "tool" in said


def test_what_was_measured_is_left_as_it_was(telling):
    bare = anonymous(telling)
    assert bare.request.facts == telling.request.facts
    assert [p.id for p in bare.request.processes] == [p.id for p in telling.request.processes]
    assert bare.request.incident.class_ == "cpu_spin"


def test_actions_of_rules_are_taken_out_and_the_others_keep_their_order(telling):
    assert telling.request.actions[0].text == "cat /home/jane/notes"
    bare = anonymous(telling).request.actions
    assert [a.text for a in bare] == [a.text for a in telling.request.actions[1:]]
    assert [a.id for a in bare] == [f"a{n}" for n in range(1, len(bare) + 1)]


@pytest.mark.parametrize(
    ("exe", "shown"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("/usr/lib/jvm/bin/java", "/usr/lib/jvm/bin/java"),
        ("/home/jane/bin/tool", "/opt/app/tool"),
        ("/srv/secret-project/run", "/opt/app/run"),
        (None, None),
    ],
)
def test_folders_of_the_system_stay(exe, shown, bundle):
    request = attrs.evolve(
        bundle.request,
        processes=(attrs.evolve(bundle.request.processes[0], exe=exe),),
        facts=(Fact("cpu", 1, "%", "P1", "f1"),),
    )
    assert anonymous(Bundle(request)).request.processes[0].exe == shown


# --- the commands -------------------------------------------------------------------------


def test_new_makes_one_example_of_a_bundle(linnix, bundle_file, tmp_path):
    out = tmp_path / "out.jsonl"
    linnix(
        "new", bundle_file, "-o", out, "--id", "a.b-1", "--class", "cpu_spin", "--process", "P1",
        "--notes", "a loop", "--family", "loops", "--held-out", "--source-type", "synthetic",
    )  # fmt: skip
    (example,) = read(out)
    assert (example.id, example.notes, example.family) == ("a.b-1", "a loop", "loops")
    assert (example.held_out, example.source) == (True, "synthetic")
    assert example.label == Label("cpu_spin", (), ("P1",))


def test_new_without_a_class_has_no_label_and_goes_to_standard_output(linnix, bundle_file):
    assert load_example(linnix("new", bundle_file).out).label is None


def test_a_culprit_without_a_class_is_a_mistake(linnix, bundle_file):
    assert "--class" in linnix("new", bundle_file, "--process", "P1", code=2).err


@pytest.mark.parametrize(("class_", "process"), [("cpu_spin", "P77"), ("normal", "P1")])
def test_new_refuses_a_culprit_that_cannot_be(linnix, bundle_file, class_, process):
    said = linnix("new", bundle_file, "--class", class_, "--process", process, code=1)
    assert "$." in said.err


@pytest.mark.parametrize("name", ["two words", "x" * 200])
def test_new_refuses_a_name_that_is_none(linnix, bundle_file, tmp_path, name):
    out = tmp_path / "out.jsonl"
    assert "$.id" in linnix("new", bundle_file, "--id", name, "-o", out, code=1).err
    assert not out.exists()


def test_names_are_kept_only_where_somebody_asks_for_it(linnix, tmp_path, telling):
    path = tmp_path / "bundle.json"
    path.write_bytes(dump_bundle(telling))
    assert "jane" not in linnix("new", path).out
    assert "jane" in linnix("new", path, "--keep-names").out
    assert "jane" in linnix("from-incidents", path, "--keep-names").out


def test_what_is_no_bundle_is_told(linnix, tmp_path):
    path = tmp_path / "no.json"
    path.write_text("{\n}")
    assert "cannot read" in linnix("new", path, code=1).err
    assert "cannot read" in linnix("from-incidents", path, code=1).err
    assert "cannot read" in linnix("from-incidents", tmp_path / "missing", code=1).err


def test_bundles_become_examples_once(linnix, bundle_file, tmp_path):
    out = tmp_path / "out.jsonl"
    said = linnix("from-incidents", bundle_file, bundle_file, "-o", out, "--family", "loops")
    assert "1 examples, 1 left out" in said.err
    (example,) = read(out)
    assert example.family == "loops"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_options_that_make_no_example_are_refused(linnix, bundle_file, tmp_path):
    out = tmp_path / "out.jsonl"
    for option in (("--family", ""), ("--notes", "x" * 501)):
        said = linnix("from-incidents", bundle_file, "-o", out, *option, code=1)
        assert "makes no example: $." in said.err
    assert not out.exists()


# --- recordings ---------------------------------------------------------------------------


def spin(pid, at_s):
    """A process that spins, as a run with rules records it."""
    key = ProcessKey(BOOT, pid, 10_000_000 * pid)
    ts_ns = at_s * 10**9
    subject = Subject(key, "/usr/bin/loop", f"loop{pid}", None)
    alert = Alert(
        "spin", "high", "it spins", "cpu_spin", subject, (Evidence("cpu", 99, "%"),), ts_ns=ts_ns
    )
    incident = Incident(
        f"mark{pid}", "high", "it spins", "cpu_spin", subject, rules=("spin",),
        evidence=alert.evidence, opened_ns=ts_ns, updated_ns=ts_ns, ts_ns=ts_ns, id=f"i{pid}",
    )  # fmt: skip
    return [
        ProcessEvent("fork", pid, key.start_ns, comm=f"loop{pid}", boot_id=BOOT, ts_ns=ts_ns - 9),
        ProcessSample(
            pid, key.start_ns, 10**9, f"loop{pid}", 99.0, 2**20, boot_id=BOOT, ts_ns=ts_ns - 5
        ),
        alert,
        incident,
        ProcessSample(
            pid, key.start_ns, 10**9, f"loop{pid}", 1.0, 2**20, boot_id=BOOT,
            ts_ns=ts_ns + 90 * 10**9,
        ),
        attrs.evolve(incident, change="closed", closed_ns=ts_ns + 300 * 10**9),
    ]  # fmt: skip


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "run.jsonl"
    lines = [encode(r) for r in [*spin(7, 100), *spin(8, 1000)]]
    path.write_bytes(b"\n".join([*lines[:3], b"", b"{cut", *lines[3:], b'{"type": "event"']))
    return path


def test_each_incident_of_a_recording_is_an_example(linnix, recording, tmp_path):
    out = tmp_path / "out.jsonl"
    assert "2 examples" in linnix("from-incidents", recording, "-o", out).err
    first, second = read(out)
    assert first.bundle.request.processes[0].comm == "loop7"
    assert second.bundle.request.processes[0].comm == "loop8"


def test_an_incident_is_as_it_was_when_it_was_explained(recording):
    first = next(Recording(recording).bundles())
    assert first.request.processes[0].cpu_percent == 99.0
    assert [alert.rule for alert in first.alerts] == ["spin"] or first.alerts == ()


def test_one_that_got_worse_is_taken_as_it_was_then(recording, tmp_path):
    worse = attrs.evolve(spin(7, 100)[3], change="worse", severity="critical")
    with recording.open("ab") as file:
        file.write(b"\n" + encode(worse))
    assert next(Recording(recording).bundles()).request.incident.severity == "critical"


def test_a_packed_recording_is_read_too(linnix, recording, tmp_path):
    packed = tmp_path / "run.jsonl.gz"
    packed.write_bytes(gzip.compress(recording.read_bytes()))
    assert linnix("from-incidents", packed).out == linnix("from-incidents", recording).out


def test_a_damaged_one_is_told(linnix, recording, tmp_path):
    packed = tmp_path / "run.jsonl.gz"
    packed.write_bytes(gzip.compress(recording.read_bytes())[:-20])
    out = tmp_path / "out.jsonl"
    assert "cannot read" in linnix("from-incidents", packed, "-o", out, code=1).err
    assert not out.exists()


def test_a_recording_without_incidents_says_how_to_get_some(linnix, tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(encode(spin(7, 100)[0]) + b"\n")
    assert "no incident among 1 records" in linnix("from-incidents", path, code=1).err


def test_a_recording_cannot_come_through_a_pipe(linnix):
    assert "name a file" in linnix("from-incidents", "-", code=1, stdin="{}").err


def test_too_many_incidents_are_refused(linnix, tmp_path):
    incident = spin(7, 100)[3]
    path = tmp_path / "many.jsonl"
    path.write_bytes(b"\n".join(encode(attrs.evolve(incident, id=f"i{n}")) for n in range(257)))
    assert "more than 256 incidents" in linnix("from-incidents", path, code=1).err


@pytest.fixture
def full(monkeypatch):
    """Temporary files are on a disk that is full."""
    import tempfile

    made = tempfile.mkstemp

    def on_a_full_disk(**rest):
        handle, name = made(**rest)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr(tempfile, "mkstemp", on_a_full_disk)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_and_leaves_what_was_there(linnix, bundle_file, tmp_path, full):
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    assert "No space left" in linnix("new", bundle_file, "-o", out, code=1).err
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_pipe_is_written_to_and_not_replaced(linnix, bundle_file, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        linnix("new", bundle_file, "-o", pipe, "--id", "one")
        assert load_example(os.read(reader, 65_536).splitlines()[0]).id == "one"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_is_no_recording(linnix, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "more than once" in linnix("from-incidents", pipe, code=1).err


def test_a_folder_that_is_not_there_is_told(linnix, bundle_file, tmp_path):
    said = linnix("new", bundle_file, "-o", tmp_path / "no" / "out.jsonl", code=1)
    assert "cannot write" in said.err


def test_the_documents_of_examples_hold_their_facts(linnix, bundle_file):
    document = json.loads(linnix("new", bundle_file).out)
    assert document["bundle"]["request"]["facts"][0]["id"] == "f1"
