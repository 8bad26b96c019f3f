"""The pool lends displays that work, each once, no more than it may, and leaves nothing of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from display_rig import (
    SLEEP,
    descriptor_count,
    environment_of,
    files_below,
    is_root,
    kill,
    open_window,
    opened_pool,
    process_of,
    processes_of,
    short_folder,
    status_of,
    traces_of,
    x_connection,
)

from agents.displays.display import BrowserEndpoint, Display, DisplayUnavailable
from agents.displays.display_folder import DisplayFolder
from agents.displays.screens import await_window, screen_size
from agents.displays.spawning import BROWSER, CAPTURE_GATE, SOUND_SERVER, WINDOW_MANAGER, X_SERVER
from agents.displays.x_sockets import gate_of, socket_of
from fakes.precedence import is_allowed, nice_of

pytestmark = pytest.mark.process
SOON = timedelta(seconds=0.2)
WITHIN = timedelta(seconds=30)


async def test_a_display_is_lent_with_all_that_was_asked_for(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir) as rig:
        display = await rig.acquire(width=800, height=600, sound=True)
        assert (display.width, display.height) == (800, 600)
        assert await screen_size(display, within=WITHIN) == (800, 600)
        assert display.browser == BrowserEndpoint(url="http://127.0.0.1:1", name="Sleeper 1")
        assert display.sound_server == f"unix:{display.work}/sound"
        names = {name for name, _ in DisplayFolder(path=Path(display.lock).parent).read_processes()}
        assert names == {X_SERVER, WINDOW_MANAGER, CAPTURE_GATE, SOUND_SERVER, BROWSER}
        assert rig.pool.find(display.id) == display
        assert rig.pool.alive(display.id)
        await rig.pool.release(display.id)
        assert rig.pool.find(display.id) is None
        assert not rig.pool.alive(display.id)


async def test_a_display_for_an_application_has_no_browser_and_runs_programs(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, with_browser=False) as rig:
        display = await rig.acquire(browser=False)
        assert display.browser is None
        assert display.sound_server is None
        pid = await rig.pool.spawn(display, [SLEEP, "1000"], name="application", environment={"EXTRA": "1"})
        assert pid in processes_of(display)
        assert {"EXTRA=1", f"DISPLAY={display.name}", f"HOME={display.work}/home"} <= environment_of(pid)
        await rig.pool.release(display.id)
        assert traces_of(display) == []
        with pytest.raises(DisplayUnavailable, match="its display is gone"):
            await rig.pool.spawn(display, [SLEEP, "1000"], name="application")


async def test_nothing_is_left_of_a_display_that_was_given_back(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir) as rig:
        display = await rig.acquire(sound=True)
        # One that let go of the lock, and one that is nobody's child any more.
        script = f"for fd in 3 4 5 6 7 8 9; do eval exec $fd'>&-'; done; {SLEEP} 1000 & {SLEEP} 1000 & exit"
        await rig.pool.spawn(display, ["/bin/sh", "-c", script], name="leaver")
        (Path(display.work) / "tmp" / "rest").write_text("rest")
        await asyncio.gather(rig.pool.release(display.id), rig.pool.release(display.id))
        assert traces_of(display) == []
        await rig.pool.release(display.id)
        assert rig.pool.ability().used_display_count == 0
    assert files_below(run_dir) == files_below(root) == []


async def test_processes_know_nothing_of_the_agents_environment(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "hunter2")
    async with opened_pool(root, run_dir) as rig:
        display = await rig.acquire(sound=True)
        for pid in processes_of(display):
            environment = environment_of(pid)
            assert "CLOUD_SECRET=hunter2" not in environment
            assert f"GPU_BALANCER_OWNER={display.environment['GPU_BALANCER_OWNER']}" in environment
        assert "CLOUD_SECRET" not in display.environment
        await rig.pool.release(display.id)


@pytest.mark.skipif(not is_root, reason="only root has users for displays")
async def test_each_display_has_a_user_of_its_own_and_nobody_else_may_look_in(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, user_ids="61300-61310") as rig:
        displays = [await rig.acquire() for _ in range(2)]
        assert len({display.user_id for display in displays}) == 2
        for display in displays:
            assert display.user_id in range(61300, 61311)
            for pid in processes_of(display):
                status = status_of(pid)
                identity = "\t".join([str(display.user_id)] * 4)
                assert f"Uid:\t{identity}\n" in status
                assert f"Gid:\t{identity}\n" in status
                assert "Groups:\t \n" in status
            for path in (Path(display.work), Path(display.authority)):
                assert path.stat().st_uid == display.user_id
                assert path.stat().st_mode & 0o077 == 0
            await rig.pool.release(display.id)


async def test_a_warm_display_is_lent_once_in_the_size_wished_and_replaced(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (warm,) = rig.browsers_started
        display = await rig.acquire(width=1920, height=1080, sound=True)
        assert display.id == warm.id
        assert await screen_size(display, within=WITHIN) == (1920, 1080)
        record = DisplayFolder(path=Path(display.lock).parent).read_record()
        assert record.display == display
        await rig.pool.release(display.id)
        await rig.warm()
        assert (await rig.acquire()).id != display.id


@pytest.mark.skipif(not is_allowed(), reason="precedence is not allowed here")
async def test_displays_have_precedence_from_when_somebody_wants_them(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (warm,) = rig.browsers_started
        assert {nice_of(pid) for pid in processes_of(warm)} == {0}
        display = await rig.acquire()
        assert display.id == warm.id
        assert {nice_of(pid) for pid in processes_of(display)} == {-10}
        made = await rig.acquire(browser=False)
        assert {nice_of(pid) for pid in processes_of(made)} == {-10}
    async with opened_pool(root, run_dir, used=(display.id,)) as rig:
        application = await rig.pool.spawn(display, [SLEEP, "1000"], name="application")
        assert nice_of(application) == -10
        await rig.pool.release(display.id)


async def test_nothing_is_made_ahead_before_a_first_recording_came(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, warm_displays=1) as rig:
        assert rig.pool.ability().ready_display_count == 0
        await rig.acquire()
        await rig.warm()
        assert len(rig.browsers_started) == 2


async def test_who_comes_while_a_warm_display_is_made_gets_that_one(root: Path, run_dir: Path) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()
    started: list[str] = []

    async def slow_browser(display: Display) -> BrowserEndpoint:
        started.append(display.id)
        begun.set()
        await go_on.wait()
        await rig.pool.spawn(display, [SLEEP, "1000"], name=BROWSER)
        return BrowserEndpoint(url="http://127.0.0.1:1", name="Sleeper 1")

    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True, start_browser=slow_browser) as rig:
        await begun.wait()
        assert not rig.pool.is_awaited(started[0])
        acquiring = asyncio.create_task(rig.acquire())
        while not rig.pool.is_awaited(started[0]):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
        go_on.set()
        assert (await acquiring).id == started[0]
        assert not rig.pool.is_awaited(started[0])


@pytest.mark.parametrize("name", [X_SERVER, WINDOW_MANAGER, CAPTURE_GATE, BROWSER])
async def test_a_dead_warm_display_is_never_lent(root: Path, run_dir: Path, name: str) -> None:
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (dead,) = rig.browsers_started
        kill(dead, name)
        display = await rig.acquire()
        assert display.id != dead.id
        assert rig.pool.alive(display.id)
        await rig.until(lambda: traces_of(dead) == [])


async def test_a_warm_display_counts_as_ready_when_it_has_settled_but_is_lent_before(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.displays.warming.SETTLED_AFTER", timedelta(hours=1))
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.until(lambda: len(rig.browsers_started) == 1)
        young = await rig.acquire()
        assert rig.pool.ability().ready_display_count == 0
        assert young.id == rig.browsers_started[0].id
        monkeypatch.setattr("agents.displays.warming.SETTLED_AFTER", timedelta(seconds=0.1))
        await rig.warm()
        assert [display.id for display in rig.browsers_started][:1] == [young.id]


async def test_a_dead_warm_display_is_replaced_when_that_is_seen(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.displays.warming.CHECK_EVERY", timedelta(seconds=0.05))
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (dead,) = rig.browsers_started
        kill(dead, X_SERVER)
        await rig.until(lambda: len(rig.browsers_started) == 2)
        await rig.warm()
        assert traces_of(dead) == []


async def test_a_warm_display_that_cannot_be_recorded_any_more_is_not_lent(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (warm,) = rig.browsers_started
        socket_of(gate_of(warm.name)).unlink()
        assert (await rig.acquire()).id != warm.id


async def test_a_warm_display_whose_server_hangs_is_not_lent(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.displays.pool._ANSWER_WITHIN", SOON)
    async with opened_pool(root, run_dir, warm_displays=1, prewarm=True) as rig:
        await rig.warm()
        (hanging,) = rig.browsers_started
        os.kill(process_of(hanging, X_SERVER), signal.SIGSTOP)
        assert (await rig.acquire()).id != hanging.id


async def test_who_finds_all_in_use_waits_and_is_told_in_time(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, displays=1) as rig:
        display = await rig.acquire()
        with pytest.raises(DisplayUnavailable, match=r"within 0\.2 s: all 1 are in use. Try later") as unavailable:
            await rig.acquire(timeout=SOON)
        assert unavailable.value.reason == "DISPLAY_TIMEOUT"
        waiting = asyncio.create_task(rig.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        await rig.pool.release(display.id)
        assert (await waiting).id != display.id
        assert rig.pool.ability().used_display_count == 1


async def test_a_mistake_in_making_a_display_is_told_and_costs_no_other(root: Path, run_dir: Path) -> None:
    faults = iter(range(1))

    async def unforeseen(display: Display) -> BrowserEndpoint:
        if next(faults, None) is not None:
            raise KeyError("unforeseen")
        await rig.pool.spawn(display, [SLEEP, "1000"], name=BROWSER)
        return BrowserEndpoint(url="http://127.0.0.1:1", name="Sleeper 1")

    async with opened_pool(root, run_dir, start_browser=unforeseen) as rig:
        with pytest.raises(DisplayUnavailable, match="KeyError") as unavailable:
            await rig.acquire()
        assert unavailable.value.reason == "DISPLAY_FAILED"
        assert rig.pool.ability().used_display_count == 0
        await rig.pool.release((await rig.acquire()).id)
    assert files_below(root) == files_below(run_dir) == []


async def test_a_display_that_takes_too_long_is_given_up_and_nothing_of_it_stays(root: Path, run_dir: Path) -> None:
    seen: list[Display] = []
    begun = asyncio.Event()

    async def endless_browser(display: Display) -> BrowserEndpoint:
        await rig.pool.spawn(display, [SLEEP, "1000"], name=BROWSER)
        seen.append(display)
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with opened_pool(root, run_dir, start_browser=endless_browser) as rig:
        acquiring = asyncio.create_task(rig.acquire(timeout=timedelta(seconds=5)))
        await begun.wait()
        acquiring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acquiring
        with pytest.raises(DisplayUnavailable, match="making one takes longer"):
            await rig.acquire(timeout=SOON)
        assert rig.pool.ability().used_display_count == 0
    assert [trace for display in seen for trace in traces_of(display)] == []


async def test_a_browser_that_cannot_start_is_told_and_leaves_nothing(root: Path, run_dir: Path) -> None:
    seen: list[Display] = []

    async def failing_browser(display: Display) -> BrowserEndpoint:
        seen.append(display)
        raise DisplayUnavailable("BROWSER_FAILED", "Cannot start the browser: it crashed. Try another one.")

    async with opened_pool(root, run_dir, start_browser=failing_browser) as rig:
        with pytest.raises(DisplayUnavailable, match="it crashed") as unavailable:
            await rig.acquire(sound=True)
        assert unavailable.value.reason == "BROWSER_FAILED"
        assert rig.pool.ability().fault_message == "Cannot start the browser: it crashed. Try another one."
        assert traces_of(seen[0]) == []
        assert files_below(root) == []


async def test_without_a_browser_pages_are_refused(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, with_browser=False, warm_displays=1) as rig:
        with pytest.raises(DisplayUnavailable, match="there is no browser") as unavailable:
            await rig.acquire()
        assert unavailable.value.reason == "BROWSER_MISSING"


async def test_without_a_sound_server_there_is_no_sound_and_that_is_said(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_folder() as folder:
        folder.chmod(0o755)
        for program in ("Xvfb", "openbox", "xkbcomp", "sh"):
            found = shutil.which(program)
            if found is not None:
                (folder / program).symlink_to(found)
        monkeypatch.setenv("PATH", str(folder))
        async with opened_pool(root, run_dir) as rig:
            ability = rig.pool.ability()
            assert (ability.available, ability.sound) == (True, False)
            assert "pulseaudio is not installed. Try apt-get install pulseaudio" in ability.sound_fault_message
            display = await rig.acquire(sound=True)
            assert display.sound_server is None
            await rig.pool.release(display.id)


@pytest.mark.parametrize(("present", "advice"), [((), "apt-get install xvfb"), (("Xvfb",), "apt-get install openbox")])
async def test_without_its_programs_the_pool_says_what_to_install(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], advice: str
) -> None:
    with short_folder() as folder:
        for program in present:
            (folder / program).symlink_to(str(shutil.which(program)))
        monkeypatch.setenv("PATH", str(folder))
        async with opened_pool(root, run_dir, prewarm=True, warm_displays=1) as rig:
            assert not rig.pool.ability().available
            assert advice in rig.pool.ability().fault_message
            with pytest.raises(DisplayUnavailable, match=advice) as unavailable:
                await rig.acquire()
            assert unavailable.value.reason == "RECORDING_UNAVAILABLE"


async def test_without_xcffib_the_pool_says_what_to_install(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    async with opened_pool(root, run_dir) as rig:
        assert "pip install 'gpu-balancer[server,recording]'" in rig.pool.ability().fault_message


async def test_a_pool_that_is_switched_off_or_blocked_says_why(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, enabled=False) as rig:
        with pytest.raises(DisplayUnavailable, match=r"switched off. Try enabled = true in \[recordings\]"):
            await rig.acquire()
    async with opened_pool(root, run_dir) as rig:
        rig.pool.set_blocked("Cannot record: the disk is full. Try to free some.")
        assert rig.pool.ability().fault_message == "Cannot record: the disk is full. Try to free some."
        with pytest.raises(DisplayUnavailable, match="the disk is full"):
            await rig.acquire()
        rig.pool.set_blocked(None)
        assert rig.pool.ability().available


async def test_a_run_folder_that_cannot_be_used_is_told_and_nothing_fails(root: Path, run_dir: Path) -> None:
    (run_dir / "file").write_text("")
    async with opened_pool(root, run_dir / "file") as rig:
        assert not rig.pool.ability().available
        assert "Try another recordings.run_dir" in rig.pool.ability().fault_message


@pytest.mark.parametrize(("width", "height"), [(0, 0), (-1, 720), (20_000, 720), (1280, 2**40)])
async def test_a_size_that_cannot_be_is_refused(root: Path, run_dir: Path, width: int, height: int) -> None:
    async with opened_pool(root, run_dir) as rig:
        with pytest.raises(DisplayUnavailable, match="the largest is 1920x2160"):
            await rig.acquire(width=width, height=height)
        with pytest.raises(ValueError, match="no display's id"):
            await rig.pool.release("../../etc")


async def test_an_odd_size_works(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir) as rig:
        display = await rig.acquire(width=641, height=1)
        assert await screen_size(display, within=WITHIN) == (641, 1)


async def test_a_display_whose_server_or_browser_ended_is_dead(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir) as rig:
        for name in (X_SERVER, BROWSER):
            display = await rig.acquire()
            kill(display, name)
            assert not rig.pool.alive(display.id)
            await rig.pool.release(display.id)
            assert traces_of(display) == []


async def test_an_applications_window_is_awaited_on_a_lent_display(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir) as rig:
        display = await rig.acquire(browser=False)
        with x_connection(display) as connection:
            open_window(connection, 10, 10)
            (window,) = await await_window(display, within=WITHIN)
            assert window.width > 1


async def test_many_come_and_go_and_nothing_is_left(root: Path, run_dir: Path) -> None:
    used: list[Display] = []
    descriptors = descriptor_count()

    async def come_and_go() -> None:
        display = await rig.acquire(timeout=timedelta(seconds=60))
        used.append(display)
        await rig.pool.release(display.id)

    async with opened_pool(root, run_dir, displays=3, warm_displays=1) as rig:
        await asyncio.gather(*(come_and_go() for _ in range(12)))
    assert len({display.id for display in used}) == 12
    assert [trace for display in used for trace in traces_of(display)] == []
    assert files_below(root) == []
    assert descriptor_count() == descriptors
