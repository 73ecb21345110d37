"""What a license is worth: whole, changed, cut, late, early, elsewhere, revoked, replaced."""

import base64
import json
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import LinnixError, PluginUnavailable
from linnix_plugin_enterprise import keys, machine, require
from linnix_plugin_enterprise.documents import DocumentError, sign_document
from linnix_plugin_enterprise.issuing import (
    development_license,
    new_key,
    new_license,
    signed_license,
    signed_revocations,
)
from linnix_plugin_enterprise.judging import install, judge

BEGAN = datetime(2027, 1, 1, tzinfo=UTC)


def refused(context, capability="anomaly"):
    """The sentence and the next step with which a capability is refused."""
    with pytest.raises(PluginUnavailable) as caught:
        require(capability, context)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_license_gives_the_capability_that_it_names(context, sold):
    made = sold()
    assert require("anomaly", context) == made


def test_without_a_license_nothing_runs(context):
    assert refused(context) == "anomaly needs a license: no license is installed"


def test_a_capability_that_is_not_named_is_refused(context, sold):
    sold(capabilities=("anomaly", "jira"))
    assert refused(context, "siem").endswith("names anomaly, jira only")


# --- tampered, truncated, untrusted -------------------------------------------------------


def test_a_license_that_was_changed_is_refused(context, sold, folder):
    sold()
    file = folder / "license.json"
    document = json.loads(file.read_text())
    body = json.loads(base64.b64decode(document["body"]))
    body["hosts"] = 1000
    document["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    file.write_text(json.dumps(document))
    assert "was changed after it was signed" in refused(context)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_byte_of_a_license_can_be_changed(data, clock, sold, folder):
    sold()
    file = folder / "license.json"
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    changed = whole[:at] + bytes([other]) + whole[at + 1 :]
    file.write_bytes(changed)
    verdict = judge(folder, clock.now_s)
    # White space between the parts, and bits that base64 does not use, are no part of it.
    same = verdict.license is not None and verdict.license.customer == "ACME"
    assert not verdict.holds or same
    file.write_bytes(whole)
    assert judge(folder, clock.now_s).state == "valid"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_part_of_a_license_is_one(data, clock, sold, folder):
    sold()
    file = folder / "license.json"
    whole = file.read_bytes().rstrip()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert judge(folder, clock.now_s).state == "truncated"


@pytest.mark.parametrize("text", ["hello", "[1]", '{"a": 1}', "null", "\x00", "[" * 100_000])
def test_what_is_no_license_is_said_to_be_none(text, clock, folder):
    (folder / "license.json").write_text(text)
    verdict = judge(folder, clock.now_s)
    assert verdict.state == "unreadable"
    assert "is no license file" in verdict.reason


def test_a_license_signed_by_somebody_else_is_refused(context, sold, tmp_path):
    sold(signed_with=new_key(tmp_path / "forger"))
    assert "a key that is not trusted here" in refused(context)


def test_the_keys_of_a_release_are_the_only_ones(clock, sold, folder, tmp_path, monkeypatch):
    sold()
    release = tmp_path / "built-in"
    new_key(release)
    (release / "linnix.private.pem").unlink()
    monkeypatch.setattr(keys, "BUILT_IN", release)
    assert judge(folder, clock.now_s).state == "untrusted"


def test_a_key_that_is_none_is_named(clock, sold, folder):
    sold()
    (folder / "keys" / "other.pem").write_text("-----BEGIN NOTHING-----")
    verdict = judge(folder, clock.now_s)
    assert verdict.state == "untrusted"
    assert "other.pem holds no public Ed25519 key" in verdict.reason


def test_a_list_of_revoked_licenses_is_no_license(clock, folder, key):
    (folder / "license.json").write_text(signed_revocations((), key))
    assert judge(folder, clock.now_s).state == "unreadable"


def test_a_license_that_says_more_than_this_version_knows_is_refused(clock, folder, key):
    body = {"issued": "2027-01-01T00:00:00Z", "weather": "fine"}
    (folder / "license.json").write_text(sign_document("license", body, key))
    verdict = judge(folder, clock.now_s)
    assert verdict.state == "unreadable"
    assert "upgrade" in verdict.hint


# --- time ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "state"),
    [
        (-1, "future"), (-0.001, "future"), (0, "valid"), (99.99, "valid"),
        (100, "grace"), (113.99, "grace"), (114, "expired"), (10_000, "expired"),
    ],
)  # fmt: skip
def test_a_license_runs_from_its_begin_through_its_grace(day, state, clock, sold, folder):
    sold()
    clock.day = day
    assert judge(folder, clock.now_s).state == state


def test_grace_runs_with_a_warning(context, clock, sold, caplog):
    sold()
    clock.day = 101
    require("anomaly", context)
    assert "ended on 2027-04-11; what it names runs until 2027-04-25" in caplog.text


def test_an_expired_license_says_when_it_ended(context, clock, sold):
    sold(grace_days=0)
    clock.day = 100
    assert refused(context).endswith("of ACME ended on 2027-04-11")


def test_setting_the_clock_back_does_not_help(context, clock, sold):
    sold()
    clock.day = 113
    require("anomaly", context)
    clock.day = 50
    assert "in use on 2027-04-24 already" in refused(context)
    # The hour or the zone may change.
    clock.day = 112.5
    require("anomaly", context)


def test_a_license_does_not_come_back_by_an_hour(context, clock, sold):
    sold()
    clock.day = 114.01
    assert "ended" in refused(context)
    clock.day = 113.9
    assert "ended" in refused(context)


