"""Names and credentials, as Docker reads them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ImageError
from scheduler.images import Credentials, ImageName, read_credentials

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "path", "tag"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("ska/cal:1.0", "docker.io", "ska/cal", "1.0"),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("index.docker.io/ska/cal", "docker.io", "ska/cal", "latest"),
        ("localhost/cal", "localhost", "cal", "latest"),
        ("Registry/cal", "Registry", "cal", "latest"),
        ("registry.kat.ac.za:5000/katsdpcal:x", "registry.kat.ac.za:5000", "katsdpcal", "x"),
        ("[::1]:5000/a/b__c", "[::1]:5000", "a/b__c", "latest"),
    ],
)  # fmt: skip
def test_names_are_read_as_docker_does(text: str, host: str, path: str, tag: str) -> None:
    name = ImageName.parse(text)
    assert (name.host, name.path, name.tag) == (host, path, tag)
    assert ImageName.parse(str(name)) == name
    pinned = name.at(DIGEST)
    assert ImageName.parse(str(pinned)) == pinned
    assert (name.reference, pinned.reference) == (tag, DIGEST)


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a//b", "a:b:c", "a@sha256:12", "../etc", "a b", "x" * 2000, "a/b?x=1"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="no name of an image"):
        ImageName.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        name = ImageName.parse(text)
    except ImageError:
        return
    assert ImageName.parse(str(name)) == name


def write(folder: Path, document: object) -> Path:
    path = folder / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_credentials_are_read_and_never_shown(tmp_path: Path) -> None:
    auth = base64.b64encode(b"sdp:top:secret").decode()
    auths = {
        "registry:5000": {"auth": auth},
        "https://index.docker.io/v1/": {"username": "u", "password": "p"},
        "helped": {},
    }
    found = read_credentials(write(tmp_path, {"auths": auths}))
    assert found.keys() == {"registry:5000", "docker.io"}
    assert found["registry:5000"] == Credentials("sdp", "top:secret")
    assert found["registry:5000"].basic == f"Basic {auth}"
    assert "secret" not in repr(found)


def test_forms_that_docker_and_others_write_are_read(tmp_path: Path) -> None:
    auth = base64.b64encode(b"u:p").decode()
    auths = {
        "r:5000": {"auth": auth + "\n"},
        "r:5000/team": {"username": "team", "password": "t"},
        "https://s/v2/": {"auth": auth},
    }
    found = read_credentials(write(tmp_path, {"auths": auths}))
    assert found == {"r:5000": Credentials("u", "p"), "s": Credentials("u", "p")}


def test_helpers_are_not_run_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"auths": {"r": {}}, "credHelpers": {"r": "ecr-login"}, "credsStore": "desktop"}
    assert read_credentials(write(tmp_path, document)) == {}
    assert "r, all others" in caplog.text
    assert "not run" in caplog.text


@pytest.mark.parametrize(
    "document",
    ["{secret", [], {"auths": 5}, {"auths": {"r": "secret"}}, {"auths": {"r": {"auth": "secret!"}}},
     {"auths": {"r": {"auth": base64.b64encode(b"secret").decode()}}}],
)  # fmt: skip
def test_malformed_credentials_are_told_without_their_content(
    tmp_path: Path, document: object
) -> None:
    with pytest.raises(ImageError) as told:
        read_credentials(write(tmp_path, document))
    assert "secret" not in str(told.value)
    assert told.value.__cause__ is None


def test_a_file_that_is_not_there_or_endless_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read from .*No such file"):
        read_credentials(tmp_path / "none.json")
    with pytest.raises(ImageError, match="more than"):
        read_credentials(write(tmp_path, " " * (2**20 + 1)))
