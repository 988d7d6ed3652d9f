# bobrt on NVIDIA's pytorch container: trains, exports, builds and benches, with one TensorRT for all of it.
#
#   docker build -f docker/gpu.Dockerfile -t bobrt:gpu .
#   docker build -f docker/gpu.Dockerfile -t bobrt:gpu-trt10 --build-arg TENSORRT=10 .

# A tag may move. docker/README.md says how to pin what it is today: BASE=nvcr.io/nvidia/pytorch@sha256:...
ARG BASE=nvcr.io/nvidia/pytorch:26.09-py3
# The last month of TensorRT 10, to which ONNX Runtime's TensorRT provider (`ort-trt`) is linked.
ARG BASE_TENSORRT_10=nvcr.io/nvidia/pytorch:26.05-py3
ARG TENSORRT=11

FROM ${BASE} AS tensorrt-11
FROM ${BASE_TENSORRT_10} AS tensorrt-10
# hadolint ignore=DL3006
FROM tensorrt-${TENSORRT}

# Ubuntu keeps pip from its own Python unless told that this is meant.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /opt/bobrt
# The dependencies first: their layer changes with the pins, not with every line of code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/install.py docker/
COPY bobrt/__init__.py bobrt/
ARG TENSORRT
RUN --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip python3 docker/install.py --tensorrt "${TENSORRT}" --torch \
    train,quant,tensorrt,loadgen,diffusion,hub,report
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
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    BOBRT_RESULTS=/results
VOLUME ["/cache", "/results"]
USER ${UID}
WORKDIR /home/bobrt

ARG REVISION=unknown
LABEL org.opencontainers.image.title="bobrt" \
      org.opencontainers.image.description="Battle of the backbones on engines: train, export, build and bench" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.revision="${REVISION}" \
      bobrt.tensorrt="${TENSORRT}"

# The base's entrypoint stays: it sets up CUDA's compatibility libraries, then runs the command.
CMD ["bobrt", "doctor"]
