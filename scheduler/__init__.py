"""A Mesos framework library: offers in, running graphs out. Knows nothing of telescopes."""
