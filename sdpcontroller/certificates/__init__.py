"""The certificates that the controller's HTTP servers show: read, checked, renewed while they serve.

A file is read once, and what was read is what is checked and shown: nobody can exchange it in between. It is
checked by a handshake in memory, as those who will ask make it.
"""

from sdpcontroller.certificates.handshake import disbelief
from sdpcontroller.certificates.served import ServedCertificate, watch
from sdpcontroller.certificates.trust import client_context, read_trust

__all__ = ["ServedCertificate", "client_context", "disbelief", "read_trust", "watch"]
