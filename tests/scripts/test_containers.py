"""The files that describe containers, checked by the tools that read them and compared with the service itself."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from app.core.scopes import SCOPES
from app.core.settings import Settings
from scripts import is_live
from scripts.realm import demo_realm
from tests.support.databases import ROOT
from tests.support.metrics import SERIES

pytestmark = pytest.mark.one_database

SETTINGS = {name.upper() for name in Settings.model_fields}
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
BLUEPRINT = yaml.safe_load((ROOT / "render.yaml").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/muster.json").read_text())
QUERIES = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
KNOWN = SERIES | {"up"}  # Prometheus' own
OURS = [name for name, service in COMPOSE["services"].items() if "build" in service and "environment" in service]


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1:9000"),  # noqa: S104  # all addresses
        ("::", "127.0.0.1:9000"),
        ("127.0.0.2", "127.0.0.2:9000"),
        ("::1", "[::1]:9000"),
    ],
)
def test_the_health_check_asks_where_the_service_listens(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", "9000")
    assert is_live.address() == address


@pytest.mark.slow
def test_compose_yaml_follows_the_schema_of_compose_files() -> None:
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(ROOT / "compose.yaml"),
    ]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_has_its_labels() -> None:
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)=", (ROOT / "Dockerfile").read_text())
    assert labels == ["title", "description", "licenses"]


def test_every_image_is_pinned_by_a_tag() -> None:
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    foreign = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    assert [image for image in base + foreign if not re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", image)] == []


def test_compose_sets_settings_that_exist_and_the_same_for_all() -> None:
    environments = [COMPOSE["services"][name]["environment"] for name in OURS]
    assert [set(environment) - SETTINGS for environment in environments] == [{"PGPASSWORD"}] * 3  # libpq's own
    differing = {"SERVES", "PORT"}
    shared = [{k: v for k, v in environment.items() if k not in differing} for environment in environments]
    assert shared == [shared[0]] * 3
    assert {COMPOSE["services"][name]["environment"].get("PORT", "none") for name in OURS} == {"8000", "8001", "none"}
    assert all("data:/srv/muster/data" in COMPOSE["services"][name]["volumes"] for name in OURS)


def test_compose_opens_ports_on_this_machine_alone_and_finds_its_files() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_any_database_password_and_any_new_token_reach_the_containers_that_need_them() -> None:
    """A password is not part of a URL, where it would have to be escaped; and compose restarts a container when a
    variable has changed, not when a file has."""
    services = COMPOSE["services"]
    variables = [services[name]["environment"] for name in OURS]
    assert {each["DATABASE_URL"] for each in variables} == {"postgresql://muster@db/muster"}
    assert {each["PGPASSWORD"] for each in variables} == {services["db"]["environment"]["POSTGRES_PASSWORD"]}
    tokens = {each["METRICS_TOKEN"] for each in [*variables, services["prometheus"]["environment"]]}
    assert tokens == {COMPOSE["configs"]["metrics-token"]["content"]}


def test_compose_builds_our_image_and_leaves_no_volume_behind() -> None:
    services = COMPOSE["services"]
    assert [services[name]["pull_policy"] for name in OURS] == ["build"] * 3
    assert services["redis"]["tmpfs"] == ["/data"]
    assert "healthcheck" in services["web"]
    assert "test" not in services["worker"]["healthcheck"], "the image's own check knows workers"


def test_prometheus_presents_the_token_of_the_service_at_the_ports_of_the_service() -> None:
    token = COMPOSE["configs"]["metrics-token"]["content"]
    (scrape,) = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert COMPOSE["services"]["api"]["environment"]["METRICS_TOKEN"] == token
    assert len(token.partition(":-")[2].rstrip("}")) >= 16
    assert COMPOSE["services"]["prometheus"]["configs"][0]["target"] == scrape["authorization"]["credentials_file"]
    (named,) = scrape["static_configs"]  # by name: a target found by DNS vanishes with its container
    serving = [name for name in OURS if "ports" in COMPOSE["services"][name]]
    assert named["targets"] == [f"{name}:{COMPOSE['services'][name]['environment']['PORT']}" for name in serving]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:60])
def test_a_query_is_valid_and_asks_for_metrics_that_exist(query: str) -> None:
    promql_parser.parse(query)
    asked = set(re.findall(r"\b(?:muster|http|process)_\w+|\bup\b", re.sub(r"by \([^)]*\)", "", query)))
    assert asked
    assert asked <= KNOWN


def test_a_share_on_the_dashboard_is_zero_where_nothing_was_counted_yet() -> None:
    """A counter with labels has no series before its first event."""
    shares = [query for query in QUERIES if re.search(r"\w+_total\{[^}]*,[^}]*\}.* / ", query) and " > " not in query]
    assert len(shares) == 1
    assert all(" or vector(0)) / " in query for query in shares)


def test_every_counter_and_gauge_has_a_place_on_the_dashboard() -> None:
    shown = " ".join(QUERIES)
    ours = {name for name in KNOWN if name.startswith("muster_")}
    assert {name for name in ours if not re.search(rf"\b{name}\b", shown)} == set()


def test_every_alert_has_a_summary_and_a_link_to_the_documentation() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) >= 9
    for rule in ALERTS:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings], rule["alert"]
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in {"page", "look"}


def test_the_dashboard_asks_the_datasource_that_is_provisioned() -> None:
    folder = ROOT / "docker/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/muster.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((folder / "dashboards/muster.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


def test_render_yaml_refers_to_what_it_defines_and_sets_settings_that_exist() -> None:
    (group,) = BLUEPRINT["envVarGroups"]
    names = {service["name"] for service in BLUEPRINT["services"]}
    databases = {database["name"] for database in BLUEPRINT["databases"]}
    assert [each for each in group["envVars"] if each["key"] not in SETTINGS] == []
    for service in BLUEPRINT["services"]:
        for variable in service.get("envVars", []):
            check_variable(variable, names=names, databases=databases)
        if service["type"] != "keyvalue":
            assert {"fromGroup": group["name"]} in service["envVars"]
            assert {"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "MAIL_URL"} <= {v.get("key") for v in service["envVars"]}


def check_variable(variable: dict[str, Any], *, names: set[str], databases: set[str]) -> None:
    if "fromGroup" not in variable:
        assert variable["key"] in SETTINGS
    if "fromService" in variable:
        assert variable["fromService"]["name"] in names
    if "fromDatabase" in variable:
        assert variable["fromDatabase"]["name"] in databases


def test_the_demo_realm_has_the_client_the_roles_the_scopes_and_people() -> None:
    realm = demo_realm()
    (client,) = realm["clients"]
    (mapper,) = client["protocolMappers"]
    assert (realm["realm"], client["clientId"]) == ("muster", "muster-app")
    assert client["publicClient"]
    assert client["directAccessGrantsEnabled"]
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"
    assert mapper["config"]["included.custom.audience"] == "muster"
    assert {role["name"] for role in realm["roles"]["realm"]} == {"muster-user", "muster-admin"}
    assert [person["realmRoles"] for person in realm["users"]] == [["muster-user"], ["muster-user", "muster-admin"]]
    # A realm that names scopes of its own is not given Keycloak's: those that a token of ours needs are named too.
    scopes = {scope["name"]: scope for scope in realm["clientScopes"]}
    assert client["optionalClientScopes"] == list(SCOPES)
    assert scopes.keys() == {*client["defaultClientScopes"], *SCOPES} >= {*realm["defaultDefaultClientScopes"]}
    assert all(scopes[name]["attributes"]["include.in.token.scope"] == "true" for name in SCOPES)
    mapped = {
        each["config"].get("claim.name") for scope in scopes.values() for each in scope.get("protocolMappers", [])
    }
    assert {"auth_time", "realm_access.roles", "email", "email_verified"} <= mapped
