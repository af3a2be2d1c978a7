"""Correlator simulator: a model sky or a replayed MeasurementSet as SPEAD heaps."""
