"""Long lists come in pages of fifty rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select

from extensions import db

ROWS_ON_A_PAGE = 50

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a list. Pages count from 1; ``total`` is the number of rows of the whole list."""

    rows: list[T]
    number: int
    total: int

    @property
    def last(self) -> int:
        return max(1, -(-self.total // ROWS_ON_A_PAGE))

    def mapped(self, made_of: Callable[[list[T]], list[S]]) -> Page[S]:
        """Return the same page of what ``made_of`` makes of its rows."""
        return Page(made_of(self.rows), self.number, self.total)


def page_of(query: Select[Any], number: int) -> Page[Any]:
    """Return a page of what an ordered query for one thing finds; beyond the last page there are no rows."""
    total = db.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    page: Page[Any] = Page([], max(1, number), total)
    if page.number > page.last:
        return page
    start = (page.number - 1) * ROWS_ON_A_PAGE
    rows = list(db.session.scalars(query.offset(start).limit(ROWS_ON_A_PAGE)))
    return Page(rows, page.number, total)