def test_a_new_license_begins_with_a_clean_slate(context, clock, sold):
    sold()
    clock.day = 50_000
    assert "ended" in refused(context)
    clock.day = 10
    assert "set the clock" in judge_hint(context)
    sold()
    require("anomaly", context)


def judge_hint(context):
    with pytest.raises(PluginUnavailable) as caught:
        require("anomaly", context)
    return caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "b"}', '{"a": 1e300}', "\xff"])
def test_a_broken_memory_of_the_time_is_none(text, context, sold, folder):
    sold()
    (folder / "clock.json").write_text(text)
    require("anomaly", context)
    assert list(json.loads((folder / "clock.json").read_text()).values()) != ["b"]


def test_where_the_time_cannot_be_kept_the_license_holds(context, sold, folder):
    sold()
    (folder / "clock.json").mkdir()
    require("anomaly", context)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


# --- place --------------------------------------------------------------------------------


def test_a_license_for_other_machines_is_refused_and_names_this_one(context, sold):
    sold(machines=("f" * 32,))
    here = machine.machine_id()
    assert "is for other machines" in refused(context)
    assert here in judge_hint(context)
    sold(machines=("f" * 32, here))
    require("anomaly", context)


def test_a_machine_without_an_id_cannot_use_a_license_for_machines(context, sold, monkeypatch):
    monkeypatch.setattr(machine, "MACHINE_ID_FILES", ())
    sold()
    require("anomaly", context)
    sold(machines=("f" * 32,))
    assert "systemd-machine-id-setup" in judge_hint(context)


def test_the_id_of_the_machine_itself_is_not_told(folder):
    assert machine.machine_id() != "a" * 32
    assert len(machine.machine_id()) == 32


@pytest.mark.parametrize(
    "parts",
    [
        {"hosts": 0}, {"machines": ("a", "b")}, {"capabilities": ()}, {"grace_days": -1},
        {"capabilities": ("A b",)}, {"days": 0}, {"issued": "yesterday"}, {"id": ""},
    ],
)  # fmt: skip
def test_a_license_that_cannot_be_is_not_made(parts):
    with pytest.raises(ValueError, match=r"must|cannot|names"):
        new_license("ACME", **{"capabilities": ("anomaly",), "hosts": 1} | parts)


# --- revoked ------------------------------------------------------------------------------


def test_a_revoked_license_is_refused(context, sold, folder, key, clock, tmp_path):
    made = sold()
    (tmp_path / "revoked.json").write_text(signed_revocations(("other", made.id), key))
    install(folder, tmp_path / "revoked.json", clock.now_s)
    assert "was revoked" in refused(context)


def test_a_changed_list_does_not_bring_it_back(context, sold, folder, key):
    made = sold()
    text = signed_revocations((made.id,), key)
    (folder / "revoked.json").write_text(text[: len(text) // 2])
    assert "revoked.json is incomplete" in refused(context)


def test_an_older_list_does_not_replace_a_newer_one(sold, folder, key, clock, tmp_path):
    made = sold()
    newer, older = tmp_path / "newer.json", tmp_path / "older.json"
    newer.write_text(signed_revocations((made.id,), key, BEGAN + timedelta(days=2)))
    older.write_text(signed_revocations((), key, BEGAN + timedelta(days=1)))
    install(folder, newer, clock.now_s)
    with pytest.raises(LinnixError, match="the list that is installed"):
        install(folder, older, clock.now_s)
    assert judge(folder, clock.now_s).state == "revoked"


# --- installing ---------------------------------------------------------------------------


def test_what_does_not_hold_is_not_installed(sold, folder, clock, tmp_path):
    good = sold()
    sold(tmp_path / "early.json", begins=BEGAN + timedelta(days=50))
    with pytest.raises(DocumentError, match="begins on") as caught:
        install(folder, tmp_path / "early.json", clock.now_s)
    assert caught.value.code == "future"
    assert judge(folder, clock.now_s).license == good


def test_a_license_is_private(sold, folder, clock, tmp_path):
    sold(tmp_path / "new.json")
    install(folder, tmp_path / "new.json", clock.now_s)
    assert (folder / "license.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_installs_belongs_to_whom_the_folder_does(sold, folder, clock, tmp_path):
    os.chown(folder, 65534, 65534)
    sold(tmp_path / "new.json")
    install(folder, tmp_path / "new.json", clock.now_s)
    assert (folder / "license.json").stat().st_uid == 65534


def test_a_license_can_be_replaced_while_it_is_read(context, sold, folder, clock, tmp_path):
    first = sold()
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    made = [first, *(sold(file) for file in files)]
    done = threading.Event()

    def replace():
        for turn in range(100):
            install(folder, files[turn % 2], clock.now_s)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(require("anomaly", context).id)
    thread.join()
    assert seen <= {each.id for each in made}
    assert require("anomaly", context) == made[2]


def test_a_license_that_was_replaced_is_seen_by_the_next_call(context, sold):
    sold(capabilities=("jira",))
    assert "names jira only" in refused(context)
    sold()
    require("anomaly", context)


def test_a_development_license_is_good_until_tomorrow(tmp_path):
    development_license(tmp_path / "dev", "anomaly")
    now_s = datetime.now(UTC).timestamp()
    assert judge(tmp_path / "dev", now_s + 1).allows("anomaly")
    assert judge(tmp_path / "dev", now_s + 3 * 86400).state == "expired"
    assert [path.name for path in (tmp_path / "dev" / "keys").iterdir()] == ["linnix.pem"]


def test_a_license_is_no_list_of_revoked_ones(sold, folder, key, clock):
    made = sold()
    (folder / "revoked.json").write_text(signed_license(made, key))
    assert judge(folder, clock.now_s).state == "unreadable"
