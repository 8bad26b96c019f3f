# Two targets: `cpu` (default) runs on CPU devices; `nvidia` on the GPUs that the NVIDIA container toolkit hands in.
#   docker build --target cpu -t gpu-balancer .
#   docker build --target nvidia -t gpu-balancer:nvidia .
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md constraints.txt ./
COPY gpu_balancer gpu_balancer
COPY balancer balancer
COPY agents agents
RUN python -m venv /opt/gpu-balancer \
 && /opt/gpu-balancer/bin/pip install --no-cache-dir -c constraints.txt '.[server,otlp]'

FROM python:${PYTHON_VERSION}-slim-bookworm AS cpu
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/gpu-balancer --shell /usr/sbin/nologin gpu-balancer \
 && install -d -o gpu-balancer -g gpu-balancer -m 0700 /var/lib/gpu-balancer \
 && install -d -o gpu-balancer -g gpu-balancer /srv/media /srv/out /etc/gpu-balancer
COPY --from=build /opt/gpu-balancer /opt/gpu-balancer
ENV PATH=/opt/gpu-balancer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GPU_BALANCER_ADDRESS=unix:/var/lib/gpu-balancer/balancer.sock
USER gpu-balancer
VOLUME /var/lib/gpu-balancer
# Agents and their sessions are children of this container: stopping it gives outputs time to be completed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["gpu-balancer", "version", "--json"]
ENTRYPOINT ["gpu-balancerd", "--state-dir", "/var/lib/gpu-balancer"]

FROM cpu AS nvidia
# utility: NVML. compute: CUDA scaling. video: NVDEC and NVENC. Nothing more, so no graphics and no display.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video

# The last stage is what `docker build` makes when no target is named.
FROM cpu
