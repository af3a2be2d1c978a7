"""Options of TLS: what the controller shows to others, and whom it believes.

All is read before the controller does anything: one that stands by must not find a fault as it takes over.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.tls import GoAheadTls
from sdpcontroller import certificates
from sdpcontroller.certificates import ServedCertificate
from sdpcontroller.certificates.pair import Demands
from sdpcontroller.cli.secrets import Secrets
from sdpcontroller.control import Alarm
from sdpcontroller.errors import ControllerError


def add_tls_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of who serves."""
    group.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="FILE.pem",
        help="serve the go-ahead and the figures over TLS with this certificate (and chain); a new one in the "
        "file is taken within seconds, or at SIGHUP",
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="FILE.pem", help="its key, where it is not in the same file"
    )
    group.add_argument(
        "--goahead-ca",
        type=Path,
        metavar="FILE.pem",
        help="whom tasks believe that a controller is one: the authority that has signed the controllers' "
        "certificates (default: those that the tasks' images trust)",
    )
    group.add_argument(
        "--goahead-unverified",
        action="store_true",
        help="let tasks ask over TLS also where their image has nothing that can check certificates (only "
        "BusyBox' wget): whoever is between them and the controller can start them",
    )
    add_mesos_ca(group)
    add_redis_ca(group)


def add_mesos_ca(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the option of who asks Mesos."""
    group.add_argument(
        "--mesos-ca",
        type=Path,
        metavar="FILE.pem",
        help="speak TLS with Mesos, and believe masters and agents by this authority; with --mesos https://… "
        "alone, by the system's",
    )


def add_mesos_principal(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the option of who we are to Mesos."""
    group.add_argument(
        "--mesos-principal",
        metavar="NAME",
        help="who this framework is to Mesos; the secret is taken from SDP_MESOS_SECRET, or from the file "
        "that SDP_MESOS_SECRET_FILE names",
    )


def add_redis_ca(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the option of who reads the database."""
    group.add_argument(
        "--redis-ca",
        type=Path,
        metavar="FILE.pem",
        help="believe the database, at rediss://…, by this authority (default: by the system's)",
    )


def mesos_link(options: argparse.Namespace) -> tuple[str, ssl.SSLContext | None]:
    """Return the address of the master, without ``https://``, and what checks certificates (None: plain HTTP).

    Raises
    ------
    ControllerError
        If the authority's file is of no use, or the address says that nothing is encrypted.
    """
    address: str = options.mesos
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "http" and options.mesos_ca is not None:
        raise ControllerError(f"--mesos {address} is not over TLS: what is --mesos-ca for?")
    if separator and scheme in ("http", "https"):
        address = rest.rstrip("/")
    if options.mesos_ca is None and scheme != "https":
        return address, None
    return address, certificates.client_context(options.mesos_ca)


@dataclass(frozen=True)
class Secured:
    """What the options of encryption, and the secrets beside them, come to."""

    mesos: str
    """Address of the master."""
    mesos_tls: ssl.SSLContext | None
    """Checks its certificate; None: it speaks plain HTTP."""
    secrets: Secrets
    goahead: GoAheadTls
    metrics: ssl.SSLContext | None
    """For the server of figures; None: plain HTTP."""
    certificates: Sequence[ServedCertificate]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody wants new certificates to be taken at once."""

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with certificates."""
        return tuple(alarm for one in self.certificates for alarm in one.alarms())

    async def watch(
        self, changed: Callable[[], None], certified: Callable[[str, float], None]
    ) -> None:
        """Take new certificates as they come, until cancelled.

        Parameters
        ----------
        changed
            Is called when there may be another alarm.
        certified
            Is told of each use the Unix time at which its certificate ends.
        """

        def tell() -> None:
            for one in self.certificates:
                certified(one.use, one.ends)
            changed()

        if self.certificates:
            await certificates.watch(self.certificates, self.asked, tell)


@contextmanager
def secured(options: argparse.Namespace) -> Iterator[Secured]:
    """Read all that the options name; SIGHUP is heard as long as the context lasts, if there are certificates.

    Raises
    ------
    ControllerError
        If anything is of no use: a certificate has ended, is for another host, a secret can be read by others.
    """
    mesos, mesos_tls = mesos_link(options)
    trust = "" if options.goahead_ca is None else certificates.read_trust(options.goahead_ca)
    controller, metrics = _controller_certificate(options, trust), _metrics_certificate(options)
    bundle = Secured(
        mesos,
        mesos_tls,
        Secrets.given(),
        GoAheadTls(_context(controller), trust, options.goahead_unverified),
        _context(metrics or controller),
        [one for one in (controller, metrics) if one is not None],
    )
    if not bundle.certificates:
        yield bundle
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, bundle.asked.set)
    try:
        yield bundle
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _context(certificate: ServedCertificate | None) -> ssl.SSLContext | None:
    return None if certificate is None else certificate.context


def _controller_certificate(options: argparse.Namespace, trust: str) -> ServedCertificate | None:
    if options.tls_certificate is None:
        return None
    demands = Demands(_goahead_hosts(options), trust)
    return ServedCertificate("controller", options.tls_certificate, options.tls_key, demands)


def _metrics_certificate(options: argparse.Namespace) -> ServedCertificate | None:
    if options.metrics_certificate is None:
        return None
    return ServedCertificate("metrics", options.metrics_certificate, options.metrics_key)


def _goahead_hosts(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the names by which tasks ask controllers; tokens must not be sent to one that is asked plainly."""
    for url in options.goahead_url:
        if urlsplit(url).scheme != "https":
            raise ControllerError(
                f"--goahead-url {url}: with --tls-certificate, tasks ask all controllers by https://"
            )
    hosts = (urlsplit(url).hostname or "" for url in options.goahead_url)
    return tuple(host for host in hosts if host) or (options.goahead_host,)
