"""docker-compose.yml is held to what the project really has: commands, settings, queues, images, open ports."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from store.settings import PREFIX, Limits, Settings
from tests.conftest import ROOT
from workers.stages import QUEUES

PASSWORDS = ("S3_ACCESS_KEY", "S3_SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if "build" in service}


def test_every_command_of_ours_exists(compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        program, flag, module, *_ = service["command"]
        assert (program, flag) == ("python", "-m"), name
        assert importlib.util.find_spec(module) is not None, f"{name} runs {module}, which does not exist"
        assert re.search(r"^def main\(", (ROOT / f"{module.replace('.', '/')}.py").read_text(), re.MULTILINE), module


def test_every_queue_has_a_worker_and_no_worker_another(compose: dict[str, Any]) -> None:
    served = []
    for service in ours(compose).values():
        if "workers.worker" in service["command"]:
            served += service["command"][service["command"].index("--queues") + 1].split(",")
    assert sorted(served) == sorted(QUEUES)


def test_every_setting_is_known(compose: dict[str, Any]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}LIMITS__{name.upper()}" for name in Limits.model_fields}
    for name, service in ours(compose).items():
        unknown = {key for key in service["environment"] if key.startswith(PREFIX)} - known
        assert not unknown, f"{name} sets {unknown}"
        assert service["environment"]["REELSENSE_OBJECTS"].startswith("s3://")


def test_ports_are_on_loopback_and_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} opens {port} to the network"
        tag = service["image"].rpartition(":")[2]
        assert any(letter.isdigit() for letter in tag), f"{name} takes whatever {service['image']} is today"


def test_no_password_is_written_down() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in PASSWORDS:
        assert f"${{{name}:?" in text, f"{name} must be demanded"
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "docs/compose.env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert example == dict.fromkeys(PASSWORDS, "")


def test_named_volumes_networks_and_needs_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"]
            assert there, f"{name}: {volume}"
        assert set(service["networks"]) <= set(compose["networks"])
        for need in service.get("depends_on", {}):
            assert "healthcheck" in compose["services"][need], f"{name} waits for the health of {need}"


def test_monitoring_is_a_profile_and_scrapes_the_api(compose: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        assert compose["services"][name]["profiles"] == ["monitoring"]
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]
    api = compose["services"]["api"]
    host, _, port = scrape["static_configs"][0]["targets"][0].partition(":")
    assert port == api["environment"]["REELSENSE_PORT"]
    # The guard of the API answers to the name by which Prometheus calls it.
    assert host in api["environment"]["REELSENSE_API_HOSTS"].split(",")


def test_docker_compose_accepts_the_file(tmp_path: Any) -> None:
    docker = shutil.which("docker")
    has_compose = (
        docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    )
    if not has_compose:
        pytest.skip("needs the docker client with its compose plugin, which this machine does not have")
    env = tmp_path / "env"
    env.write_text("".join(f"{name}=x\n" for name in PASSWORDS))
    done = subprocess.run(
        [str(docker), "compose", "--env-file", str(env), "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_image_holds_every_room() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for room in ("app", "encoders", "fusion", "ranker", "store", "workers"):
        assert f"COPY {room} {room}" in dockerfile
