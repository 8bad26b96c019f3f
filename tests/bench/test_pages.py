"""The pages are served, and what they draw can be read back from a real recording of them."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.analysis.sound_offset import flash_times_s, measure_sound_offset
from bench.analysis.strip import count_frames, first_drawing_time_s, read_strip
from bench.naive_recorder import missing_programs, naive_recording
from bench.pages.film import make_film
from bench.pages.server import FILES, serve_pages
from bench.recording_sessions import display_processes


def test_every_page_is_served_fresh_and_nothing_else_is() -> None:
    with serve_pages() as server:
        for name, path in FILES.items():
            with urllib.request.urlopen(server.origin + name) as answer:
                assert answer.read() == path.read_bytes()
                assert answer.headers["Cache-Control"] == "no-store"
        for name in ("/", "/server.py", "/../pages/server.py"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(server.origin + name)
            refused.value.close()
        assert server.url("counter", rate=30) == f"{server.origin}/counter.html?rate=30"
        with pytest.raises(ValueError, match="no such page"):
            server.url("nothing")


@pytest.mark.process
def test_the_film_flashes_and_beeps_at_the_same_instants_and_is_served(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", seconds=5)
    assert np.diff(flash_times_s(film)).tolist() == pytest.approx([51 / 50] * 3, abs=0.001)
    assert np.abs(measure_sound_offset(film).offsets_s).max() < 0.003
    with serve_pages() as server:
        server.add_film(film)
        with urllib.request.urlopen(f"{server.origin}/film.mp4") as answer:
            assert answer.read() == film.read_bytes()


@pytest.mark.process
@pytest.mark.skipif(bool(missing_programs()), reason=f"needs {', '.join(missing_programs())}")
def test_what_a_browser_draws_is_read_back(tmp_path: Path) -> None:
    asked_s = time.time()
    film = tmp_path / "film.mp4"
    with serve_pages() as server:
        page = server.url("counter", shapes=5)
        with naive_recording(page, film, seconds=3, width=640, height=360) as recording:
            server_process, *_, recorder = (psutil.Process(process.pid) for process in recording.processes)
            assert display_processes(recorder, "Xvfb") == [server_process]
            browser = display_processes(recorder, "chrom")
            recording.await_file()
        assert browser[0].pid == recording.processes[2].pid
    reading = read_strip(film)
    found = count_frames(reading, frame_rate=30)
    assert found.frames > 20
    assert found.unreadable == 0
    assert found.backwards == 0
    assert asked_s < first_drawing_time_s(reading, after_s=asked_s) < time.time()
