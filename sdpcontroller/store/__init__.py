"""The configuration database: typed records and an event log per record."""

from sdpcontroller.store.redis_store import Store, Stored

__all__ = ["Store", "Stored"]
