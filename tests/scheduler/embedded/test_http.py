"""The server as its clients see it: endpoints, sandboxes, and requests that mean harm."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from scheduler.embedded import AgentSpec, Cluster, processes
from scheduler.embedded.http import MAX_BODY
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.sandbox import MAX_READ, whole_characters
from scheduler.errors import ClusterError
from scheduler.quantities import Ranges, Resources
from tests.conftest import PATIENCE

RESOURCES = Resources(
    {"cpus": 4000, "mem": 4_096_000, "gpu.0.compute": 1000}, {"cores": Ranges.parse("[0-7]")}
)


class Client:
    """A framework over real HTTP."""

    def __init__(self, session: aiohttp.ClientSession, cluster: Cluster) -> None:
        self.session = session
        self.cluster = cluster
        self.base = "http://{}:{}".format(*cluster.address)
        self.api = f"{self.base}/api/v1/scheduler"
        self.stream: aiohttp.ClientResponse | None = None

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()

    async def subscribe(self, framework_id: str | None = None, **more: Any) -> None:
        self.close()
        capabilities = [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]
        info: dict[str, Any] = {"user": "", "name": "<b>fw</b>", "roles": ["*"], **more}
        info["capabilities"] = capabilities
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if framework_id is not None:
            info["id"] = call["framework_id"] = {"value": framework_id}
        self.stream = await self.session.post(self.api, json=call)
        self.stream_id = self.stream.headers["Mesos-Stream-Id"]
        self._decoder = Decoder()
        self._events: list[dict[str, Any]] = []
        event = await self.event("SUBSCRIBED")
        self.id = event["subscribed"]["framework_id"]["value"]

    async def event(self, kind: str) -> dict[str, Any]:
        """Return the next event of a kind; updates are acknowledged on the way."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if event["type"] == "UPDATE" and "uuid" in event["update"]["status"]:
                        await self.acknowledge(event["update"]["status"])
                    if event["type"] == kind:
                        return event
                assert self.stream is not None
                chunk = await self.stream.content.readany()
                assert chunk, "the stream has ended"
                self._events += map(json.loads, self._decoder.feed(chunk))

    async def state(self, wanted: str) -> dict[str, Any]:
        """Return the first update with a state."""
        while True:
            status: dict[str, Any] = (await self.event("UPDATE"))["update"]["status"]
            if status["state"] == wanted:
                return status

    async def acknowledge(self, status: dict[str, Any]) -> None:
        await self.call("ACKNOWLEDGE", **{n: status[n] for n in ("agent_id", "task_id", "uuid")})

    async def call(self, kind: str, **body: Any) -> None:
        call: dict[str, Any] = {"type": kind, "framework_id": {"value": self.id}}
        if body:
            call[kind.lower()] = body
        headers = {"Mesos-Stream-Id": self.stream_id}
        async with self.session.post(self.api, json=call, headers=headers) as response:
            assert response.status == 202, await response.text()

    async def run(self, name: str, command: str, **more: Any) -> dict[str, Any]:
        """Launch a shell command; return its TASK_RUNNING update."""
        offer = (await self.event("OFFERS"))["offers"]["offers"][0]
        cores = {"range": [{"begin": 1, "end": 1}]}
        task = {
            "task_id": {"value": name},
            "name": "<script>alert(1)</script>",
            "agent_id": offer["agent_id"],
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "cores", "type": "RANGES", "ranges": cores},
            ],
            "command": {"value": command},
            **more,
        }
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        await self.call("ACCEPT", offer_ids=[offer["id"]], operations=[operation])
        return await self.state("TASK_RUNNING")

    async def get(self, endpoint: str, **query: str) -> tuple[int, str]:
        async with self.session.get(self.base + endpoint, params=query) as response:
            return response.status, await response.text()

    async def get_json(self, endpoint: str, **query: str) -> Any:
        status, text = await self.get(endpoint, **query)
        assert status == 200, text
        return json.loads(text)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what happens in another process or at the other end of a connection."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - there is no event that tells
            await asyncio.sleep(0.01)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    specs = [AgentSpec(f"127.0.1.{n}", RESOURCES, {"rack": f"r{n}"}) for n in (1, 2)]
    async with (
        Cluster(specs, work_dir=tmp_path / "work", port=0) as cluster,
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, cluster)
        yield client
        client.close()


