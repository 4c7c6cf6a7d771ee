"""What the files of a project and its user can say, which of them counts, and how a mistake is reported."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.engine.endpoint import candidates
from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError
from pocket_dock_mcp.models import GIB, MIB
from pocket_dock_mcp.projects import (
    find_project_root,
    get_project_name,
    init_project,
    label,
    load_config,
    project_defaults,
)
from pocket_dock_mcp.projects.config import Configuration, ProjectConfig, read_file
from pocket_dock_mcp.projects.reading import MAX_BYTES
from pocket_dock_mcp.projects.sizes import byte_count


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home of its own, beside its project."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def project(tmp_path: Path, text: str | bytes) -> Path:
    """Return the root of a project whose file has this text."""
    root = tmp_path / "work"
    write(root, text)
    return root


def write(directory: Path, text: str | bytes) -> None:
    path = directory / ".pocket-dock" / "pocket-dock.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def load(tmp_path: Path, text: str | bytes) -> Configuration:
    return load_config(project(tmp_path, text))


def mistake(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(str(tmp_path), "")


# -- where a project is ------------------------------------------------------------------------------


def test_a_project_is_found_from_below_it_and_from_a_file(tmp_path: Path) -> None:
    root = project(tmp_path, "project_name: a\n")
    below = root / "deep" / "er"
    below.mkdir(parents=True)
    (below / "main.py").touch()

    assert find_project_root(below) == root
    assert find_project_root(below / "main.py") == root
    assert find_project_root(root) == root
    assert find_project_root(tmp_path) is None


def test_the_nearest_project_counts(tmp_path: Path) -> None:
    root = project(tmp_path, "")
    write(root / "inner", "")

    assert find_project_root(root / "inner") == root / "inner"


def test_the_working_directory_is_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path, "")
    monkeypatch.chdir(root)

    assert find_project_root() == root


def test_a_working_directory_that_is_gone_is_in_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert find_project_root() is None


def test_the_home_directory_is_no_project(home: Path) -> None:
    write(home, "default_profile: dev\n")

    assert find_project_root(home / "anything") is None
    with pytest.raises(InvalidArgumentError, match="home directory"):
        init_project(home)


@pytest.mark.parametrize("start", ["\0", "x" * 5000, "nowhere/at/all"])
def test_a_place_that_cannot_be_is_in_no_project(start: str, tmp_path: Path) -> None:
    assert find_project_root(tmp_path / start) is None


# -- making one --------------------------------------------------------------------------------------


def test_a_new_project_says_only_its_name_and_names_every_key(tmp_path: Path) -> None:
    root = init_project(tmp_path / "My Project!")
    text = (root / ".pocket-dock" / "pocket-dock.yaml").read_text()

    assert root == tmp_path / "My Project!"
    assert get_project_name(root) == "My-Project"
    assert set(load_config(root).origins) == {"project_name"}
    for name in ProjectConfig.model_fields:
        assert f"{label(name).rpartition('.')[2]}:" in text


def test_what_is_commented_out_in_a_new_project_is_the_default(tmp_path: Path) -> None:
    root = init_project(tmp_path / "p")
    path = root / ".pocket-dock" / "pocket-dock.yaml"
    lines = path.read_text().splitlines()
    # What begins with "#" and no space is configuration.
    path.write_text(
        "\n".join(
            line.replace("#", "", 1) if line.strip().startswith("#") and line.strip()[1] != " " else line
            for line in lines
        )
    )
    config = load_config(root).config
    said = config.model_dump(exclude={"project_name", "default_profile", "mem_limit", "cpu_percent", "env"})

    assert said == ProjectConfig().model_dump(include=set(said))
    assert (config.default_profile, config.mem_limit, config.cpu_percent) == ("minimal", 512 * MIB, 100)


def test_making_a_project_again_changes_nothing(tmp_path: Path) -> None:
    root = project(tmp_path, "project_name: mine # a comment\n")

    assert init_project(root) == root
    assert init_project(root, project_name="mine") == root
    assert (root / ".pocket-dock" / "pocket-dock.yaml").read_text() == "project_name: mine # a comment\n"
    assert "/instances/" in (root / ".pocket-dock" / ".gitignore").read_text()


def test_a_project_is_not_given_another_name_by_the_way(tmp_path: Path) -> None:
    root = project(tmp_path, "project_name: mine\n")

    with pytest.raises(InvalidArgumentError, match="'mine'"):
        init_project(root, project_name="other")


@pytest.mark.parametrize("name", ["yes", "123", "1e3", "null", "0x1f"])
def test_a_name_that_looks_like_something_else_is_a_name(name: str, tmp_path: Path) -> None:
    assert get_project_name(init_project(tmp_path / "p", project_name=name)) == name
    write(tmp_path / "q", f"project_name: {name}\n")
    if name != "null":
        assert load_config(tmp_path / "q").config.project_name == name


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "a\nb", "-a", "a" * 64, "ä", '"', "a: b"])
def test_a_name_that_is_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no name for a project"):
        init_project(tmp_path / "p", project_name=name)
    assert not (tmp_path / "p").exists()


def test_no_project_is_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / ".pocket-dock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(InvalidArgumentError, match="is a link"):
        init_project(tmp_path / "p")
    assert not list((tmp_path / "elsewhere").iterdir())


# -- what can be said --------------------------------------------------------------------------------

SAID: dict[str, tuple[str, Any]] = {
    "project_name": ("project_name: demo", "demo"),
    "default_profile": ("default_profile: dev", "dev"),
    "default_persist": ("default_persist: yes", True),
    "socket": ("socket: /run/x.sock", "unix:///run/x.sock"),
    "log_level": ("log_level: debug", "debug"),
    "auto_log": ("logging: {auto_log: false}", False),
    "log_stdout": ("logging: {log_stdout: off}", False),
    "log_stderr": ("logging: {log_stderr: false}", False),
    "max_log_size": ("logging: {max_log_size: 2 MiB}", 2 * MIB),
    "max_logs_per_instance": ("logging: {max_logs_per_instance: 3}", 3),
    "retention_days": ("logging: {retention_days: 7}", 7),
    "idle_timeout": ("containers: {idle_timeout: 90}", 90.0),
    "mem_limit": ("containers: {mem_limit: 1.5g}", 3 * GIB // 2),
    "cpu_percent": ("containers: {cpu_percent: 150}", 150.0),
    "network": ("containers: {network: open}", "open"),
    "env": ("containers: {env: {A: 0755, B: yes, C: '', D:}}", {"A": "0755", "B": "yes", "C": "", "D": ""}),
}


@pytest.mark.parametrize("name", list(ProjectConfig.model_fields))
def test_every_key_can_be_said(name: str, tmp_path: Path) -> None:
    text, value = SAID[name]
    loaded = load(tmp_path, f"# first\n{text}\n")

    assert getattr(loaded.config, name) == value
    assert loaded.origin(name).layer == "project"
    assert loaded.origin(name).place == f"{tmp_path}/work/.pocket-dock/pocket-dock.yaml:2"


@pytest.mark.parametrize("name", ["auto_log", "max_log_size", "max_logs_per_instance", "retention_days"])
def test_keys_of_logging_may_stand_at_the_top(name: str, tmp_path: Path) -> None:
    text, value = SAID[name]

    config = load(tmp_path, text.partition("{")[2].rstrip("}")).config

    assert getattr(config, name) == value


def test_an_empty_file_and_keys_without_a_value_say_nothing(tmp_path: Path) -> None:
    for text in ("", "\n", "# only this\n", "---\n", "socket:\nlogging:\ncontainers: ~\n"):
        assert load(tmp_path, text).config == ProjectConfig()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (True, "open"),
        (False, "none"),
        ("none", "none"),
        ("packages", "packages"),
        (["B.example", "*.a.example:8443"], ("*.a.example:8443", "b.example")),
    ],
)
def test_a_network_is_a_word_a_switch_or_domains(said: object, meant: object, tmp_path: Path) -> None:
    assert load(tmp_path, f"containers:\n  network: {str(said).lower()}\n").config.network == meant


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("10MB", 10 * MIB), ("10m", 10 * MIB), ("1.5 GiB", 3 * GIB // 2), ("2kb", 2048), ("3B", 3)],
)
def test_sizes(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1", "1 m b", "1e3", "inf", "1PB", "٣", "1.2.3"])
def test_what_is_no_size(text: str) -> None:
    assert byte_count(text) is None


# -- which counts ------------------------------------------------------------------------------------


def test_the_project_outweighs_the_user_who_outweighs_the_default(tmp_path: Path, home: Path) -> None:
    write(home, "default_profile: dev\nretention_days: 5\n")
    loaded = load(tmp_path, "default_profile: agent\n")

    assert (loaded.config.default_profile, loaded.origin("default_profile").layer) == ("agent", "project")
    assert (loaded.config.retention_days, loaded.origin("retention_days").layer) == (5, "user")
    assert (loaded.config.max_logs_per_instance, loaded.origin("max_logs_per_instance").layer) == (
        100,
        "default",
    )


def test_variables_of_a_project_are_added_to_those_of_its_user(tmp_path: Path, home: Path) -> None:
    write(home, "containers: {env: {A: user, B: user}}\n")

    assert load(tmp_path, "containers: {env: {B: project}}\n").config.env == {"A": "user", "B": "project"}


def test_the_users_file_counts_outside_of_projects_and_may_be_where_xdg_has_it(
    tmp_path: Path, home: Path
) -> None:
    write(home / ".config/x", "")
    xdg = home / ".config/pocket-dock/pocket-dock.yaml"
    xdg.parent.mkdir(parents=True)
    xdg.write_text("default_profile: node\n")

    assert project_defaults(tmp_path, {"HOME": str(home)}).profile == "node"
    write(home, "default_profile: dev\n")
    assert project_defaults(tmp_path, {"HOME": str(home)}).profile == "dev"


def test_a_user_has_no_name_for_all_projects(tmp_path: Path, home: Path) -> None:
    write(home, "project_name: mine\n")

    assert "is for the file of one project" in mistake(tmp_path, "")


def test_the_environment_outweighs_files(tmp_path: Path, home: Path) -> None:
    root = project(
        tmp_path,
        "default_profile: dev\nsocket: docker\n"
        "containers: {idle_timeout: 60, mem_limit: 64m, cpu_percent: 50, network: open, env: {A: b}}\n",
    )
    environ = {"HOME": str(home)}
    said = project_defaults(root / "below", environ)

    assert (said.root, said.project, said.profile, said.engine) == (root, "work", "dev", "docker")
    assert (said.idle_timeout, said.memory_bytes, said.cpu_percent) == (60, 64 * MIB, 50)
    assert (said.network, said.env, said.persist) == ("open", {"A": "b"}, False)
    assert said.environ(environ)["POCKET_DOCK_ENGINE"] == "docker"

    environ |= {
        "POCKET_DOCK_PROFILE": "node",
        "POCKET_DOCK_ENGINE": "podman",
        "POCKET_DOCK_IDLE_TTL_S": "99",
        "POCKET_DOCK_MEMORY_MB": "128",
        "POCKET_DOCK_CPUS": "2",
    }
    said = project_defaults(root, environ)

    assert (said.profile, said.engine) == ("node", "podman")
    assert (said.idle_timeout, said.memory_bytes, said.cpu_percent) == (99, 128 * MIB, 200)
    assert said.environ(environ) is environ
    assert {said.origins[key].layer for key in ("socket", "mem_limit", "cpu_percent", "idle_timeout")} == {
        "environment"
    }
    assert said.origins["socket"].place == "POCKET_DOCK_ENGINE"


def test_without_any_file_nothing_is_said(tmp_path: Path, home: Path) -> None:
    said = project_defaults(tmp_path, {"HOME": str(home)})

    assert (said.root, said.project, said.profile, said.engine, said.memory_bytes) == (None,) * 5


# -- mistakes ----------------------------------------------------------------------------------------

FILE = "/work/.pocket-dock/pocket-dock.yaml"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("\ndefault_profil: dev\n", "line 2, column 1", "Did you mean 'default_profile'?"),
        ("containers:\n  mem_limt: 1g\n", "line 2, column 3", "Did you mean 'containers.mem_limit'?"),
        ("mem_limit: 1g\n", "line 1, column 1", "Did you mean 'containers.mem_limit'?"),
        ("loging:\n  auto_log: true\n", "line 1, column 1", "Did you mean 'logging'?"),
        ("containers: {auto_log: true}\n", "line 1, column 14", "Did you mean 'logging.auto_log'?"),
        ("quite_else: 1\n", "line 1, column 1", "Known are project_name,"),
        (
            "default_persist: maybe\n",
            "line 1, column 18",
            "'default_persist' is 'maybe'; valid is true or false",
        ),
        ("default_persist: 1\n", "line 1, column 18", "valid is true or false"),
        ("retention_days: 1.5\n", "line 1, column 17", "valid is a whole number from 1 to 36500"),
        ("retention_days: 0\n", "line 1, column 17", "'logging.retention_days' is '0'"),
        ("retention_days: 99999999999999999999\n", "line 1, column 17", "a whole number"),
        ("logging: [auto_log]\n", "line 1, column 10", "has to be a section"),
        ("max_log_size: big\n", "line 1, column 15", "a size from 4KB to 1GB"),
        ("max_log_size: 100TB\n", "line 1, column 15", "a size from 4KB to 1GB"),
        ("log_level: loud\n", "line 1, column 12", "debug, info, warning or error"),
        ("socket: ssh://host\n", "line 1, column 9", "the path of a socket"),
        ("socket: [a]\n", "line 1, column 9", "is not one value"),
        ("project_name: a/b\n", "line 1, column 15", "letters, digits"),
        ("default_profile: ''\n", "line 1, column 18", "is empty"),
        ("containers: {network: host}\n", "line 1, column 23", "none or open"),
        ("containers: {cpu_percent: .inf}\n", "line 1, column 27", "a number from 5"),
        ("containers:\n  env: [A=b]\n", "line 2, column 8", "names and values"),
        ("containers:\n  env:\n    A: {b: c}\n", "line 3, column 8", "has to be one text"),
        ('containers: {env: {"A=B": c}}\n', "line 1, column 19", "names and values"),
        ("retention_days: 1\nlogging:\n  retention_days: 2\n", "line 3, column 3", "is set twice"),
        ("socket: a\nsocket: b\n", "line 2, column 1", "is there twice"),
        ("a: b: c\n", "line 1, column 5", "no YAML"),
        ("socket: 'x\n", "line 2, column 1", "no YAML"),
        ("\tsocket: x\n", "line 1, column 1", "no YAML"),
        ("just a text\n", "line 1, column 1", "'key: value'"),
        ("- a\n", "line 1, column 1", "'key: value'"),
        ("? [a]\n: b\n", "line 1, column 3", "A key has to be a word"),
        (b"socket: \xff\n", "line 1, column 9", "no UTF-8"),
        (b"socket: x\n\x00", "line 2, column 1", "does not allow"),
        ('socket: "\\UFFFFFFFF"\n', "line 1, column 1", "no YAML"),
        ("a: &x 1\nb: *x\n", "line 1, column 4", "Anchors and aliases"),
        ("!!python/object/apply:os.system [true]\n", "line 1, column 1", "Tags"),
        ("--- {}\n--- {}\n", "line 2, column 1", "second document"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str | bytes, place: str, words: str, tmp_path: Path) -> None:
    told = mistake(tmp_path, text)

    assert told.startswith(f"{FILE}, {place}: ")
    assert words in told


BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "[" * 60_000, "{" * 60_000, "- " * 30_000, "? " * 30_000, "- a\n" * 16_000, "x" * 10_000_000],
    ids=["aliases", "lists", "mappings", "sequences", "keys", "values", "size"],
)
def test_a_hostile_file_costs_a_moment(text: str, tmp_path: Path) -> None:
    before = time.process_time()
    told = mistake(tmp_path, text)

    assert time.process_time() - before < 2
    assert len(told) < 1000


def test_a_file_may_be_as_large_as_is_allowed(tmp_path: Path) -> None:
    text = "socket: docker\n"

    assert load(tmp_path, text + "#" * (MAX_BYTES - len(text))).config.socket == "docker"
    assert "more than 64 KiB" in mistake(tmp_path, text + "#" * MAX_BYTES)


def test_a_file_that_belongs_to_somebody_else_is_not_believed(tmp_path: Path) -> None:
    path = project(tmp_path, "socket: docker\n") / ".pocket-dock" / "pocket-dock.yaml"
    owner = path.stat().st_uid

    assert read_file(path, uid=owner)["socket"] == ("docker", 1)
    assert read_file(path, uid=0)
    if owner != 0:
        with pytest.raises(ConfigError, match="belongs to another user"):
            read_file(path, uid=owner + 1)
        return
    import os

    os.chown(path, 4321, -1)
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid 4321\)"):
        read_file(path, uid=4322)


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    root = project(tmp_path, "")
    path = root / ".pocket-dock" / "pocket-dock.yaml"
    path.unlink()
    os.mkfifo(path)

    assert find_project_root(root) is None
    assert load_config(root).config == ProjectConfig()


def test_an_engine_that_does_not_answer_is_told_with_who_names_it(tmp_path: Path, home: Path) -> None:
    root = project(tmp_path, "\nsocket: /nowhere.sock\n")
    said = project_defaults(root, {"HOME": str(home)})

    assert said.engine_named_by == f"'socket' ({root}/.pocket-dock/pocket-dock.yaml:2)"
    (endpoint,) = candidates(
        said.environ({}), uid=0, home=home, platform="linux", named_by=said.engine_named_by
    ).endpoints
    assert (endpoint.url, endpoint.source) == ("unix:///nowhere.sock", said.engine_named_by)
    assert project_defaults(tmp_path, {"HOME": str(home)}).engine_named_by == "POCKET_DOCK_ENGINE"
