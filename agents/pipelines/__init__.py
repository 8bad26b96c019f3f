"""From a job and a device to the arguments of ffmpeg, and from what ffmpeg writes back to what became of the job.

Pure: values in, values out. Nothing here opens a file, starts a process, reads the environment or asks for the time, so
every decision about a pipeline can be tested without a device and explained without running it.
"""
