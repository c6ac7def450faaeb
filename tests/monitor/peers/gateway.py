"""A real LiteLLM proxy as a process of its own, with a model that answers from a text and guardrails that ask us."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.monitor.http.live import within
from tests.monitor.peers.setup_litellm import litellm_command

__all__ = ["ANSWER", "Gateway", "gateway"]

ANSWER = "an answer that was made beforehand"
KEY = "sk-5b1f0e8c7a3d49629e0c6d2f8a417b35"
WATCH = """
import ipaddress, os, sys

def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    try:
        mine = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        mine = False
    if not mine:
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{host}\\n")
        raise OSError("no network in this test")

sys.addaudithook(watch)
"""
"""Run by Python itself when the process starts: nobody but this machine is asked, and who was is noted."""


class Gateway:
    """A running proxy."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.http = httpx.Client(
            base_url=address, headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
        )

    def chat(self, guardrail: str, *messages: tuple[str, Any], **more: Any) -> httpx.Response:
        """One chat, judged by this guardrail."""
        said = [{"role": role, "content": content} for role, content in messages]
        asked = {"model": "made", "messages": said, "guardrails": [guardrail]} | more
        return self.http.post("/v1/chat/completions", json=asked)

    def log(self) -> str:
        """What it printed."""
        return (self.folder / "log").read_text(errors="replace")

    def asked_elsewhere(self) -> str:
        """Hosts, other than this machine, that it wanted to reach."""
        path = self.folder / "watched"
        return path.read_text() if path.exists() else ""


def environment(folder: Path) -> dict[str, str]:
    """What the proxy is started with: its own folder, no keys of anybody, no calls home."""
    (folder / "sitecustomize.py").write_text(WATCH)
    plain = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    return plain | {
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        "WATCH_LOG": str(folder / "watched"),
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
    }


def _settings(guardrails: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    made = {"model": "openai/made", "api_key": "none", "mock_response": ANSWER}
    shared = {"guardrail": "generic_guardrail_api", "mode": "pre_call", "default_on": False}
    return {
        "model_list": [{"model_name": "made", "litellm_params": made}],
        "guardrails": [
            {"guardrail_name": name, "litellm_params": shared | dict(more)} for name, more in guardrails.items()
        ],
        "litellm_settings": {"telemetry": False},
    }


@contextmanager
def gateway(folder: Path, guardrails: Mapping[str, Mapping[str, Any]]) -> Iterator[Gateway]:
    """A proxy with these guardrails: their settings by name."""
    command = litellm_command()
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(_settings(guardrails)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(command), *arguments], cwd=folder, env=environment(folder), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        found = Gateway(process, f"http://127.0.0.1:{port}", folder)
        with found.http:
            assert within(180, lambda: process.poll() is not None or _alive(found.http)), found.log()
            assert process.poll() is None, found.log()
            yield found
    finally:
        process.kill()
        process.wait()


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/health/liveliness").status_code == 200
    except httpx.TransportError:
        return False
