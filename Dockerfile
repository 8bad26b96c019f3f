# Two targets: `cpu` (default) runs on CPU devices; `nvidia` on the GPUs that the NVIDIA container toolkit hands in.
#   docker build --target cpu -t gpu-balancer .
#   docker build --target nvidia -t gpu-balancer:nvidia .
# Listens on loopback only, so its clients share its network (--network host) or its state folder's socket.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY gpu_balancer gpu_balancer
COPY balancer balancer
COPY agents agents
RUN python -m venv /opt/gpu-balancer \
 && /opt/gpu-balancer/bin/pip install --no-cache-dir -c constraints.txt '.[server,recording,s3,otlp]'

FROM python:${PYTHON_VERSION}-slim-bookworm AS cpu
# For recordings: displays, windows, sound, a browser, and letters of most scripts.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      xvfb openbox pulseaudio pulseaudio-utils chromium fonts-dejavu-core fonts-noto-core fonts-noto-color-emoji \
 && rm -rf /var/lib/apt/lists/*
# The uid is fixed, so that folders of the host can be given to it: chown 10001 out
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/gpu-balancer --shell /usr/sbin/nologin gpu-balancer \
 && install -d -o gpu-balancer -g gpu-balancer -m 0700 /var/lib/gpu-balancer \
 && install -d -o gpu-balancer -g gpu-balancer /srv/media /srv/out /etc/gpu-balancer
COPY --from=build /opt/gpu-balancer /opt/gpu-balancer
ENV PATH=/opt/gpu-balancer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GPU_BALANCER_ADDRESS=unix:/var/lib/gpu-balancer/balancer.sock
USER gpu-balancer
VOLUME /var/lib/gpu-balancer
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=15s --retries=3 CMD ["gpu-balancer", "devices", "--json"]
# A container takes its processes along when it ends, so sessions are stopped in order first: give it time (--stop-timeout 30).
ENTRYPOINT ["gpu-balancerd", "--state-dir", "/var/lib/gpu-balancer", "--stop-sessions-on-exit"]

FROM cpu AS nvidia
# utility: NVML. compute: CUDA scaling. video: NVDEC and NVENC. Nothing more, so no graphics and no display.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video

# The last stage is what `docker build` makes when no target is named.
FROM cpu
