"""What the operator's settings let sessions read and write, as the servicer asks for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agents.pipelines.job import UriInput
from agents.pipelines.recording import PageSource
from gpu_balancer.runtime.failures import Violation, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from agents.pipelines.job import InputFacts, JobInput, JobOutput
    from agents.pipelines.recording import RecordingJob
    from gpu_balancer.runtime.settings_sections import InputSettings, OutputSettings


class MediaGuards(Protocol):
    """What may be read and written, and what is there. MUST raise RequestFailure for what may not."""

    async def probe_input(self, source: JobInput, timeout: timedelta | None) -> InputFacts:
        """Tells what an input is. None: the operator's own bound of time."""
        ...

    async def guard_input(self, source: JobInput) -> JobInput:
        """Makes sure that an input may be read; gives it as it is to be opened, links and redirects followed."""
        ...

    async def guard_recording(self, job: RecordingJob) -> RecordingJob:
        """Makes sure that a page or application may be recorded; gives the job with its watermark's links followed."""
        ...

    async def check_outputs(self, outputs: Sequence[JobOutput], *, continued: bool = False) -> None:
        """Makes sure that outputs may be written, without writing them; or that a later attempt may go on with them."""
        ...


class SettingsGuards:
    """Implements `MediaGuards`."""

    def __init__(
        self,
        inputs: InputSettings,
        outputs: OutputSettings,
        *,
        url_schemes: Sequence[str],
        ffmpeg: Callable[[], str],
    ) -> None:
        """Makes guards.

        Args:
            inputs: The section [inputs].
            outputs: The section [outputs].
            url_schemes: Schemes of pages that may be recorded.
            ffmpeg: Gives the path of the program that inputs are opened with; raises RequestFailure while it is not
                known.
        """
        self._inputs = inputs
        self._outputs = outputs
        self._url_schemes = url_schemes
        self._ffmpeg = ffmpeg

    async def probe_input(self, source: JobInput, timeout: timedelta | None) -> InputFacts:
        """Tells what an input is. None: the operator's own bound of time."""
        from agents.media_access.input_probe import probe_input  # when it is needed: an idle agent stays small

        return await probe_input(source, self._inputs, self._ffmpeg(), timeout=timeout)

    async def guard_input(self, source: JobInput) -> JobInput:
        """Makes sure that an input may be read; gives it as it is to be opened, links and redirects followed."""
        from agents.media_access.input_probe import guard_input

        return await guard_input(source, self._inputs)

    async def guard_recording(self, job: RecordingJob) -> RecordingJob:
        """Makes sure that a page or application may be recorded; gives the job with its watermark's links followed."""
        from agents.browsers.page import PageFault
        from agents.browsers.page_url import guard_page_url
        from agents.media_access.input_probe import guard_input

        if isinstance(job.source, PageSource):
            try:
                guard_page_url(job.source.url, self._url_schemes)
            except PageFault as fault:
                violation = Violation(field="session.recording.page.url", description=str(fault))
                raise invalid(violation) from fault
        if job.watermark is None:
            return job
        source = await guard_input(UriInput(uri=job.watermark.path), self._inputs)
        assert isinstance(source, UriInput)
        return replace(job, watermark=replace(job.watermark, path=source.uri))

    async def check_outputs(self, outputs: Sequence[JobOutput], *, continued: bool = False) -> None:
        """Makes sure that outputs may be written, without writing them; or that a later attempt may go on with them."""
        from agents.media_access.outputs import check_outputs

        await check_outputs(outputs, self._outputs, continued=continued)
