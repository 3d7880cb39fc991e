"""Parts of long lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from rlplatform.errors import SpecError

MAX_PAGE = 1000
_MAX_OFFSET = 2**31 - 1

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list, and how long the whole of it is."""

    items: tuple[T, ...]
    total: int
    offset: int
    limit: int


def fetch_page(
    connection: Connection,
    query: Select[Any],
    order: Sequence[ColumnElement[Any]],
    window: tuple[int, int],
    build: Callable[[Row[Any]], T],
) -> Page[T]:
    """Run a query for one page of its rows and for their number.

    Args:
        connection: Of `Database.read`, so that both agree.
        query: What to select, with its filters.
        order: Sorts every two rows apart, so that no row is on two pages.
        window: How many rows to pass over, from 0, and how many to return, 1 to `MAX_PAGE`.
        build: Makes an item of a row.

    Raises:
        SpecError: The window is out of its range.
    """
    offset, limit = window
    if not 0 <= offset <= _MAX_OFFSET:
        raise SpecError(f"`offset` must be in [0, {_MAX_OFFSET}], got {offset}.")
    if not 1 <= limit <= MAX_PAGE:
        raise SpecError(f"`limit` must be in [1, {MAX_PAGE}], got {limit}.")
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    rows = connection.execute(query.order_by(*order).offset(offset).limit(limit))
    return Page(tuple(build(row) for row in rows), total, offset, limit)
