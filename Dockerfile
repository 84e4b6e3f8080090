# Debian, not Alpine: some wheels have no musl build. Two stages: the second has no compiler, no pip cache.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /app
COPY requirements/soulseek.lock requirements/
RUN /app/bin/pip install --no-cache-dir --require-hashes -r requirements/soulseek.lock
COPY pyproject.toml README.md LICENSE ./
COPY kima_stream kima_stream
COPY projections projections
COPY consumers consumers
COPY migrations migrations
RUN /app/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 1000 --user-group --home-dir /data kima && install -d -o kima -g kima -m 0700 /data
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH KIMA_DATA_DIR=/data KIMA_HOST=0.0.0.0 KIMA_LOG_FORMAT=json PYTHONUNBUFFERED=1
USER kima
VOLUME /data
EXPOSE 3006
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["kima-stream", "healthcheck"]
ENTRYPOINT ["kima-stream"]
CMD ["serve"]
