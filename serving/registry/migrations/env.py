"""Alembic's entry: runs migrations on the connection that `serving.registry.upgrade` opened.

That connection is in a transaction already; the code that opened it commits.
"""

from __future__ import annotations

from alembic import context

from serving.registry import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.REVISION_TABLE,
)
context.run_migrations()
