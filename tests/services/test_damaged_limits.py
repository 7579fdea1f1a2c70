"""A damaged file of limits: whatever is wrong with it, it is put aside, and service goes on. A good one stays."""

import itertools
import random
import sqlite3
import sys
from pathlib import Path

import pytest
import time_machine
from limits import RateLimitItemPerMinute

from services.rate_limits import RateLimits, StoreUnavailable, storage_from_uri
from services.sqlite_file import Damaged, SQLiteFile
from tests.neighbours.processes import wait_until
from tests.services.test_rate_limits import STRATEGIES, answer_of, rows_in, start_worker

NOON = 1_800_000_000.0
MOST = 10_000
LIMIT = RateLimitItemPerMinute(MOST)
NAMES = [f"ws_{number}" for number in range(5)]
TABLES = {
    "counters": ["id", "key", "seconds", "start", "count"],
    "sliding_counters": ["id", "key", "seconds", "start", "previous", "current"],
    "moving_windows": ["id", "key", "seconds", "start"],
    "moving_hits": ["window", "number", "next", "first", "oldest", "at"],
}


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/limits.db"


@pytest.fixture
def file(tmp_path):
    """A file in use, closed: all that was counted is in it."""
    return made_in(tmp_path)


@pytest.fixture
def limits(uri):
    storage = storage_from_uri(uri)
    yield RateLimits(storage)
    storage.close()


def made_in(folder):
    storage = storage_from_uri(f"sqlite:///{folder}/limits.db")
    for name in NAMES * 20:
        RateLimits(storage).hit_all([(name, MOST), (f"{name} own", MOST)])
        for strategy in STRATEGIES:
            strategy(storage).hit(LIMIT, name)
    storage.close()
    return folder / "limits.db"


def put_aside(file):
    """How often the file was put aside, as its lock tells."""
    return int.from_bytes(Path(f"{file}.lock").read_bytes(), sys.byteorder)


def change(file, old, new, *, last=False):
    """Change bytes in the place where they come first or last."""
    assert len(old) == len(new)
    before, after = (file.read_bytes().rpartition if last else file.read_bytes().partition)(old)[::2]
    assert before
    assert after
    file.write_bytes(before + new + after)


def execute_in(file, *statements):
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def refused(limits, names):
    """Who of all that ask, in every way, is not served."""
    asked = {f"hit {name}": lambda name=name: limits.hit(name, MOST).allowed for name in names}
    asked |= {f"peek {name}": lambda name=name: 1 <= limits.peek(name, MOST).retry_after <= 61 for name in names}
    for one, other in itertools.pairwise(names):
        both = [(one, MOST), (other, MOST - 1)]
        asked[f"{one} and {other}"] = lambda both=both: all(state.allowed for state in limits.hit_all(both))
    for limiter, name in itertools.product([strategy(limits._storage) for strategy in STRATEGIES], names):
        asked[f"{type(limiter).__name__} {name}"] = lambda limiter=limiter, name=name: (
            limiter.hit(LIMIT, name) and limiter.get_window_stats(LIMIT, name).remaining < MOST
        )
    return [title for title, ask in asked.items() if not served(ask)]


def served(ask):
    """Only errors of the storage are ones that its users know of."""
    try:
        return ask()
    except (StoreUnavailable, sqlite3.Error):
        return False


# The schema

NO_TEXT = (b"seconds INTEGER NOT NULL, start", b"second\xf3 INTEGER NOT NULL, start")
NO_SUCH_COLUMN = (b"first INTEGER", b"firsu INTEGER")
NO_SUCH_TABLE = (b"moving_hits", b"moving_hitr")


@pytest.mark.parametrize("first", ["hit", "peek", "check"])
@pytest.mark.parametrize("damage", [NO_TEXT, NO_SUCH_COLUMN, NO_SUCH_TABLE], ids=["no text", "no column", "no table"])
@pytest.mark.parametrize("fallback", [False, True])
def test_a_file_whose_schema_is_damaged_is_put_aside_by_the_first_who_asks(file, uri, first, damage, fallback):
    change(file, *damage)
    storage = storage_from_uri(uri)
    limits = RateLimits(storage, fallback=fallback)
    assert {"hit": lambda: limits.hit("ws_1", 9), "peek": lambda: limits.peek("ws_1", 9), "check": limits.is_up}[
        first
    ]()
    assert put_aside(file) == 1
    assert refused(limits, NAMES) == []
    assert not limits.in_memory
    storage.close()


