# One image for the API, the pages and the workers: SERVES or the command says which (docs/operating.md).
# For the same bytes every time, add the digest: docker buildx imagetools inspect python:3.13-slim-bookworm shows it,
# and it is written python:3.13-slim-bookworm@sha256:…
FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="Muster" \
      org.opencontainers.image.description="The backend that a mobile app needs on day one" \
      org.opencontainers.image.licenses="MIT"

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
# The code stays root's: who runs it can read it and cannot change it, whatever umask the clone was made with. A named volume
# takes over the owner of the folder `data`.
RUN chmod -R u=rwX,go=rX alembic.ini requirements.lock app migrations scripts \
    && .venv/bin/python -m compileall -q app migrations scripts \
    && mkdir data \
    && chown "$UID:$UID" data

USER $UID:$UID
EXPOSE 8000
STOPSIGNAL SIGTERM
# podman leaves it out unless the image is built with --format docker.
HEALTHCHECK --interval=15s --timeout=3s --start-period=60s \
    CMD [".venv/bin/python", "-m", "scripts.is_live"]
# scripts/serve replaces itself by the server, which so gets the signal. It migrates at the start, not at the build.
CMD ["./scripts/serve"]
