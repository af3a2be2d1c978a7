"""Who may speak to the cluster."""

from __future__ import annotations

import base64
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.authentication import Credentials
from scheduler.errors import ClusterError
from scheduler.quantities import Resources

SPEC = AgentSpec("127.0.1.1", Resources({"cpus": 4000}))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1)


def header(principal: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{principal}:{secret}".encode()).decode()


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "credentials"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "text", ['{"credentials": [{"principal": "p", "secret": "s"}]}', "p s\n", "\nq r\np s"]
)
def test_both_forms_of_mesos_are_read(tmp_path: Path, text: str) -> None:
    credentials = Credentials.read(write(tmp_path, text))
    assert credentials.principal(header("p", "s")) == "p"
    assert credentials.principal(header("p", "t")) is None
    assert "s" not in repr(credentials).replace("Credentials", "")


@pytest.mark.parametrize("text", ["", "{}", "p", '{"credentials": 3}', "a b c"])
def test_a_file_without_credentials_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClusterError, match="holds no credentials"):
        Credentials.read(write(tmp_path, text))


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="others may read"):
        Credentials.read(write(tmp_path, "p secret", 0o644))
    with pytest.raises(ClusterError, match="cannot read"):
        Credentials.read(tmp_path / "missing")


@given(WORDS, WORDS, WORDS, WORDS)
def test_only_the_right_secret_opens(principal: str, secret: str, who: str, what: str) -> None:
    credentials = Credentials({principal: secret})
    expected = principal if (who, what) == (principal, secret) else None
    assert credentials.principal(header(who, what)) == expected
    assert credentials.principal(header(principal, secret)) == principal


@given(st.one_of(st.none(), st.text(), st.binary().map(lambda b: f"Basic {b.hex()}")))
def test_no_header_breaks_it(text: str | None) -> None:
    assert Credentials({"p": "s"}).principal(text) is None


async def test_frameworks_and_operators_prove_who_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "p s")
    cluster = Cluster(
        [SPEC],
        work_dir=tmp_path / "work",
        port=0,
        framework_credentials=path,
        operator_credentials=path,
    )
    async with cluster, aiohttp.ClientSession() as session:
        base = "http://{}:{}".format(*cluster.address)
        right = {"Authorization": header("p", "s")}
        paths = ("/state", "/master/slaves", "/", "/slave(1)/state", "/slave%281%29/files/read")
        for endpoint in (*paths, "/api/v1", "/metrics/snapshot", "/nosuch"):
            async with session.get(base + endpoint) as response:
                assert response.status == 401, endpoint
                assert response.headers["WWW-Authenticate"].startswith('Basic realm="mesos-')
            async with session.get(base + endpoint, headers=right) as response:
                assert response.status != 401, endpoint
        async with session.get(f"{base}/health") as response:
            assert response.status == 200
        async with session.post(f"{base}/api/v1/scheduler", json={}) as response:
            assert (response.status, await response.text()) == (401, "401 Unauthorized.")
        info = {"user": "", "name": "f", "principal": "p"}
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        async with session.post(f"{base}/api/v1/scheduler", json=call, headers=right) as response:
            assert response.status == 200