def test_a_file_that_says_by_itself_that_it_is_read_only_is_put_aside(file, limits):
    content = bytearray(file.read_bytes())
    content[18] = 3
    file.write_bytes(content)
    assert limits.hit("ws_1", MOST).allowed
    assert put_aside(file) == 1


def test_what_hits_cannot_do_a_check_cannot_either(file, uri, limits):
    """Where the damaged file cannot be put aside, too."""
    Path(f"{file}.damaged", "in the way").mkdir(parents=True)
    change(file, *NO_SUCH_COLUMN)
    assert not limits.is_up()
    with pytest.raises(StoreUnavailable):
        limits.hit("ws_1", MOST)
    Path(f"{file}.damaged", "in the way").rmdir()
    Path(f"{file}.damaged").rmdir()
    assert limits.is_up()
    assert limits.hit("ws_1", MOST).allowed


def test_a_check_leaves_nothing_behind(file, limits, tmp_path):
    before = rows_in(tmp_path)
    assert all(limits.is_up() for _ in range(3))
    assert rows_in(tmp_path) == before


# Rows

WINDOW = "(SELECT id FROM moving_windows WHERE key LIKE '%ws_1')"
NEWEST = f"WHERE window = {WINDOW} AND number = (SELECT max(number) FROM moving_hits WHERE window = {WINDOW})"
OLDEST = f"WHERE window = {WINDOW} AND number = (SELECT min(number) FROM moving_hits WHERE window = {WINDOW})"


@pytest.mark.parametrize(
    "wrong",
    [
        f"UPDATE moving_hits SET next = number {NEWEST}",
        f"UPDATE moving_hits SET next = 'many' {NEWEST}",
        f"UPDATE moving_hits SET next = x'ff' {NEWEST}",
        f"UPDATE moving_hits SET next = 9e999 {NEWEST}",
        f"UPDATE moving_hits SET first = 'none' {NEWEST}",
        f"UPDATE moving_hits SET at = 9e999 {NEWEST}",
        f"UPDATE moving_hits SET at = 9e99 {NEWEST}",
        f"UPDATE moving_hits SET at = 'late' {NEWEST}",
        f"UPDATE moving_hits SET at = 9e99 {OLDEST}",
        f"UPDATE moving_hits SET at = 'late' {OLDEST}",
        "UPDATE moving_windows SET start = -9e999",
        "UPDATE moving_windows SET start = 9e999",
        "UPDATE moving_windows SET start = 'soon', seconds = 'few'",
        "UPDATE counters SET count = 'many'",
        "UPDATE counters SET count = 9e999",
        "UPDATE counters SET start = 'soon', seconds = 'few'",
        "UPDATE counters SET start = 9e999",
        "UPDATE sliding_counters SET previous = 'many'",
        "UPDATE sliding_counters SET current = 9e999",
        "UPDATE sliding_counters SET current = x'ff'",
        "UPDATE sliding_counters SET start = 'soon'",
        "UPDATE sliding_counters SET seconds = 0, start = 9e99",
    ],
)
def test_a_row_that_nobody_has_written_so_refuses_nobody(file, limits, wrong):
    execute_in(file, wrong)
    for _ in range(2):
        assert refused(limits, NAMES) == []
        # As many as make somebody sweep.
        assert all(limits.hit("busy", MOST).allowed for _ in range(64))


@pytest.mark.parametrize("number", [2**20, 2**62, 2**63 - 1])
def test_a_count_that_is_too_high_refuses_for_no_longer_than_a_window(tmp_path, number):
    with time_machine.travel(NOON, tick=False) as clock:
        file = made_in(tmp_path)
        storage = storage_from_uri(f"sqlite:///{file}")
        execute_in(file, f"UPDATE moving_hits SET next = {number} {NEWEST}")
        refused(RateLimits(storage), NAMES)
        clock.shift(61)
        for _ in range(2):
            assert refused(RateLimits(storage), NAMES) == []
        storage.close()


# In the table a row goes on with its length, which is the letter "<".
@pytest.mark.parametrize(("where", "last"), [(b"<", False), (b"", True)], ids=["table", "index"])
@pytest.mark.parametrize("letter", [b"2", b"\xff", b"x"])
def test_a_key_that_table_and_index_spell_differently_refuses_nobody(file, limits, letter, where, last):
    change(file, b"name/ws_1" + where, b"name/ws_" + letter + where, last=last)
    for _ in range(2):
        assert refused(limits, NAMES) == []


# Any bit


