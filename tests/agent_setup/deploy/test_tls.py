"""What roles write when everything shall be encrypted: rendered by their own templates."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdpcontroller.cli.main import make_parser
from tests.agent_setup.deploy.conftest import BIN, PLAYBOOKS
from tests.agent_setup.deploy.test_site import command_line

pytestmark = pytest.mark.ansible

FILES = {
    "controller_tls_certificate": "/etc/sdp/tls/controller.pem",
    "controller_tls_key": "/etc/sdp/tls/controller.key",
    "controller_goahead_ca": "/etc/sdp/tls/ca.pem",
    "controller_redis_ca": "/etc/sdp/tls/ca.pem",
    "controller_mesos_ca": "/etc/sdp/tls/ca.pem",
    "redis_tls_certificate": "/etc/redis/tls.pem",
    "redis_tls_key": "/etc/redis/tls.key",
    "redis_tls_ca": "/etc/redis/ca.pem",
    "monitoring_controller_ca": "/etc/prometheus/ca.pem",
    "monitoring_controller_token_file": "/etc/prometheus/controller.token",
}
OTHERS = {
    "controller_queues": {"queues": {"realtime": {}, "batch": {}}},
    "controller_goahead_unverified": True,
    "controller_redis_tls": True,
    "controller_redis_user": "sdp",
    "controller_mesos_principal": "sdp",
    "controller_mesos_secret": "planted-mesos",
    "controller_metrics_token": "planted-metrics",
    "monitoring_controller_tls": True,
    "sdp_address": "10.0.0.1",
}


def rendered(tmp_path: Path, role: str, template: str) -> str:
    """What a role writes, with its own defaults and variables under ours."""
    folder = PLAYBOOKS / "roles" / role
    values: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        if (file := folder / part / "main.yml").exists():
            values |= yaml.safe_load(file.read_text())
    given = tmp_path / "values.json"
    given.write_text(json.dumps(values | FILES | OTHERS))
    show = f"{{{{ lookup('template', 'roles/{role}/templates/{template}') | b64encode }}}}"
    command = [
        str(BIN / "ansible"),
        "head1",
        "-i",
        "inventory/example",
        "-c",
        "local",
        "-m",
        "debug",
    ]
    done = subprocess.run(
        [*command, "-e", f"@{given}", "-a", f"msg={show}"],
        cwd=PLAYBOOKS,
        capture_output=True,
        text=True,
        check=True,
    )
    return base64.b64decode(json.loads(done.stdout.partition("=> ")[2])["msg"]).decode()


def test_the_controller_gets_files_as_options_and_secrets_in_its_environment(
    tmp_path: Path,
) -> None:
    unit = rendered(tmp_path, "controller", "sdp-master.service.j2")
    options = make_parser().parse_args(command_line(unit)[1:])
    assert options.redis == "rediss://sdp@head1:6379/0"
    assert options.goahead_url == ["https://head1:5002", "https://head2:5002"]
    for name in ("tls_certificate", "tls_key", "goahead_ca"):
        assert str(getattr(options, name)) == FILES[f"controller_{name}"]
    assert str(options.redis_ca) == str(options.mesos_ca) == "/etc/sdp/tls/ca.pem"
    assert options.goahead_unverified
    assert str(options.queues) == "/etc/sdp/queues.json"
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
    assert "planted" not in unit
    environment = rendered(tmp_path, "controller", "controller.env.j2")
    assert 'SDP_MESOS_SECRET="planted-mesos"' in environment
    assert 'SDP_METRICS_TOKEN="planted-metrics"' in environment


def test_redis_speaks_nothing_else(tmp_path: Path) -> None:
    lines = rendered(tmp_path, "redis", "redis.conf.j2").splitlines()
    assert {"port 0", "tls-port 6379", "tls-cert-file /etc/redis/tls.pem"} <= set(lines)


def test_prometheus_asks_with_its_token(tmp_path: Path) -> None:
    document = yaml.safe_load(rendered(tmp_path, "monitoring", "prometheus.yml.j2"))
    (job,) = (job for job in document["scrape_configs"] if job["job_name"] == "controller")
    assert job["scheme"] == "https"
    assert job["tls_config"] == {"ca_file": "/etc/prometheus/ca.pem"}
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/controller.token"}
