"""The marks of purges beside the entries that they cover, in the same index."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edgeproxy.api import Mark

from .encoding import Damaged

SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
  kind TEXT NOT NULL, value TEXT NOT NULL, hard REAL NOT NULL, soft REAL NOT NULL,
  PRIMARY KEY (kind, value)
);
CREATE TABLE IF NOT EXISTS mark_changes (number INTEGER PRIMARY KEY);
INSERT OR IGNORE INTO mark_changes VALUES (0);
"""

CHANGE = "(SELECT number FROM mark_changes)"
"""A number that grows with every change of the marks, whichever process makes it."""

_SAVE = """
INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT (kind, value) DO UPDATE SET
  hard = max(hard, excluded.hard), soft = max(soft, excluded.soft)
"""
_DROP = "DELETE FROM marks WHERE kind = ? AND value = ? AND hard <= ? AND soft <= ?"


def are_kept(connection: sqlite3.Connection) -> bool:
    """Whether the index has a place for marks."""
    query = "SELECT count(*) FROM sqlite_master WHERE name IN ('marks', 'mark_changes')"
    return bool(connection.execute(query).fetchone() == (2,))


def change(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute(f"SELECT {CHANGE}").fetchone()
    if not isinstance(number, int):
        raise Damaged("the number of changes of the marks")
    return number


def read(connection: sqlite3.Connection) -> list[Mark]:
    """All marks."""
    rows = connection.execute("SELECT kind, value, hard, soft FROM marks").fetchall()
    for row in rows:
        kind, value, hard_s, soft_s = row
        if not (
            isinstance(kind, str) and isinstance(value, str)
            and isinstance(hard_s, float) and isinstance(soft_s, float)
        ):  # fmt: skip
            raise Damaged("a mark of a purge")
    return [Mark(*row) for row in rows]


def save(connection: sqlite3.Connection, new: Sequence[Mark], gone: Sequence[Mark]) -> None:
    """Keep `new` and drop `gone`, inside a transaction. Of two marks on one thing the later one
    counts."""
    connection.executemany(_SAVE, new)
    connection.executemany(_DROP, gone)
    connection.execute("UPDATE mark_changes SET number = number + 1")