@pytest.mark.parametrize("prefix", ["", "/master"])
async def test_operators_see_what_runs_where(client: Client, prefix: str) -> None:
    await client.subscribe()
    running = await client.run("t", "sleep 60")
    state = await client.get_json(f"{prefix}/state")
    agents = {agent["id"]: agent for agent in state["slaves"]}
    assert agents[running["agent_id"]["value"]]["used_resources"]["cores"] == "[1-1]"
    assert state["frameworks"][0]["tasks"][0]["state"] == "TASK_RUNNING"
    slaves = (await client.get_json(f"{prefix}/slaves"))["slaves"]
    for full, short in zip(slaves, state["slaves"], strict=True):
        assert full.items() >= short.items()
    tasks = (await client.get_json(f"{prefix}/tasks", limit="1"))["tasks"]
    assert tasks == state["frameworks"][0]["tasks"]
    frameworks = (await client.get_json(f"{prefix}/frameworks"))["frameworks"]
    assert frameworks == state["frameworks"]
    summary = await client.get_json(f"{prefix}/state-summary")
    assert sum(agent["TASK_RUNNING"] for agent in summary["slaves"]) == 1
    roles = (await client.get_json(f"{prefix}/roles"))["roles"]
    assert roles[0]["allocated"] == {"cores": 1.0, "cpus": 0.1}
    metrics = await client.get_json(f"{prefix}/metrics/snapshot")
    assert metrics["master/tasks_running"] == 1.0
    assert await client.get(f"{prefix}/health") == (200, "")
    assert (await client.get_json(f"{prefix}/version"))["version"] == "1.12.0"
    assert (await client.get(f"{prefix}/tasks", limit="many"))[0] == 400
    assert (await client.get(f"{prefix}/nosuch")) == (404, "404 Not Found.")


async def test_jsonp_takes_only_the_name_of_a_function(client: Client) -> None:
    assert (await client.get("/version", jsonp="cb"))[1].startswith('cb({"version"')
    assert (await client.get("/version", jsonp="alert(1);x"))[0] == 400


async def test_the_page_shows_names_harmlessly(client: Client) -> None:
    await client.subscribe()
    running = await client.run("t", "echo out; sleep 60")
    runs = client.cluster.master.agents[running["agent_id"]["value"]].agent.runs
    output = next(iter(runs.values())).sandbox / "stdout"
    await eventually(lambda: output.read_text() == "out\n")
    status, page = await client.get("/")
    assert status == 200
    assert "<script>" not in page
    assert "<b>fw" not in page
    assert "&lt;script&gt;" in page
    assert "gpu.0.compute" in page
    link = page.split("href='")[1].split("'")[0]
    async with client.session.get(client.base + link) as response:
        assert await response.text() == "out\n"


async def test_the_address_in_an_offer_leads_to_the_sandbox(client: Client) -> None:
    await client.subscribe()
    offer = (await client.event("OFFERS"))["offers"]["offers"][0]
    client._events.insert(0, {"type": "OFFERS", "offers": {"offers": [offer]}})
    await client.run("t", "printf 'grüße'; echo err >&2; sleep 60")
    runs = client.cluster.master.agents[offer["agent_id"]["value"]].agent.runs
    errors = next(iter(runs.values())).sandbox / "stderr"
    await eventually(lambda: errors.read_text() == "err\n")
    url = offer["url"]
    root = "http://{ip}:{port}".format(**url["address"]) + url["path"]
    virtual = f"/frameworks/{client.id}/executors/t/runs/latest"
    async with client.session.get(f"{root}/state") as response:
        state = await response.json()
    directory = state["frameworks"][0]["executors"][0]["directory"]
    for path in (virtual, directory, str(Path(directory).with_name("latest"))):
        query = {"path": f"{path}/stdout", "offset": "0"}
        async with client.session.get(f"{root}/files/read", params=query) as response:
            assert await response.json() == {"data": "grüße", "offset": 0}
        async with client.session.get(f"{root}/files/browse", params={"path": path}) as response:
            names = [entry["path"] for entry in await response.json()]
        assert names == [f"{path}/stderr", f"{path}/stdout"]
    query = {"path": f"{virtual}/stdout"}
    async with client.session.get(f"{root}/files/read", params=query) as response:
        assert await response.json() == {"data": "", "offset": len("grüße".encode())}
    async with client.session.get(f"{root}/files/download", params=query) as response:
        assert await response.text() == "grüße"
    assert (await client.get("/slave(9)/files/browse", path=virtual))[0] == 404


