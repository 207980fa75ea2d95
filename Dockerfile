# docker build -t fast_nst .
# docker run --rm -v "$PWD/outputs:/app/outputs" fast_nst python scripts/train.py style=starry_night
FROM python:3.12-slim AS build
# TORCH_INDEX: the index of PyTorch's CPU wheels, a tenth of the size (pytorch.org, "Get started"); empty: pip's own index.
ARG TORCH_INDEX=
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY configs configs
COPY fast_nst fast_nst
RUN pip install --no-cache-dir ".[train]"

FROM python:3.12-slim
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY scripts scripts
# Any user may run it (--user "$(id -u)"): caches go to /tmp, and torch asks for a user's name.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=fast_nst PYTHONUNBUFFERED=1
RUN mkdir outputs && chmod 777 . outputs
USER 1000
CMD ["fast-nst", "--help"]
