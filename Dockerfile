# One image for every stage: docker build -t neighbourhood . ; the command says which stage runs.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/nhood
COPY requirements.lock ./
RUN /opt/nhood/bin/pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes -r requirements.lock
COPY pyproject.toml README.md topics.yaml ./
COPY schemas schemas
COPY wire wire
COPY token_vault token_vault
COPY ingest ingest
COPY router router
COPY executors executors
COPY control control
COPY nhood nhood
RUN /opt/nhood/bin/pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home nhood \
    && install -d -o nhood -g nhood -m 0700 /keys
COPY --from=build /opt/nhood /opt/nhood
ENV PATH=/opt/nhood/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NHOOD_HOST=0.0.0.0 \
    NHOOD_OPS_PORT=9100 \
    NHOOD_STATE_DIR=/tmp/nhood
USER nhood
ENTRYPOINT ["nhood"]
CMD ["--help"]
