"""The pages that a sound calibration records: flashes and beeps that belong together, in the three ways of pages.

A film's sound and picture are kept together by the browser, which knows how late its sound is heard. A page that draws
to its own sound does so when that is handed over to Web Audio, or when that tells it to be heard. Drawing takes its
time, more of it where something moves all the time, as in such pages it does.
"""

from __future__ import annotations

from base64 import b64encode
from string import Template

from agents.pipelines.sound_offsets import BEEP_S, FLASH_S

_PERIOD_S = 0.69
"""From beep to beep: 20.7 pictures of a recording at 30 a second, so that flashes fall on ten places between two."""

_FILM = Template("""<!doctype html>
<style>html, body { margin: 0; height: 100%; overflow: hidden; background: #000 }
video { position: fixed; inset: 0; width: 100vw; height: 100vh; object-fit: fill }</style>
<video src="data:video/webm;base64,$film" autoplay></video>
""")

_DRAWING = Template("""<!doctype html>
<style>html, body { margin: 0; height: 100%; overflow: hidden; background: #000 }
canvas { position: fixed; left: 0; bottom: 0; width: 100vw; height: 12vh }</style>
<body><canvas width="320" height="20"></canvas><script>
const pen = document.querySelector("canvas").getContext("2d");
const audio = new AudioContext({ latencyHint: "interactive" });
let next = 1, scheduled = 1 - $period, whiteUntil = 0;
function beepAt(instant) {
  const tone = audio.createOscillator(), gate = audio.createGain();
  tone.frequency.value = 2000;
  gate.gain.setValueAtTime(0.5, instant);
  tone.connect(gate).connect(audio.destination);
  tone.start(instant);
  tone.stop(instant + $beep);
}
function currentTime() {
  if (!$heard) return audio.currentTime;
  const output = audio.getOutputTimestamp();
  return output.contextTime + (performance.now() - output.performanceTime) / 1000;
}
function tick(time) {
  requestAnimationFrame(tick);
  const now = currentTime();
  while (scheduled < now + 2) beepAt(scheduled += $period);
  if (now >= next) {
    next += $period;
    whiteUntil = time + $flash * 1000;
  }
  document.body.style.background = time < whiteUntil ? "#fff" : "#000";
  pen.clearRect(0, 0, 320, 20);
  pen.fillStyle = "#888";
  pen.fillRect((time / 5) % 320, 0, 20, 20);
}
requestAnimationFrame(tick);
</script></body>
""")


def film_page(film: bytes) -> str:
    """Gives a page that plays a film, a WebM file."""
    return _FILM.substitute(film=b64encode(film).decode())


def drawing_page(*, heard: bool) -> str:
    """Gives a page that flashes to the beeps of its Web Audio.

    Args:
        heard: When they are heard, as far as Web Audio knows. Otherwise when they are handed over to it.
    """
    return _DRAWING.substitute(period=_PERIOD_S, beep=BEEP_S, flash=FLASH_S, heard=str(heard).lower())
