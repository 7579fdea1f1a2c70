"""The SQLite file: a block is done wholly or not at all, and the file outlives failures and forks."""

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.sqlite_file import SQLiteFile

SCHEMA = ["CREATE TABLE IF NOT EXISTS words (word TEXT NOT NULL)"]


@pytest.fixture
def file(tmp_path):
    file = SQLiteFile(str(tmp_path / "words.db"), SCHEMA, timeout=1, synchronous="NORMAL")
    yield file
    file.close()


def words_in(file):
    return file.one("SELECT count(*) FROM words", tuple)[0]


def write(file, *words):
    with file as execute:
        for word in words:
            execute("INSERT INTO words VALUES (?)", (word,))


def test_a_block_that_fails_leaves_nothing_behind(file):
    write(file, "kept")
    for impossible in (None, object()):
        with pytest.raises(sqlite3.Error):
            write(file, "dropped", impossible)
    assert words_in(file) == 1


def test_a_wrong_statement_does_not_block_the_next_one(file):
    with pytest.raises(sqlite3.OperationalError):
        file.one("SELECT nonsense FROM nowhere", tuple)
    with pytest.raises(sqlite3.OperationalError), file as execute:
        execute("SELECT nonsense FROM nowhere")
    assert words_in(file) == 0


def test_a_closed_file_opens_again(file):
    write(file, "kept")
    file.close()
    file.close()
    assert words_in(file) == 1


def in_threads(work, many):
    """Run a function in so many threads at once and return what each of them raised."""
    with ThreadPoolExecutor(many) as pool:
        runs = [pool.submit(work) for _ in range(many)]
    return [str(run.exception()) for run in runs if run.exception()]


def test_nobody_gives_up_while_those_before_him_get_on_with_the_file(file):
    def slow():
        with file as execute:
            execute("INSERT INTO words VALUES ('x')")
            time.sleep(0.4)

    assert in_threads(slow, 6) == []
    assert words_in(file) == 6


def test_who_waits_for_somebody_who_does_not_get_on_gives_up(file):
    with file as execute:
        execute("INSERT INTO words VALUES ('x')")
        began = time.monotonic()
        raised = in_threads(lambda: words_in(file), 3)
        assert 0.9 < time.monotonic() - began < 3
    assert raised == ["the threads of this process wait too long for the file"] * 3
    assert words_in(file) == 1


def test_a_reader_does_not_wait_for_a_writer(file, tmp_path):
    write(file, "kept")
    other = sqlite3.connect(tmp_path / "words.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO words VALUES ('not yet')")
    assert words_in(file) == 1
    other.execute("COMMIT")
    other.close()
    assert words_in(file) == 2


def test_the_file_is_closed_before_a_fork_and_opened_after_it(file, tmp_path):
    assert words_in(file) == 0
    # The log beside the file is removed when its last connection is closed.
    assert (tmp_path / "words.db-wal").exists()
    child = os.fork()
    if not child:
        os._exit((tmp_path / "words.db-wal").exists() or words_in(file))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert words_in(file) == 0
