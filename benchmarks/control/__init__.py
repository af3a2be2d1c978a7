"""How fast the master controller is: ``python -m benchmarks.control``.

Everything is as in production but for the programs: a controller (``sdp master``) and a Redis are processes of
their own, the embedded cluster is another, spoken to over HTTP; its tasks ask for their go-ahead, open the
ports that they were given, and are KATCP servers that say yes, all in the cluster's process.
"""
