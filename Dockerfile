# One image for every service: workers, sweeper and API differ in their command alone.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 REELSENSE_DATA=/data REELSENSE_CACHE=/cache NUMBA_CACHE_DIR=/cache/numba
# A CPU index for torch, where one is at hand, keeps the image small: --build-arg TORCH_INDEX=...
ARG TORCH_INDEX=""
WORKDIR /app
COPY pyproject.toml constraints.txt requirements.py README.md ./
COPY app app
COPY encoders encoders
COPY fusion fusion
COPY ranker ranker
COPY store store
COPY workers workers
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" -c constraints.txt torch torchvision; fi \
    && pip install -c constraints.txt . \
    && python requirements.py --without-dependencies | xargs pip install --no-deps \
    && useradd --create-home --uid 10001 reelsense \
    && mkdir -p /data /cache && chown reelsense /data /cache
USER reelsense
CMD ["reelsense", "--help"]
