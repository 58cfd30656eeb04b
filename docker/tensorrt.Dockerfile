# step-trt on NVIDIA GPUs with TensorRT. From the folder of the checkout:
#   docker build -f docker/tensorrt.Dockerfile -t step-trt:tensorrt .

# TensorRT 11.2.1.2 and CUDA 13 on Ubuntu 24.04 with Python 3.12: the first of NVIDIA's images whose TensorRT runs the
# plugins beside NumPy 2.4 (docs/plugins.md). By tag, since its digest is not known to us; add yours with --build-arg.
ARG BASE=nvcr.io/nvidia/tensorrt:26.08-py3

FROM ${BASE} AS wheel
# The base image may come with a PIP_CONSTRAINT of its own.
ENV PIP_CONSTRAINT= PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/requirements docker/requirements
RUN python3 -m venv /tools && /tools/bin/pip install --no-deps -r docker/requirements/build.txt
COPY . .
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM wheel AS venv
# The base image's own packages are seen for its `tensorrt`; whatever else we need is our version, in the venv.
RUN python3 -m venv --without-pip --system-site-packages /opt/step \
    && /tools/bin/pip --python /opt/step/bin/python install --no-deps --ignore-installed \
        -r docker/requirements/tensorrt.txt
RUN /tools/bin/pip --python /opt/step/bin/python install --no-deps --ignore-installed /wheels/*.whl \
    && /opt/step/bin/python -c 'import importlib.metadata as m; print("tensorrt", m.version("tensorrt"))'

FROM ${BASE}
LABEL org.opencontainers.image.title="step-trt" \
      org.opencontainers.image.description="STEP video action detection with TensorRT" \
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
# NVIDIA's entry point prints a page on standard output, where our results belong.
ENTRYPOINT []
CMD ["step-doctor"]
