# The server with its page, weights and native kernels. See docs/DEPLOYMENT.md, "Containers".
#
#   docker build -t anytime-dense .
#   docker run --rm -p 127.0.0.1:8000:8000 anytime-dense
#
# PyTorch is the large part. PIP_EXTRA_INDEX_URL may name an index that has a CPU build of the version
# in constraints.txt; without it pip takes the default build, which brings CUDA.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# The compiler stays in this stage; any version of Debian 12 will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/anytime
ENV PATH=/opt/anytime/bin:$PATH
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# What the project depends on comes first, so that a change of its own code installs none of it again.
ARG PIP_EXTRA_INDEX_URL=
COPY pyproject.toml constraints.txt ./
COPY deploy/dependencies.py deploy/
# "ray" for replicas on Ray Serve.
ARG EXTRA=server
RUN python deploy/dependencies.py "${EXTRA}" > dependencies.txt \
    && pip install -c constraints.txt -r dependencies.txt
COPY README.md LICENSE ./
COPY client/anytime_protocol client/anytime_protocol
COPY client/anytime_client client/anytime_client
COPY client/anytime_programs.py client/anytime_programs.py
COPY client/web client/web
COPY model model
COPY server server
RUN pip install -c constraints.txt ".[${EXTRA}]" \
    && ANYTIME_KERNEL_CACHE=/opt/anytime/kernels python -m anytime_model.kernels.build

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin anytime
COPY --from=build /opt/anytime /opt/anytime
COPY weights /app/weights
ENV PATH=/opt/anytime/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ANYTIME_KERNEL_CACHE=/opt/anytime/kernels \
    ANYTIME_HOST=0.0.0.0 \
    ANYTIME_PORT=8000 \
    ANYTIME_WEIGHTS=/app/weights
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"ANYTIME_PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["anytime-server"]
CMD ["serve"]
