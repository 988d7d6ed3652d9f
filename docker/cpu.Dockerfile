# bobrt without a GPU, for CI: trains, exports, benches on the CPU, and builds TensorRT-RTX engines.
#
#   docker build -f docker/cpu.Dockerfile -t bobrt:cpu .

# A tag may move. docker/README.md says how to pin what it is today: BASE=python@sha256:...
ARG BASE=python:3.12-slim
FROM ${BASE}

# `torch-compile` has its kernels compiled. The compiler is the distribution's: the base decides its version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/bobrt
# The dependencies first: their layer changes with the pins, not with every line of code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/install.py docker/
COPY bobrt/__init__.py bobrt/
# PyTorch's usual wheel brings CUDA, some gigabytes; an index with CPU builds of the same version leaves it out.
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip python3 docker/install.py train,quant,rtx,loadgen,diffusion,hub,report
COPY bobrt bobrt
COPY bench bench
COPY engines engines
COPY train train
RUN python3 -m pip install --no-cache-dir --no-deps --force-reinstall . \
    && bobrt doctor torch ort-cpu
COPY docker/smoke.sh docker/

ARG UID=1000
RUN useradd --no-log-init --non-unique --uid "${UID}" --create-home bobrt \
    && install -d -m 1777 /cache /results \
    && chmod 1777 /home/bobrt
ENV HOME=/home/bobrt \
    USER=bobrt \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    TORCH_HOME=/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    BOBRT_RESULTS=/results
VOLUME ["/cache", "/results"]
USER ${UID}
WORKDIR /home/bobrt

ARG REVISION=unknown
LABEL org.opencontainers.image.title="bobrt cpu" \
      org.opencontainers.image.description="Battle of the backbones on engines, for machines without a GPU" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.revision="${REVISION}"

CMD ["bobrt", "doctor"]
