# One image for the API, the pages and the workers: SERVES or the command says which (docs/operating.md).
# For the same bytes every time, add the digest: docker buildx imagetools inspect python:3.13-slim-bookworm shows it,
# and it is written python:3.13-slim-bookworm@sha256:…
FROM python:3.13-slim-bookworm

# Of no account of the system: Kubernetes can check a number, and nothing here has to be looked up by name.
ARG UID=10001
ENV HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=8000 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/muster

# The libraries, by hash: this layer is made again only when the lock file changes.
COPY requirements.lock ./
COPY scripts/common.sh scripts/venv ./scripts/
RUN ./scripts/venv requirements.lock

COPY alembic.ini ./
COPY migrations ./migrations
COPY scripts ./scripts
COPY app ./app
# The code stays root's, who runs it cannot change it. A named volume takes over the owner of this folder.
RUN .venv/bin/python -m compileall -q app migrations scripts && mkdir data && chown "$UID" data

USER $UID
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=60s \
    CMD [".venv/bin/python", "-m", "scripts.is_live"]
# scripts/serve replaces itself by the server, which so gets the signal. It migrates at the start, not at the build.
CMD ["./scripts/serve"]
