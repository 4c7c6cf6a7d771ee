"""What the environment can say, and how a mistake in it is reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pocket_dock_mcp import policy
from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.settings import Settings

HOME = {"HOME": "/home/ada"}


def settings(**variables: str) -> Settings:
    return Settings.from_environ(HOME | {f"POCKET_DOCK_{name}": value for name, value in variables.items()})


def mistake(**variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(**variables)
    return str(caught.value)


def test_the_defaults() -> None:
    assert settings().model_dump() == {
        "engine": None,
        "state_dir": Path("/home/ada/.local/state/pocket-dock"),
        "limits": "strict",
        "seccomp": "ours",
        "runtime": None,
        "profile": "minimal",
        "max_sandboxes": 8,
        "max_snapshots": 20,
        "max_persistent": 20,
        "quotas": (),
        "max_total_sandboxes": None,
        "max_total_memory_mb": None,
        "max_creates": 16,
        "max_runs": 256,
        "max_total_runs": None,
        "idle_ttl_s": 1800,
        "max_lifetime_s": 86400,
        "memory_mb": 512,
        "cpus": 1.0,
        "pids": 128,
        "max_memory_mb": 8192,
        "max_cpus": 8,
        "max_pids": 1024,
        "disk_mb": 4096,
        "max_disk_mb": 32_768,
        "max_snapshot_mb": 8192,
        "min_free_mb": 1024,
        "spool_mb": 2048,
        "pool_mb": 256,
        "warm_python": True,
        "audit": "on",
        "host_roots": None,
        "output_bytes": 8192,
        "http_host": "127.0.0.1",
        "http_port": 8000,
        "http_path": "/mcp",
        "http_allowed_hosts": (),
        "http_allowed_origins": (),
        "http_cors_origins": (),
        "token": None,
        "token_file": None,
        "oauth_issuer": None,
        "oauth_scopes": (),
        "http_url": None,
        "http_session_idle_s": 600,
        "http_max_sessions": 1000,
        "http_max_sessions_each": 250,
        "http_max_connections": 2000,
        "http_max_connections_each": 1000,
        "network_max": ("open",),
        "network_connections": 64,
        "network_sent_mb": 1024,
        "network_received_mb": 16_384,
        "package_hosts": (),
        "secrets_file": None,
    }


def test_every_setting_can_be_set() -> None:
    given = {
        "ENGINE": "docker",
        "STATE_DIR": "/var/lib/dock",
        "LIMITS": "best-effort",
        "SECCOMP": "engine",
        "RUNTIME": "runsc",
        "PROFILE": "agent",
        "MAX_SANDBOXES": "3",
        "MAX_SNAPSHOTS": "0",
        "MAX_PERSISTENT": "0",
        "QUOTAS": '{"token:ada": {"sandboxes": 5}}',
        "MAX_TOTAL_SANDBOXES": "30",
        "MAX_TOTAL_MEMORY_MB": "64000",
        "MAX_CREATES": "2",
        "MAX_RUNS": "50",
        "MAX_TOTAL_RUNS": "70",
        "IDLE_TTL_S": "2.5",
        "MAX_LIFETIME_S": "60",
        "MEMORY_MB": "256",
        "CPUS": "0.5",
        "PIDS": "64",
        "DISK_MB": "100",
        "MAX_MEMORY_MB": "1024",
        "MAX_CPUS": "2",
        "MAX_PIDS": "256",
        "MAX_DISK_MB": "200",
        "MAX_SNAPSHOT_MB": "300",
        "MIN_FREE_MB": "0",
        "SPOOL_MB": "100",
        "POOL_MB": "0",
        "WARM_PYTHON": "false",
        "AUDIT": "off",
        "HOST_ROOTS": "/srv/data",
        "OUTPUT_BYTES": "4096",
        "HTTP_HOST": "::1",
        "HTTP_PORT": "0",
        "HTTP_PATH": "/box/mcp",
        "HTTP_ALLOWED_HOSTS": "box.example, box.example:80",
        "HTTP_ALLOWED_ORIGINS": "https://app.example",
        "HTTP_CORS_ORIGINS": "https://app.example,",
        "TOKEN": "secret",
        "TOKEN_FILE": "/etc/tokens",
        "OAUTH_ISSUER": "https://login.example",
        "OAUTH_SCOPES": "sandboxes, more",
        "HTTP_URL": "https://box.example/mcp",
        "HTTP_SESSION_IDLE_S": "300",
        "HTTP_MAX_SESSIONS": "5",
        "HTTP_MAX_SESSIONS_EACH": "2",
        "HTTP_MAX_CONNECTIONS": "50",
        "HTTP_MAX_CONNECTIONS_EACH": "20",
        "NETWORK_MAX": "packages, a.example",
        "NETWORK_CONNECTIONS": "10",
        "NETWORK_SENT_MB": "20",
        "NETWORK_RECEIVED_MB": "30",
        "PACKAGE_HOSTS": "files.example, more.example",
        "SECRETS_FILE": "/etc/secrets.json",
    }
    assert [variable for variable, _, _ in Settings.describe()] == [f"POCKET_DOCK_{name}" for name in given]
    dumped = settings(**given).model_dump()
    (quota,) = dumped.pop("quotas")
    found = [dumped[name.lower()] for name in given if name != "QUOTAS"]
    assert (quota["principal"], quota["sandboxes"], quota["snapshots"]) == ("token:ada", 5, None)
    assert [f"{value}" for value in found] == [
        *(
            "docker",
            "/var/lib/dock",
            "best-effort",
            "engine",
            "runsc",
            "agent",
            "3",
            "0",
            "0",
            "30",
            "64000",
            "2",
            "50",
            "70",
            "2.5",
            "60.0",
            "256",
            "0.5",
            "64",
        ),
        *(
            "100",
            "1024",
            "2.0",
            "256",
            "200",
            "300",
            "0",
            "100",
            "0",
            "False",
            "off",
            "(PosixPath('/srv/data'),)",
        ),
        *("4096", "::1", "0", "/box/mcp", "('box.example', 'box.example:80')"),
        *("('https://app.example',)", "('https://app.example',)", "**********", "/etc/tokens"),
        *("https://login.example", "('sandboxes', 'more')", "https://box.example/mcp"),
        *("300.0", "5", "2", "50", "20"),
        *(
            "('packages', 'a.example')",
            "10",
            "20",
            "30",
            "('files.example', 'more.example')",
            "/etc/secrets.json",
        ),
    ]


def test_an_empty_variable_counts_as_unset_and_space_does_not_count() -> None:
    assert settings(ENGINE="", PIDS="  ", NO_SUCH_THING="") == settings()
    assert settings(PIDS=" 64 ").pids == 64


def test_other_variables_are_none_of_our_business() -> None:
    environ = HOME | {"POCKET": "1", "pocket_dock_pids": "1", "XPOCKET_DOCK_PIDS": "1"}
    tooling = {"POCKET_DOCK_TEST_IMAGE": "x", "POCKET_DOCK_ENGINES_DIR": "/x"}
    assert Settings.from_environ(environ | tooling) == settings()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/state"}, "/state/pocket-dock"),
        ({"XDG_STATE_HOME": "state"}, "/home/ada/.local/state/pocket-dock"),
        ({"XDG_STATE_HOME": ""}, "/home/ada/.local/state/pocket-dock"),
        ({"XDG_STATE_HOME": "/state", "POCKET_DOCK_STATE_DIR": "/mine"}, "/mine"),
        ({"POCKET_DOCK_STATE_DIR": "~/mine"}, "/home/ada/mine"),
    ],
)
def test_where_the_state_is_kept(environ: dict[str, str], expected: str) -> None:
    assert Settings.from_environ(HOME | environ).state_dir == Path(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/srv/a", ("/srv/a",)),
        ("/srv/a:~/b:", ("/srv/a", "/home/ada/b")),
        ("/", ("/",)),
    ],
)
def test_where_volumes_may_be(given: str, expected: tuple[str, ...]) -> None:
    assert settings(HOST_ROOTS=given).host_roots == tuple(map(Path, expected))
    assert settings(HOST_ROOTS="").host_roots is None


def test_volumes_may_not_be_below_a_relative_path() -> None:
    assert mistake(HOST_ROOTS="/srv:data") == (
        "POCKET_DOCK_HOST_ROOTS is 'data'; valid is absolute paths with ':' between them."
    )


def test_without_a_home_the_users_entry_counts() -> None:
    assert Settings.from_environ({}).state_dir.is_absolute()


@pytest.mark.parametrize(
    ("name", "closest"),
    [("MEMORYMB", "MEMORY_MB"), ("MAX_SANDBOX", "MAX_SANDBOXES"), ("IDLE_TTL", "IDLE_TTL_S")],
)
def test_an_unknown_variable_is_named_with_the_closest_known_one(name: str, closest: str) -> None:
    assert mistake(**{name: "1"}) == (
        f"There is no setting POCKET_DOCK_{name}. Did you mean POCKET_DOCK_{closest}?"
    )


def test_an_unknown_variable_that_is_like_nothing_gets_the_whole_list() -> None:
    text = mistake(XYZZY="1")
    assert all(variable in text for variable, _, _ in Settings.describe())


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("LIMITS", "lax", "strict or best-effort"),
        ("MAX_SANDBOXES", "0", "a whole number from 1 to 1000"),
        ("MAX_SANDBOXES", "many", "a whole number from 1 to 1000"),
        ("MAX_SNAPSHOTS", "-1", "a whole number from 0 to 10000"),
        ("MAX_TOTAL_SANDBOXES", "0", "a whole number from 1 to 100000"),
        ("PIDS", "1.5", "a whole number from 16 to 4096"),
        ("MEMORY_MB", "512m", "a whole number from 32 to 1048576"),
        ("CPUS", "0", "a number from 0.05 to 1024"),
        ("CPUS", "nan", "a number from 0.05 to 1024"),
        ("MAX_CPUS", "inf", "a number from 0.05 to 1024"),
        ("IDLE_TTL_S", "30m", "a number from 1 to 31536000"),
        ("OUTPUT_BYTES", "9999999", "a whole number from 1024 to 65536"),
        ("STATE_DIR", "relative/path", "an absolute path"),
        ("SPOOL_MB", "0", "a whole number from 16 to 1048576"),
        ("WARM_PYTHON", "perhaps", "true or false"),
        ("HTTP_PATH", "mcp", "a path such as /mcp"),
        ("TOKEN_FILE", "tokens", "an absolute path"),
        ("SECRETS_FILE", "secrets", "an absolute path"),
        ("NETWORK_CONNECTIONS", "0", "a whole number from 1 to 1024"),
    ],
)
def test_a_bad_value_is_named_with_what_is_valid(name: str, value: str, valid: str) -> None:
    assert mistake(**{name: value}) == f"POCKET_DOCK_{name} is '{value}'; valid is {valid}."


@pytest.mark.parametrize(
    "value",
    [
        "4",
        "ada=4",
        "[]",
        '{"ada": 4}',
        '{"ada": {"sandboxes": "4"}}',
        '{"ada": {"sandboxes": -1}}',
        '{"ada": {"sandboxes": true}}',
        '{"ada": {"boxes": 4}}',
        '{"ada": {"principal": 4}}',
        "[" * 100_000,
    ],
)
def test_quotas_that_are_none_are_refused_with_an_example(value: str) -> None:
    text = mistake(QUOTAS=value, PIDS="1")
    assert text.startswith("POCKET_DOCK_QUOTAS is ")
    assert '{"token:ada": {"sandboxes": 4,' in text
    assert "POCKET_DOCK_PIDS" in text


def test_a_principal_has_what_its_quota_says_and_else_what_everybody_has() -> None:
    found = settings(
        QUOTAS='{"token:ada": {"sandboxes": 2, "memory_mb": 99}, "local": {"snapshots": 0, "persistent": 1}}',
        MAX_SANDBOXES="5",
    )
    ada, local, other = (found.quota_of(name) for name in ("token:ada", "local", "token:bob"))
    assert (ada.sandboxes, ada.memory_mb, ada.snapshots, ada.persistent) == (2, 99, 20, 20)
    assert (local.sandboxes, local.memory_mb, local.snapshots, local.persistent) == (5, None, 0, 1)
    assert (other.sandboxes, other.memory_mb, other.snapshots, other.persistent) == (5, None, 20, 20)
    hash(found)


def test_what_all_may_have_together_follows_from_what_one_may_have() -> None:
    found = settings(MAX_SANDBOXES="2", MAX_MEMORY_MB="1024")
    assert (found.total_sandboxes, found.total_memory_bytes) == (16, 2048 * 1024 * 1024)
    found = settings(MAX_TOTAL_SANDBOXES="3", MAX_TOTAL_MEMORY_MB="4096")
    assert (found.total_sandboxes, found.total_memory_bytes) == (3, 4096 * 1024 * 1024)


def test_all_mistakes_are_reported_at_once() -> None:
    text = mistake(PIDS="x", CPUS="y", MEMORYMB="1")
    for name in ("PIDS", "CPUS", "MEMORYMB"):
        assert f"POCKET_DOCK_{name}" in text


@pytest.mark.parametrize(
    ("name", "ceiling", "low", "high"),
    [
        ("MEMORY_MB", "MAX_MEMORY_MB", "256", "512"),
        ("CPUS", "MAX_CPUS", "0.5", "1"),
        ("PIDS", "MAX_PIDS", "64", "128"),
        ("DISK_MB", "MAX_DISK_MB", "2048", "4096"),
        ("IDLE_TTL_S", "MAX_LIFETIME_S", "600", "1800"),
    ],
)
def test_what_a_sandbox_gets_must_not_exceed_what_it_may_have(
    name: str, ceiling: str, low: str, high: str
) -> None:
    """Else the server would start, and refuse every sandbox that does not ask for less."""
    for variables in ({name: high, ceiling: low}, {ceiling: low}):
        text = mistake(**variables)
        assert f"POCKET_DOCK_{name} is {high}, and POCKET_DOCK_{ceiling} only {low}." in text
    assert settings(**{name: low, ceiling: low}) != settings()


def test_settings_do_not_change_and_take_no_others() -> None:
    found = settings()
    with pytest.raises(ValidationError):
        found.pids = 1
    with pytest.raises(ValidationError):
        Settings(state_dir=Path("/x"), pid=1)  # type: ignore[call-arg]  # the point


def test_the_smallest_valid_limits_are_limits_that_the_policy_accepts() -> None:
    least = settings(
        MEMORY_MB="32", CPUS="0.05", PIDS="16", MAX_MEMORY_MB="32", MAX_CPUS="0.05", MAX_PIDS="16",
        DISK_MB="16", MAX_DISK_MB="16",
    )  # fmt: skip
    policy.check_limits(
        Limits(
            memory_bytes=least.memory_mb * MIB,
            cpus=least.cpus,
            pids=least.pids,
            disk_bytes=least.disk_mb * MIB,
        ),
        max_memory_bytes=least.max_memory_mb * MIB,
        max_cpus=least.max_cpus,
        max_pids=least.max_pids,
        max_disk_bytes=least.max_disk_mb * MIB,
    )


def test_help_has_a_sentence_and_the_default_of_every_setting() -> None:
    described = Settings.describe()
    assert {f"POCKET_DOCK_{name.upper()}" for name in Settings.model_fields} == {row[0] for row in described}
    defaults = {variable: default for variable, default, _ in described}
    assert defaults["POCKET_DOCK_ENGINE"] == ""
    assert defaults["POCKET_DOCK_IDLE_TTL_S"] == "1800"
    assert "XDG_STATE_HOME" in defaults["POCKET_DOCK_STATE_DIR"]
    for _, _, meaning in described:
        assert re.fullmatch(r"[A-Z].*\.", meaning)
