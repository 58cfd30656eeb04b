# step-trt on a CPU, with ONNX Runtime and OpenVINO. From the folder of the checkout:
#   docker build -f docker/cpu.Dockerfile -t step-trt:cpu .

# Debian 12: its Python 3.11 is the one that CI tests with. The digest is of the index of all platforms.
ARG BASE=docker.io/library/debian:bookworm-20261005-slim@sha256:7c7b2c966bc9ee8cedfeef67e0e279108992c77681fa595db4a9d65c06ccc587

FROM ${BASE} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/requirements docker/requirements
RUN python3 -m venv /tools && /tools/bin/pip install --no-deps -r docker/requirements/build.txt
COPY . .
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM wheel AS venv
# pip stays outside, in /tools. ONNX Runtime's wheel is the one for GPUs too; its CUDA half could not be loaded here.
RUN python3 -m venv --without-pip /opt/step \
    && /tools/bin/pip --python /opt/step/bin/python install --no-deps -r docker/requirements/cpu.txt \
    && rm -f /opt/step/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
        /opt/step/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so
RUN /tools/bin/pip --python /opt/step/bin/python install --no-deps /wheels/*.whl \
    && /tools/bin/pip --python /opt/step/bin/python check

FROM ${BASE}
LABEL org.opencontainers.image.title="step-trt" \
      org.opencontainers.image.description="STEP video action detection on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
ARG UID=10001
# Any user may write to /results, so that `docker run --user` works.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid "${UID}" --non-unique --user-group --no-create-home --home-dir /tmp step \
    && install -d -o step -g step -m 1777 /results
COPY --from=venv /opt/step /opt/step
# Caches go to the home folder, which has to be there for every user and where the image is read-only.
ENV PATH=/opt/step/bin:$PATH HOME=/tmp
WORKDIR /results
USER ${UID}:${UID}
CMD ["step-doctor"]
