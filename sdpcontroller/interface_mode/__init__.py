"""Interface mode: the whole controller without a cluster, for those who test their side of the interface.

Tasks are KATCP servers within this process; configuration database and telescope state are real.
"""

from sdpcontroller.interface_mode.redis import private_redis
from sdpcontroller.interface_mode.stand_in import StandInScheduler

__all__ = ["StandInScheduler", "private_redis"]
