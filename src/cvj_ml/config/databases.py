"""Tables in a PostgreSQL server: where touchpoints come from, and where nights are delivered to."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from cvj_ml.config.base import Section

NAME_BYTES = 63
"""PostgreSQL cuts longer names without an error."""


def _is_uri(uri: SecretStr) -> SecretStr:
    # The text itself is never shown: it holds a password.
    if not uri.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("write postgresql://user:password@host:port/database, best by ${NAME} from the environment")
    return uri


Uri = Annotated[SecretStr, AfterValidator(_is_uri)]


class PostgresSource(Section):
    """One ``table`` (``schema.table``, or ``table`` on the search path), or one SELECT (``query``) of a server."""

    uri: Uri
    table: str | None = Field(default=None, pattern=r"^[^.]+(\.[^.]+)?$")
    query: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of table and query")
        return self


class PostgresDelivery(Section):
    """The schema that holds the current night: ``scores``, ``targets`` and ``nights``."""

    uri: Uri
    schema_name: str = Field(default="cvj", alias="schema", min_length=1)


class DeliverSpec(Section):
    """Where a published night goes besides its folder."""

    postgres: PostgresDelivery
