"""The configuration database: typed records and an event log per record."""
