"""The files in `deploy/`, the Dockerfile and their document agree with the server."""

import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from anytime_server.metrics import Metrics
from anytime_server.ray_serve.command import ENVIRONMENT
from anytime_server.ray_serve.settings import NAME, RaySettings
from anytime_server.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs" / "DEPLOYMENT.md").read_text(encoding="utf-8")
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "anytime.json"


def row(name, field):
    """A setting as the document's table has it."""
    default = field.default
    if default is PydanticUndefined or isinstance(default, SecretStr) or default in (None, ""):
        shown = ""
    else:
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return f"| `ANYTIME_{name.upper()}` | {shown} | {field.description} |"


def test_the_documents_table_of_settings_is_the_servers():
    expected = [row(name, field) for name, field in Settings.model_fields.items()]
    found = re.findall(r"^\| `ANYTIME_[A-Z_]+` \|.*$", DOCUMENT, flags=re.MULTILINE)
    assert found == expected, "the table should be:\n" + "\n".join(expected)


def test_every_variable_of_the_dockerfile_and_compose_is_a_setting():
    known = {f"ANYTIME_{name.upper()}" for name in Settings.model_fields} | {"ANYTIME_KERNEL_CACHE"}
    unknown = {
        (name, variable)
        for name in ("Dockerfile", "docker-compose.yml")
        for variable in re.findall(r"ANYTIME_[A-Z_]+", (ROOT / name).read_text(encoding="utf-8"))
        if variable not in known
    }
    assert unknown == set()


def test_compose_passes_every_setting_on_that_the_image_does_not_fix():
    image = re.findall(r"ANYTIME_[A-Z_]+", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passed = re.findall(r"^ +- (ANYTIME_[A-Z_]+)", compose, flags=re.MULTILINE)
    known = [f"ANYTIME_{name.upper()}" for name in Settings.model_fields]
    assert passed == [name for name in known if name not in image]


def test_kubernetes_knows_only_settings_and_paths_that_there_are():
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    known = {f"ANYTIME_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\{name: (ANYTIME_[A-Z_]+)", text)) <= known
    assert set(re.findall(r"path: (/\w+)", text)) == {"/livez", "/readyz"}
    grace_s = int(re.search(r"terminationGracePeriodSeconds: (\d+)", text)[1])
    assert grace_s > Settings.model_fields["drain_timeout_s"].default


@pytest.mark.parametrize("name", ["serve.yaml", "kuberay.yaml"])
def test_the_configurations_of_ray_give_settings_that_there_are(name):
    config = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    if name == "kuberay.yaml":
        config = yaml.safe_load(config["spec"]["serveConfigV2"])
    [application] = config["applications"]
    settings = RaySettings(**application["args"])
    least, most = settings.replica_range
    assert (least, application["name"]) == (1, NAME)
    assert most > least
    assert config["http_options"]["host"] == settings.host  # decides whose pages may ask


def test_kuberays_nodes_have_what_the_proxy_and_a_drain_need():
    cluster = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text("utf-8"))["spec"][
        "rayClusterConfig"
    ]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        [container] = group["template"]["spec"]["containers"]
        environment = {line["name"]: line.get("value") for line in container["env"]}
        assert "ANYTIME_TOKEN" in environment
        assert environment.items() >= ENVIRONMENT.items()
    grace_s = cluster["workerGroupSpecs"][0]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > Settings.model_fields["drain_timeout_s"].default + 20


def test_the_images_dependencies_are_those_of_the_extra_and_not_the_project():
    done = subprocess.run(
        [sys.executable, DEPLOY / "dependencies.py", "server"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = done.stdout.splitlines()
    assert {"torch", "fastapi", "numpy", "safetensors"} <= {
        re.split(r"[\[><=]", f)[0] for f in found
    }
    assert not [name for name in found if name.startswith(("anytime", "albumentations"))]


def test_the_images_health_check_asks_the_port_that_is_set():
    line = re.search(r"^    CMD (\[.*)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)[1]
    command = [sys.executable, *json.loads(line)[1:]]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(statuses.pop())
            self.end_headers()

    asked, statuses, codes = [], [503, 200], []
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        environment = os.environ | {"ANYTIME_PORT": str(server.server_port)}
        for _ in range(2):
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            server.handle_request()
            codes.append(process.wait(30))
    assert asked == ["/readyz"] * 2
    assert codes == [0, 1]


def test_the_systemd_unit_waits_for_a_drain_and_has_no_fault(tmp_path):
    unit = (DEPLOY / "anytime.service").read_text(encoding="utf-8")
    stop_s = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[1])
    assert stop_s > Settings.model_fields["drain_timeout_s"].default
    assert "cp deploy/anytime.service" in DOCUMENT
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "anytime.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run(
        [program, "verify", copy], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "anytime" in line] == []


def test_every_metric_that_is_watched_is_exposed():
    exposed = set(re.findall(r"^# TYPE (\S+)", Metrics().expose().decode(), flags=re.MULTILINE))
    exposed |= {name + part for name in set(exposed) for part in ("_bucket", "_count", "_sum")}
    for path in (DASHBOARD, DEPLOY / "alerts.yml", ROOT / "docs" / "DEPLOYMENT.md"):
        used = set(re.findall(r"\banytime_[a-z_]+", path.read_text(encoding="utf-8")))
        unknown = used - exposed - {"anytime_model", "anytime_server"}
        assert not unknown, path.name


def test_the_dashboard_is_one_that_grafana_reads():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 20
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] for target in panel["targets"])
        assert panel["description"]


def test_ports_are_published_on_the_loopback_interface_only():
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    ports = re.findall(r'^ +- "([0-9.:]+)"$', compose, flags=re.MULTILINE)
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ["check", "config", "deploy/prometheus.yml"]),
        ("promtool", ["check", "rules", "deploy/alerts.yml"]),
        ("nginx", ["-t", "-q", "-c", str(DEPLOY / "nginx.conf"), "-e", "stderr"]),
        ("hadolint", ["Dockerfile"]),
    ],
)
def test_the_files_pass_their_own_programs(program, arguments, tmp_path):
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    if program == "nginx":
        arguments = [*arguments, "-g", f"pid {tmp_path}/nginx.pid;"]
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
