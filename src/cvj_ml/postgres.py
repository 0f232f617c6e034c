"""A PostgreSQL server: transactions, quoting, and its refusals in words that hold no secret and no row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import SecretStr

from cvj_ml.errors import ConfigError, CvjError, DataError

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection as Connection
    from adbc_driver_manager.dbapi import Cursor as Cursor

# The server's own messages quote rows, and libpq's quote parts of a URI that it cannot read: neither is passed on.
_BY_STATE: tuple[tuple[str, type[CvjError], str], ...] = (
    ("42P01", DataError, "there is no such table, or it is in a schema outside the search path; name schema.table"),
    ("3F000", DataError, "there is no such schema"),
    ("42501", DataError, "the role lacks a privilege; grant it what the page docs/postgres.md lists"),
    ("42703", ConfigError, "a column that is named there does not exist"),
    ("42601", ConfigError, "this is no SELECT that PostgreSQL understands; try it in psql"),
    ("42", ConfigError, "PostgreSQL does not accept the statement; try it in psql"),
    ("25006", ConfigError, "it would change something, and sources are only read"),
    ("22", DataError, "it fails on a row; try it in psql to see which"),
    ("2BP01", CvjError, "other objects, such as views, depend on a column that has to go; drop them and run again"),
    ("57014", CvjError, "the statement was cancelled, by statement_timeout or by an administrator"),
    ("55P03", CvjError, "a lock was not given in time (lock_timeout)"),
    ("53", CvjError, "the server is out of memory, of disk or of connections"),
)
_AMONG_ROWS = (("canceling statement", "57014"), ("read-only transaction", "25006"), ("permission denied", "42501"))
_BY_PHRASE = (
    ("password authentication failed", "the server refuses the user or the password"),
    ("no password supplied", "the server asks for a password and none is given"),
    ("no pg_hba.conf entry", "the server lets this user, database or address in by no rule of pg_hba.conf"),
    ("Connection refused", "no server listens at that host and port"),
    ("could not translate host name", "the host's name is unknown"),
    ("timeout", "the server does not answer in time"),
    ("starting up", "the server is still starting"),
    ("too many", "the server takes no more connections"),
    ('" does not exist', "there is no such database or role"),
)


def quoted(*names: str) -> str:
    """Return quoted names, joined by dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@contextmanager
def transaction(place: str, uri: SecretStr, *, read_only: bool = False) -> Iterator[Connection]:
    """Open a connection with one transaction, committed where the block ends well and rolled back otherwise.

    What is read in a read-only one is as of one instant. Errors of the driver become CvjErrors that name ``place``.
    """
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError:
        raise CvjError(f"{place}: the driver is not installed; pip install 'cvj-ml[postgres]'.") from None
    try:
        # The driver's own transactions know no savepoints, so it is told to leave them to the statements below.
        connection = driver.connect(uri.get_secret_value(), autocommit=True)
    except driver.Error as error:
        text = str(error)
        words = next(
            (words for phrase, words in _BY_PHRASE if phrase in text), "the URI is wrong, or no server answers"
        )
        raise CvjError(f"{place}: cannot connect: {words}.") from None
    try:
        with _in_words(place), connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else "BEGIN")
            yield connection
            cursor.execute("COMMIT")
    finally:
        # Closing rolls back what is not committed; where the server is gone, so is the transaction.
        with suppress(driver.Error):
            connection.close()


@contextmanager
def attempt(place: str, connection: Connection) -> Iterator[Cursor]:
    """Yield a cursor of a transaction that goes on where the block fails."""
    with _in_words(place), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT attempt")
        try:
            yield cursor
        except Exception:
            with suppress(Exception):  # the first failure is the one to tell
                cursor.execute("ROLLBACK TO SAVEPOINT attempt")
            raise


@contextmanager
def _in_words(place: str) -> Iterator[None]:
    import adbc_driver_manager as driver

    try:
        yield
    except (driver.Error, pa.ArrowException) as error:
        raise _refusal(place, error) from None
    except OSError as error:
        if error.errno is not None:
            raise  # of a local file; what Arrow's streams raise has no number
        raise _refusal(place, error) from None


def _refusal(place: str, error: Exception) -> CvjError:
    """Return what the server refuses, by its SQLSTATE, without its own words."""
    text = str(error)
    found = re.search(r"SQLSTATE: ?(\w{5})", text)
    state = getattr(error, "sqlstate", None) or (found[1] if found else "")
    if not state and "]: ERROR:" in text:
        # An error among the rows comes without its state; a server of another language leaves it at the last of these.
        state = next((known for phrase, known in _AMONG_ROWS if phrase in text), "22000")
    for prefix, kind, words in _BY_STATE:
        if state.startswith(prefix):
            return kind(f"{place}: {words}.")
    if not state or state.startswith(("08", "57")):
        return CvjError(f"{place}: the connection to the server was lost; run again when it is back.")
    return CvjError(f"{place}: PostgreSQL fails (SQLSTATE {state}); its log says why.")