async def test_no_path_leads_out_of_a_sandbox(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    await client.subscribe()
    links = "ln -s / root; ln -s /etc/passwd passwd; ln -s .. up; mkfifo fifo; mkdir d"
    running = await client.run("t", f"{links}; echo up > done; sleep 60")
    agents = {r.info.id: r for r in client.cluster.master.agents.values()}
    agent = agents[running["agent_id"]["value"]]
    sandbox = next(iter(agent.agent.runs.values())).sandbox
    await eventually((sandbox / "done").exists)
    virtual = f"/frameworks/{client.id}/executors/t/runs/latest"
    attempts = [
        "/etc/passwd",
        str(tmp_path / "secret"),
        str(sandbox.parent),
        f"{sandbox}/../../../../../../../../secret",
    ]
    for start in (virtual, str(sandbox)):
        attempts += [
            f"{start}/passwd",
            f"{start}/root/etc/passwd",
            f"{start}/up",
            f"{start}/" + "../" * 20 + "etc/passwd",
            f"{start}/fifo",
            f"{start}/a\0b",
            f"{start}/" + "x" * 5000,
        ]
    for path in attempts:
        for kind in ("read", "download", "browse"):
            status, text = await client.get(
                f"{agent.info.path}/files/{kind}", path=path, offset="0"
            )
            assert (status, text) == (404, ""), (kind, path)
        for kind, more in (("READ_FILE", {"offset": 0}), ("LIST_FILES", {})):
            body = {"type": kind, kind.lower(): {"path": path, **more}}
            url = f"{client.base}{agent.info.path}/api/v1"
            async with client.session.post(url, json=body) as response:
                assert (response.status, await response.text()) == (404, ""), (kind, path)
    for start in (quote(virtual, safe=""), virtual):
        for up in ("%2e%2e%2f", "..%2f", "%252e%252e%252f", "%c0%ae%c0%ae/", "..%5c"):
            query = f"{agent.info.path}/files/read?offset=0&path={start}/{up * 20}etc/passwd"
            async with client.session.get(URL(client.base + query, encoded=True)) as response:
                assert (response.status, await response.text()) == (404, ""), query
    assert (await client.get(f"{agent.info.path}/files/read"))[0] == 400
    assert (await client.get(f"{agent.info.path}/files/read", path=virtual, offset="x"))[0] == 400


async def test_a_group_shares_a_sandbox_and_each_of_its_tasks_has_one_below(client: Client) -> None:
    await client.subscribe()
    offer = (await client.event("OFFERS"))["offers"]["offers"][0]
    cpus = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}]
    tasks = [
        {
            "task_id": {"value": name},
            "name": name,
            "agent_id": offer["agent_id"],
            "resources": cpus,
            "command": {"value": f"echo {name}; ln -s ../../.. up; touch ready; sleep 60"},
        }
        for name in ("a", "b")
    ]
    executor = {"type": "DEFAULT", "executor_id": {"value": "ex"}, "resources": cpus}
    executor["framework_id"] = {"value": client.id}
    group = {"executor": executor, "task_group": {"tasks": tasks}}
    operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    await client.call("ACCEPT", offer_ids=[offer["id"]], operations=[operation])
    await client.state("TASK_RUNNING")
    await client.state("TASK_RUNNING")
    record = client.cluster.master.agents[offer["agent_id"]["value"]]
    runs = list(record.agent.runs.values())
    await eventually(lambda: all((run.sandbox / "ready").exists() for run in runs))
    files = f"{record.info.path}/files"
    latest = f"/frameworks/{client.id}/executors/ex/runs/latest"
    for name in ("a", "b"):
        path = f"{latest}/tasks/{name}"
        answer = await client.get_json(f"{files}/read", path=f"{path}/stdout", offset="0")
        assert answer == {"data": f"{name}\n", "offset": 0}
        for way in (f"{path}/up", f"{path}/../../../../../..", f"{latest}/tasks/c/stdout"):
            assert (await client.get(f"{files}/browse", path=way))[0] == 404, way
    shared = await client.get_json(f"{files}/browse", path=latest)
    assert shared, "the group's own sandbox"


def test_a_piece_never_ends_within_a_character() -> None:
    text = "aäœ🔭"
    data = text.encode()
    for end in range(1, len(data) + 1):
        piece = whole_characters(data[:end])
        rest = data[:end].removeprefix(piece)
        assert len(rest) < 4
        if piece != data[:end]:
            assert text.startswith(piece.decode())
    assert whole_characters(b"\xff") == b"\xff"  # no text at all: reading goes on all the same
    assert MAX_READ == 65536


