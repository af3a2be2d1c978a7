"""The KATCP façade: requests and sensors on a control plane."""

from katcp_iface.bounded import Limits
from katcp_iface.server import DEFAULT_PORT, KatcpServer

__all__ = ["DEFAULT_PORT", "KatcpServer", "Limits"]
