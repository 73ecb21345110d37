"""Opening: one writer at a time, nothing of others is touched, every refusal has a next step."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

import linnix_plugin_sqlite.schema
from linnix_core import LinnixError, PluginUnavailable, Query
from linnix_plugin_sqlite import Reader, SqliteConfig, SqliteHandler, tree_at
from linnix_plugin_sqlite.schema import MIGRATIONS


def refusal(make_handler, **options):
    with pytest.raises(PluginUnavailable) as caught:
        make_handler(**options).linnix_start()
    assert caught.value.hint
    return str(caught.value)


# --- two agents ---------------------------------------------------------------------------


def test_a_second_agent_on_the_same_database_is_refused(start_handler, make_handler, make_batch):
    first = start_handler()
    first.linnix_handle(make_batch(3))
    assert "already written to by another Linnix" in refusal(make_handler)
    first.linnix_handle(make_batch(3))
    first.linnix_flush()
    assert len(first.linnix_query(Query(("event",))).records) == 6
    assert first.linnix_health().status == "ok"


HOLDER = """
import sys
from pathlib import Path
from linnix_plugin_sqlite.store import Store
store = Store(Path(sys.argv[1]), 8 * 2**20)
store.begin("other", "h", "handlers.sqlite", 1)
print("holds", flush=True)
sys.stdin.read()
"""


def test_so_is_one_of_another_process_until_that_is_gone(make_handler, start_handler, path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "holds\n"
        assert "already written to by another Linnix" in refusal(make_handler)
        other.kill()
    assert start_handler().linnix_health().status == "ok"


def test_a_program_that_holds_a_lock_delays_records_and_loses_none(start_handler, make_batch, path):
    handler = start_handler()
    handler._store._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        handler.linnix_handle(make_batch(3))
        handler.linnix_flush()
        assert "locked" in handler.linnix_health().reason
    handler.linnix_flush()
    assert handler.linnix_health().status == "ok"
    assert len(handler.linnix_query(Query()).records) == 3


# --- files that are something else --------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_alone(make_handler, path):
    path.write_bytes(b"notes of somebody\n" * 100)
    assert "is no database, or its beginning is damaged" in refusal(make_handler)
    assert path.read_bytes() == b"notes of somebody\n" * 100


def test_a_database_of_something_else_is_refused_and_left_alone(make_handler, path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE accounts (name)")
    before = path.read_bytes()
    assert "is a database of something else" in refusal(make_handler)
    assert path.read_bytes() == before


def test_damage_found_on_the_way_ends_the_component_with_the_reason(
    start_handler, stop_handler, make_batch, make_handler, path
):
    handler = start_handler()
    handler.linnix_handle(make_batch(3))
    stop_handler(handler)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    assert "is damaged" in refusal(make_handler)


def test_a_newer_schema_is_refused_and_left_alone(start_handler, stop_handler, make_handler, path):
    stop_handler(start_handler())
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    said = refusal(make_handler)
    assert "written by a newer linnix-plugin-sqlite (schema 2, this one knows 1)" in said
    with pytest.raises(LinnixError, match="written by a newer") as caught:
        tree_at(path, 1)
    assert "upgrade" in caught.value.hint


# --- migrations ---------------------------------------------------------------------------


def test_an_earlier_schema_is_brought_up_to_date_and_keeps_what_it_has(
    start_handler, stop_handler, make_batch, path, monkeypatch
):
    handler = start_handler()
    handler.linnix_handle(make_batch(3))
    stop_handler(handler)
    later = (*MIGRATIONS, ("ALTER TABLE findings ADD COLUMN author TEXT",))
    for module in (linnix_plugin_sqlite.schema, linnix_plugin_sqlite.reader):
        monkeypatch.setattr(module, "MIGRATIONS", later)
    with pytest.raises(LinnixError, match="is of an earlier version"):
        Reader(path)
    handler = start_handler()
    assert len(handler.linnix_query(Query()).records) == 3
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
        assert database.execute("SELECT author FROM findings").fetchall() == []


def test_a_migration_that_fails_leaves_the_version_before(
    start_handler, stop_handler, make_handler, path, monkeypatch
):
    stop_handler(start_handler())
    broken = (*MIGRATIONS, ("CREATE TABLE half (x)", "CREATE TABLE runs (x)"))
    monkeypatch.setattr(linnix_plugin_sqlite.schema, "MIGRATIONS", broken)
    make_handler().linnix_start()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchall() == []


# --- folders and owners -------------------------------------------------------------------


def test_a_folder_that_may_not_be_written_to_is_refused(make_handler, tmp_path, without_privileges):
    folder = tmp_path / "closed"
    folder.mkdir()
    with without_privileges(folder):
        folder.chmod(0o500)
        assert "cannot be opened: Permission denied" in refusal(
            make_handler, path=folder / "history.db"
        )
        folder.chmod(0o700)


def test_a_read_only_disk_is_refused(make_handler, small_disk):
    disk = small_disk("size=1m,ro")
    said = refusal(make_handler, path=disk / "history.db")
    assert "cannot be opened: Read-only file system" in said


def test_a_directory_and_a_symbolic_link_are_refused(make_handler, path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    assert "is not a regular file" in refusal(make_handler)
    assert not (tmp_path / "elsewhere").exists()
    assert "is not a regular file" in refusal(make_handler, path=tmp_path)


def test_a_file_of_somebody_else_is_refused(make_handler, path, monkeypatch):
    path.touch()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert "belongs to another user" in refusal(make_handler)


def test_in_the_data_folder_root_goes_on_with_what_a_run_before_gave_away(
    linnix_context, make_batch, stop_handler, cannot_run
):
    if os.geteuid() != 0:
        cannot_run("only root can give files away")
    context = linnix_context("handlers.sqlite")
    for _ in range(2):
        handler = SqliteHandler(SqliteConfig(), context)
        handler.linnix_start()
        handler.linnix_handle(make_batch(3))
        stop_handler(handler)
        for file in context.data_dir.iterdir():
            os.chown(file, 65534, 65534)
    with closing(Reader(context.data_dir / "history.db")) as reader:
        assert len(reader.query(Query(("event",))).records) == 6


def test_a_wider_mode_is_tightened(start_handler, path):
    path.touch(mode=0o666)
    path.chmod(0o666)
    start_handler()
    assert path.stat().st_mode & 0o777 == 0o600


# --- readers ------------------------------------------------------------------------------


def test_where_there_is_nothing_it_says_how_to_get_it(path):
    with pytest.raises(LinnixError, match="there is no history at") as caught:
        Reader(path)
    assert "linnix run --handler sqlite" in caught.value.hint
    assert not path.exists()


def test_what_may_not_be_read_is_said(without_privileges, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    with without_privileges(folder):
        (folder / "history.db").touch(mode=0)
        (folder / "history.db").chmod(0)
        with pytest.raises(LinnixError, match="cannot be read: unable to open"):
            Reader(folder / "history.db")
        folder.chmod(0)
        with pytest.raises(LinnixError, match="cannot be read: Permission denied"):
            Reader(folder / "history.db")
        folder.chmod(0o700)


def test_a_reader_cannot_write(start_handler, path):
    start_handler()
    with closing(Reader(path)) as reader, pytest.raises(LinnixError, match="readonly"):
        reader._all("DELETE FROM runs")
