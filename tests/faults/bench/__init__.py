"""Real controllers, one after the other or two at once, on a cluster whose programs are light.

Redis and the controllers are processes that can be killed and stopped; the cluster is the embedded master with
its agents, served in this process; its tasks are KATCP servers here too, and a Redis each for the telescope
state.
"""
