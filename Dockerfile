# docker build -t fast_nst .
# docker run --rm -v "$PWD/outputs:/app/outputs" fast_nst python scripts/train.py style=starry_night
FROM python:3.12-slim AS build
# The CPU's torch is a tenth of the size of the GPU's. For a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision || pip install --no-cache-dir torch torchvision
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY configs configs
COPY fast_nst fast_nst
RUN pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY scripts scripts
# Any user may run it (--user "$(id -u)"): caches go to /tmp, and torch asks for a user's name.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=fast_nst PYTHONUNBUFFERED=1
RUN mkdir outputs && chmod 777 . outputs
USER 1000
CMD ["fast-nst", "--help"]