def test_no_flipped_bit_ends_service(tmp_path):
    """Each of many copies has one bit flipped, half of them in the first page."""
    chance = random.Random(20_240_229)
    with time_machine.travel(NOON, tick=False) as clock:
        content = made_in(tmp_path).read_bytes()
        used = [place for place, byte in enumerate(content) if byte]
        first_page = [place for place in used if place < 4096]
        for number in range(120):
            copy, place = bytearray(content), chance.choice(used if number % 2 else first_page)
            copy[place] ^= 1 << chance.randrange(8)
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "limits.db").write_bytes(copy)
            storage = storage_from_uri(f"sqlite:///{folder}/limits.db")
            refused(RateLimits(storage), NAMES[:3])
            clock.shift(1)
            assert refused(RateLimits(storage), [*NAMES, "new"]) == [], place
            storage.close()


# What is no damage


def failure(code):
    error = sqlite3.OperationalError("as SQLite would say it")
    error.sqlite_errorcode = code
    return error


@pytest.fixture
def words(tmp_path):
    schema = ["CREATE TABLE IF NOT EXISTS words (word TEXT NOT NULL)"]
    words = SQLiteFile(str(tmp_path / "words.db"), schema, timeout=1, synchronous="NORMAL", disposable=True)
    words.one("INSERT INTO words VALUES ('kept')", tuple)
    yield words
    words.close()


@pytest.mark.parametrize(
    "error",
    [
        failure(sqlite3.SQLITE_BUSY),
        failure(sqlite3.SQLITE_LOCKED),
        failure(sqlite3.SQLITE_FULL),
        failure(sqlite3.SQLITE_READONLY),
        failure(sqlite3.SQLITE_READONLY_DBMOVED),
        failure(sqlite3.SQLITE_IOERR),
        failure(sqlite3.SQLITE_IOERR_WRITE),
        failure(sqlite3.SQLITE_CANTOPEN),
        failure(sqlite3.SQLITE_INTERRUPT),
        failure(sqlite3.SQLITE_NOMEM),
        failure(sqlite3.SQLITE_PROTOCOL),
        sqlite3.OperationalError("too many wait"),
        MemoryError(),
        OverflowError("asked for too much"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: getattr(error, "sqlite_errorcode", None) or type(error).__name__,
)
def test_a_good_file_is_not_put_aside_for_what_is_wrong_around_it(words, tmp_path, error):
    def fail():
        with words as execute:
            execute("INSERT INTO words VALUES ('dropped')")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert words.one("SELECT count(*) FROM words", tuple)[0] == 1
    assert put_aside(tmp_path / "words.db") == 0


def test_a_statement_that_fails_on_every_file_does_not_put_one_after_the_other_aside(words, tmp_path):
    for _ in range(5):
        with pytest.raises(Damaged):
            words.one("SELECT nonsense FROM nowhere", tuple)
    assert put_aside(tmp_path / "words.db") == 1


# Portals of several versions


def test_tables_of_other_versions_and_what_they_add_to_ours_are_left_alone(file, uri, limits):
    others = ["hits", "windows", "windows_3"]
    execute_in(
        file,
        *(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)" for table in others),
        "ALTER TABLE moving_windows ADD COLUMN colour TEXT",
        "PRAGMA user_version = 7",
    )
    assert limits.is_up()
    assert limits.hit("ws_1", MOST).remaining == MOST - 21
    assert put_aside(file) == 0
    with sqlite3.connect(file) as connection:
        assert set(others) < {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
    connection.close()


def test_a_table_keeps_its_columns_as_long_as_it_keeps_its_name(file):
    """Or two versions on one machine take each other's file for damaged: change the name with them."""
    connection = sqlite3.connect(file)
    for table, columns in TABLES.items():
        assert [column[1] for column in connection.execute(f"PRAGMA table_info({table})")] == columns
    assert {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} == set(
        TABLES
    )
    connection.close()


# Several processes


def test_of_processes_that_meet_a_damaged_schema_one_replaces_the_file_and_all_share_one_count(uri, tmp_path):
    workers = [start_worker("hit_around_damage", uri, tmp_path, 500, 200) for _ in range(4)]
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 4, 60)
    connection = sqlite3.connect(tmp_path / "limits.db", timeout=30, isolation_level=None)
    version = connection.execute("PRAGMA schema_version").fetchone()[0]
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'first', 'firsu') WHERE name = 'moving_hits'")
    connection.execute(f"PRAGMA schema_version = {version + 1}")
    connection.execute("COMMIT")
    connection.close()
    assert sum(answer_of(worker) for worker in workers) == 500
    assert put_aside(tmp_path / "limits.db") == 1
