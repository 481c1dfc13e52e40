"""Alembic migrations: one file a schema version, applied when a store is opened."""
