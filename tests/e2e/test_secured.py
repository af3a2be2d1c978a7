"""Everything encrypted that can be, and no secret anywhere where somebody reads: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import psutil
import pytest
import redis
from cryptography import x509

from sdpcontroller.cli.cam import Cam
from tests.certificates import Authority
from tests.conftest import PATIENCE, free_port, wait_for_port
from tests.e2e.documents import document
from tests.e2e.system import SDP, Stack, eventually

pytestmark = pytest.mark.e2e

HERE: Final = "127.0.0.1"
SECRETS: Final = {name: f"planted-{name}-61c8" for name in ("redis", "mesos", "metrics")}


class SecuredStack(Stack):
    """Its database, its go-ahead and its figures speak TLS, and all of them want a secret."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority(folder)
        self.certificate = self.authority.issue(HERE, days=60)
        self.metrics_port = free_port()
        for name, value in SECRETS.items():
            self._private(f"secret-{name}", value + "\n")
        credentials = self._private("credentials", f"sdp {SECRETS['mesos']}\n")
        self._more = {
            "cluster": ["--framework-credentials", str(credentials)],
            "master": [
                *("--tls-certificate", str(self.certificate)),
                *("--goahead-ca", str(self.authority.file)),
                *("--redis", f"rediss://sdp@{HERE}:{self.redis_port}/0"),
                *("--redis-ca", str(self.authority.file)),
                *("--mesos-principal", "sdp", "--metrics-port", str(self.metrics_port)),
                *("--log-level", "debug", "--fit-timeout", "60"),
            ],
        }
        self.run.environment |= {
            "SDP_REDIS_PASSWORD_FILE": str(folder / "secret-redis"),
            "SDP_MESOS_SECRET_FILE": str(folder / "secret-mesos"),
            "SDP_METRICS_TOKEN_FILE": str(folder / "secret-metrics"),
        }

    def _private(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return path

    def _start(self, name: str, command: Sequence[str]) -> None:
        super()._start(name, [*command, *self._more.get(name, ())])

    def _start_redis(self) -> None:
        settings = self._private(
            "redis.conf",
            f"port 0\ntls-port {self.redis_port}\nbind {HERE}\ntls-auth-clients no\n"
            f"tls-cert-file {self.certificate}\ntls-key-file {self.certificate}\n"
            f"tls-ca-cert-file {self.authority.file}\n"
            f"user default off\nuser sdp on >{SECRETS['redis']} ~sdp:* +@all -@admin\n",
        )
        self._start("redis", ["redis-server", str(settings)])
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._processes["redis"].wait(0.2)
            if "tls-port" in self.log("redis"):
                pytest.skip("this redis-server was built without TLS")
        wait_for_port(HERE, self.redis_port, self._processes["redis"])

    def sdp(self, *words: str) -> str:
        """What a command prints, errors too."""
        command = [SDP, *words, "--controller", f"{HERE}:{self.katcp_port}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.run.environment
        )
        return done.stdout + done.stderr

    def figures(self) -> str:
        """What Prometheus reads."""
        request = urllib.request.Request(
            f"https://{HERE}:{self.metrics_port}/metrics",
            headers={"Authorization": f"Bearer {SECRETS['metrics']}"},
        )
        trust = self.authority.trust
        with urllib.request.urlopen(request, timeout=5, context=trust) as reply:  # noqa: S310
            return str(reply.read().decode())

    def tokens(self) -> set[str]:
        """The tokens of all tasks' go-ahead: they are recorded, for a successor."""
        with redis.Redis(
            host=HERE,
            port=self.redis_port,
            username="sdp",
            password=SECRETS["redis"],
            ssl=True,
            ssl_ca_certs=str(self.authority.file),
            decode_responses=True,
        ) as client:
            tasks = cast(set[str], client.smembers("sdp:keys:task"))
            text = " ".join(str(client.hget(f"sdp:task:{task}", "value")) for task in tasks)
        return set(re.findall(r'"token": ?"([^"]+)"', text))


class Onlooker:
    """Sees the command lines of all processes, again and again, as everybody on the machine can."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredStack]:
    with SecuredStack(tmp_path_factory.mktemp("secured")) as stack:
        yield stack


def test_a_product_comes_up_and_no_secret_is_seen(secured: SecuredStack) -> None:
    wanted = secured.folder / "product.json"
    wanted.write_text(json.dumps(document(outputs={"cal": None, "continuum_image": None})))
    with Onlooker() as onlooker:
        told = secured.sdp("plan", str(wanted))
        said = secured.sdp("configure", "p", str(wanted))
        assert "error" not in said, said + secured.log("master")[-3000:]
        tokens = secured.tokens()
        assert len(tokens) > 5
        told += said + secured.figures() + secured.log("master") + secured.log("cluster")
        told += json.dumps(secured.mesos_state())
        for words in (["status"], ["tasks"], ["agents"], ["events", "p"], ["explain", "p"]):
            told += secured.sdp(*words)
        for task in json.loads(secured.sdp("tasks", "--json")):
            if "ingest" in task["task"]:
                told += secured.sdp("logs", "p", task["task"])
        with urllib.request.urlopen(
            f"http://{HERE}:{secured.mesos_port}/tasks", timeout=5
        ) as reply:
            told += reply.read().decode()
        told += asyncio.run(_over_katcp(secured.katcp_port, wanted.read_text()))
    sandboxes = _sandboxes(secured.folder / "cluster")
    key = re.findall(r"\n([A-Za-z0-9+/=]{40,})\n", secured.certificate.read_text())[0]
    places = {"what is told": told, "command lines": "\n".join(onlooker.seen), **sandboxes}
    assert len(sandboxes) > 5
    assert any("go-ahead" in line for line in onlooker.seen), "no waiting task was seen"
    for secret in (*SECRETS.values(), *tokens, key):
        assert [where for where, text in places.items() if secret in text] == []


async def _over_katcp(port: int, document: str) -> str:
    """All sensors and their descriptions, the help, and a plan."""
    async with Cam(HERE, port) as cam:
        told = [await cam.informs(name) for name in ("sensor-value", "sensor-list", "help")]
        return str([*told, await cam.request("product-plan", document)])


def _sandboxes(folder: Path) -> dict[str, str]:
    """What is in the cluster's files, but for notes that only its user may read."""
    found = {}
    for path in folder.glob("**/*"):
        with contextlib.suppress(OSError):
            if path.parent.stat().st_mode & 0o077 == 0:
                continue
            if path.is_file() and path.stat().st_size < 1 << 22:
                found[str(path)] = path.read_bytes().decode(errors="replace")
    return found


def test_a_new_certificate_costs_nobody_anything(secured: SecuredStack) -> None:
    """Tasks that come afterwards are let in by the new one; the controller says until when it is good."""
    end = _end(secured)
    (told,) = re.findall(
        r'^sdp_certificate_end_time_seconds{use="controller"} (.*)$',
        secured.figures(),
        re.MULTILINE,
    )
    assert float(told) == end
    secured.authority.issue(HERE, days=5).replace(secured.certificate)
    secured._processes["master"].send_signal(signal.SIGHUP)
    eventually("the new one is shown", lambda: _end(secured) < end, PATIENCE)
    eventually("its end is an alarm", lambda: "it ends" in asyncio.run(_alarms(secured)), PATIENCE)
    secured.sdp("deconfigure", "p")
    wanted = secured.folder / "product.json"
    assert "error" not in secured.sdp("configure", "q", str(wanted))
    secured.sdp("deconfigure", "q")
    secured.assert_all_free()


async def _alarms(secured: SecuredStack) -> str:
    async with Cam(HERE, secured.katcp_port) as cam:
        return await cam.sensor("alarms")


def _end(secured: SecuredStack) -> float:
    """When the certificate ends that is shown to who comes now."""
    text = ssl.get_server_certificate((HERE, secured.metrics_port))
    return x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc.timestamp()
