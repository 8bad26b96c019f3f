"""Where clients look for the daemon, and the rule that the daemon itself follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_balancer.client.addresses import find_address, socket_of
from gpu_balancer.runtime.default_paths import default_address, default_state_dir, socket_path


def test_the_argument_goes_before_the_environment() -> None:
    assert find_address("localhost:1", environment={"GPU_BALANCER_ADDRESS": "localhost:2"}) == "localhost:1"


def test_the_environment_goes_before_the_default() -> None:
    assert find_address(environment={"GPU_BALANCER_ADDRESS": "/run/b.sock"}) == "unix:/run/b.sock"


def test_the_default_is_the_socket_in_the_default_state_folder() -> None:
    assert find_address(environment={}) == default_address() == f"unix:{socket_path(default_state_dir())}"


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("unix:/a/b.sock", "unix:/a/b.sock"),
        ("unix:///a/b.sock", "unix:/a/b.sock"),
        ("/a/b.sock", "unix:/a/b.sock"),
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("localhost:50051", "localhost:50051"),
    ],
)
def test_an_address_is_a_socket_or_a_host_and_port(told: str, meant: str) -> None:
    assert find_address(told, environment={}) == meant


@pytest.mark.parametrize("told", ["localhost", "localhost:0", "localhost:99999", "unix:b.sock", "http://x:1", "a b:1"])
def test_anything_else_is_refused_with_what_to_try(told: str) -> None:
    with pytest.raises(ValueError, match=r"Try unix:/path or host:port"):
        find_address(told, environment={})


def test_only_a_unix_address_has_a_socket() -> None:
    assert socket_of("unix:/a/b.sock") == Path("/a/b.sock")
    assert socket_of("localhost:1") is None


def test_root_keeps_its_state_in_the_systems_folder() -> None:
    assert default_state_dir(environment={"XDG_STATE_HOME": "/x"}, user_id=0) == Path("/var/lib/gpu-balancer")


def test_a_user_keeps_state_where_xdg_says() -> None:
    assert default_state_dir(environment={"XDG_STATE_HOME": "/x"}, user_id=1000) == Path("/x/gpu-balancer")


@pytest.mark.parametrize("environment", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}])
def test_without_an_absolute_xdg_path_state_is_under_home(environment: dict[str, str]) -> None:
    made = default_state_dir(environment=environment, user_id=1000, home=Path("/home/ada"))
    assert made == Path("/home/ada/.local/state/gpu-balancer")
