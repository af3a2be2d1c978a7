"""A Mesos-compatible master with its agents in one process."""
