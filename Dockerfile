# CPU:  docker build -t motionmae .
# CUDA: docker build -t motionmae --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
# Run:  docker run --rm --shm-size 8g -v "$PWD:/work" motionmae scan VIDEOS   (with --gpus all for CUDA)
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# A base without Python 3 gets the system's.
RUN command -v python3 >/dev/null && python3 -m venv --help >/dev/null 2>&1 \
    || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/motionmae
ENV PATH=/opt/motionmae/bin:$PATH

# pip's own index has PyTorch's CUDA build on Linux; --build-arg TORCH_INDEX=… names PyTorch's index of CPU wheels.
ARG TORCH_INDEX=
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE Makefile ./
COPY motionmae motionmae
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(sed -n 's/^TORCH := //p' Makefile)" \
    && pip install --no-cache-dir --no-deps --no-build-isolation .

RUN useradd --create-home motionmae
USER motionmae
WORKDIR /work
ENTRYPOINT ["motionmae"]