NESTED = b'{"type":' + b"[" * 100_000
DEEP = b'{"type":"SUBSCRIBE","subscribe":' + b'{"framework_info":' * 3000 + b"1" + b"}" * 3001


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff\xfe{", 400),
        (b"null", 400),
        (NESTED, 400),
        (DEEP, 400),
        (b'{"type":"KILL","type":1}', 400),
        (b'{"type":"ACCEPT","accept":{"filters":{"refuse_seconds":1e999}}}', 400),
        (b'{"type":"ACCEPT","accept":{"filters":{"refuse_seconds":NaN}}}', 400),
        (b'{"type":"SUBSCRIBE","x":' + b"9" * 10_000 + b"}", 400),
        (b'{"type":"REVIVE","framework_id":{"value":"\\ud800"}}', 400),
        (b"{" + b" " * MAX_BODY + b"}", 413),
    ],
    ids=range(10),
)
async def test_hostile_bodies_are_refused(client: Client, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    data = io.BytesIO(body)
    async with client.session.post(client.api, data=data, headers=headers) as response:
        assert response.status == status
    assert await client.get("/health") == (200, "")


async def test_a_connection_that_is_lost_is_noticed_at_once(client: Client) -> None:
    await client.subscribe()
    framework = client.cluster.master.frameworks[client.id]
    client.stream.close()
    await eventually(lambda: not framework.connected)


async def test_leaving_the_cluster_ends_its_tasks(tmp_path: Path) -> None:
    cluster = Cluster([AgentSpec("127.0.1.1", RESOURCES)], work_dir=tmp_path, port=0)
    async with aiohttp.ClientSession() as session:
        async with cluster:
            client = Client(session, cluster)
            await client.subscribe()
            status = await client.run("t", "trap 'echo bye; exit' TERM; sleep 60 & wait")
            pid = status["container_status"]["executor_pid"]
        assert processes.look(pid) is None
        assert client.stream is not None
        await client.stream.content.read()  # the stream has ended in order


GRACE = {"grace_period": {"nanoseconds": 600 * 10**9}}


async def test_impatience_kills_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    pids: list[int] = []

    async def serve() -> None:
        specs = [AgentSpec("127.0.1.1", RESOURCES)]
        async with (
            aiohttp.ClientSession() as session,
            Cluster(specs, work_dir=tmp_path, port=0) as cluster,
        ):
            client = Client(session, cluster)
            await client.subscribe()
            deaf = "trap '' TERM; echo up; while :; do sleep 1; done"
            status = await client.run("t", deaf, kill_policy=GRACE)
            pids.append(status["container_status"]["executor_pid"])
            client.close()
            await cluster.serve_forever()

    server = asyncio.ensure_future(serve())
    await eventually(lambda: bool(pids))
    begin = asyncio.get_running_loop().time()
    for _ in range(2):
        server.cancel()
        await asyncio.wait([server], timeout=0.3)
    with pytest.raises(asyncio.CancelledError):
        await server
    assert asyncio.get_running_loop().time() - begin < 300  # its grace period is longer
    assert processes.look(pids[0]) is None


async def test_a_work_folder_belongs_to_one_cluster(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="another cluster runs in"):
        async with Cluster([], work_dir=tmp_path / "work", port=0):
            pass


async def test_an_internal_fault_ends_the_cluster(tmp_path: Path) -> None:
    class Broken:
        async def launch(self, launch: Any) -> Any:
            raise ZeroDivisionError

        async def recover(self, launches: Any) -> Any:
            return {}

        async def close(self) -> None:
            pass

    specs = [AgentSpec("127.0.1.1", RESOURCES)]
    cluster = Cluster(specs, work_dir=tmp_path, port=0, executor=Broken())

    async def serve() -> None:
        async with cluster, aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(cluster.serve_forever())
            client = Client(session, cluster)
            await client.subscribe()
            try:
                await client.run("t", "true")
            finally:
                client.close()

    with pytest.raises(ExceptionGroup) as caught:
        await serve()
    assert caught.value.subgroup(ZeroDivisionError) is not None


async def test_a_port_that_is_taken_is_named(client: Client, tmp_path: Path) -> None:
    port = client.cluster.address[1]
    with pytest.raises(ClusterError, match=f"cannot listen on 127.0.0.1:{port}"):
        async with Cluster([], work_dir=tmp_path / "other", port=port):
            pass


def test_two_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"several agents are called 127\.0\.1\.1"):
        Cluster([AgentSpec("127.0.1.1", RESOURCES)] * 2, work_dir=tmp_path)


def test_the_work_folder_may_hold_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Cluster([], work_dir=tmp_path / "link")._work_dir == (tmp_path / "real").resolve()
