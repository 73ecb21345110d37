"""Killed at any moment: a database that opens, is whole, and knows what it is missing."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

from linnix_core import Query
from linnix_plugin_sqlite import Reader

KILLS = 20

#: Seconds after its start in which an agent is killed.
LATEST_S = 0.2

# Hands over batches as fast as it can and flushes after every few, in a small database, so
# that old records are deleted, the log emptied and snapshots made all the time. Says before
# each batch how many records it will have handed over, and after each flush how many it had.
AGENT = """
import logging, random, sys, time
from pathlib import Path
from linnix_core import Alert, Batch, Context, ProcessEvent, ProcessView, RecordsLost
import linnix_plugin_sqlite.handler
from linnix_plugin_sqlite import SqliteConfig, SqliteHandler

linnix_plugin_sqlite.handler.SNAPSHOT_EVENTS = 500
path, run, now_ns = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
handler = SqliteHandler(
    SqliteConfig(path=path, max_bytes=8 * 2**20),
    Context(component="handlers.sqlite", logger=logging.getLogger("x"), run_id=run, host="h",
            processes=ProcessView(), incidents=None, data_dir=path.parent / "data"),
)
handler.linnix_start()
print("started", 0, flush=True)
words = random.Random(run)
count = seq = 0
while True:
    records = []
    for pid in range(100):
        seq += 1
        text = "%x" % words.getrandbits(1600)
        records.append(ProcessEvent("fork", pid, seq * 10**7, comm="c", args=(text,), seq=seq,
                                    ts_ns=now_ns + seq * 10**5, boot_id=run, host="h", run_id=run))
    print("hands", count + 101, flush=True)
    handler.linnix_handle(Batch(records))
    seq += 1
    handler.linnix_alert(Alert("r", "low", "m", id=str(seq), seq=seq, ts_ns=now_ns + seq * 10**5))
    count += 101
    if words.random() < 0.4:
        handler.linnix_flush()
        print("flushed", count, flush=True)
"""


def kill_once(path, run, now_ns, wait_s):
    """How many records had been flushed, and how many handed over at most."""
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(path), run, str(now_ns)],
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdout.readline() == "started 0\n"
        timer = threading.Timer(wait_s, agent.kill)
        timer.start()
        said = [line.split() for line in agent.stdout if line.endswith("\n")]
        timer.join()
    counts = {word: int(number) for word, number in said}
    return counts.get("flushed", 0), counts.get("hands", 0)


def test_killed_again_and_again_it_is_whole_and_every_record_is_accounted_for(
    path, start_handler, stop_handler, now_ns
):
    generator = random.Random()
    told = []
    for number in range(KILLS):
        wait_s = generator.uniform(0.0, LATEST_S)
        run = f"run{number}"
        told.append((run, *kill_once(path, run, now_ns + number * 10**9, wait_s)))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with closing(Reader(path)) as reader:
            assert reader.check().problems == ()
    handler = start_handler(max_bytes=8 * 2**20)
    assert any("killed" in said for said in handler.linnix_health().limits)
    stop_handler(handler)

    with closing(Reader(path)) as reader:
        runs = {run["run_id"]: run for run in reader.check().runs}
        losses = {loss.run_id: loss for loss in reader.query(Query(("loss",))).records}
    for run, flushed, handed in told:
        stored, lost = runs[run]["stored"], runs[run]["lost"]
        assert runs[run]["killed"]
        # All that was flushed is there; the account ends in the batch or alert of the kill.
        assert stored >= flushed
        assert handed - 101 <= stored + lost <= handed
        if run in losses:
            assert (losses[run].why, losses[run].lost) == ("killed", lost)
    # The oldest were deleted to make room; the latest that lost any is there.
    assert [run for run, _, _ in told if runs[run]["lost"]][-1] in losses


def test_a_run_that_ended_is_missing_nothing(
    path, start_handler, stop_handler, make_batch, make_notices
):
    handler = start_handler()
    handler.linnix_handle(make_batch(10))
    handler.linnix_alert(make_notices()[0])
    stop_handler(handler)
    assert start_handler().linnix_health().limits == ()
    with closing(Reader(path)) as reader:
        (first, _) = reader.check().runs
        assert (first["stored"], first["lost"], first["killed"]) == (11, 0, 0)


def test_what_was_not_flushed_is_counted_by_the_next_run(
    path, start_handler, make_handler, make_batch, logged
):
    handler = start_handler()
    handler.linnix_handle(make_batch(10))
    handler.linnix_flush()
    handler.linnix_handle(make_batch(7))
    # What a kill does: its descriptors are closed by the kernel.
    handler._store._tally.close()
    after = start_handler()
    assert after.linnix_health().limits == (
        "the run testrun was killed: 7 records of its last second are missing",
    )
    assert ("WARNING", after.linnix_health().limits[0]) in logged
    (loss,) = after.linnix_query(Query(("loss",))).records
    assert (loss.component, loss.why, loss.lost, loss.seq) == ("handlers.sqlite", "killed", 7, 11)
    handler._store._tally._descriptor = os.dup(0)  # its own to close again


def test_a_run_that_was_killed_before_its_first_flush_is_remembered_too(
    path, start_handler, make_batch, clock
):
    first = start_handler()
    first.linnix_handle(make_batch(7))
    first._store._tally.close()
    handler = start_handler()
    clock.ns += 60 * 10**9
    handler.linnix_handle(make_batch(1, ts_ns=clock.ns))
    handler.linnix_flush()
    with closing(Reader(path)) as reader:
        assert [run["lost"] for run in reader.check().runs] == [7, 0]
        assert [loss.lost for loss in reader.query(Query(("loss",))).records] == [7]
    first._store._tally._descriptor = os.dup(0)  # its own to close again


def test_without_the_tally_it_says_that_it_does_not_know(path, start_handler, make_batch):
    handler = start_handler()
    handler.linnix_handle(make_batch(10))
    handler.linnix_flush()
    handler._store._tally.close()
    path.with_name("history.db.lock").unlink()
    limits = start_handler().linnix_health().limits
    assert limits == ("the run testrun was killed: what it lost is not known",)
    handler._store._tally._descriptor = os.dup(0)
