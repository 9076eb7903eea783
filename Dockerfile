# avel in a container, for CPUs (the default) or for NVIDIA GPUs:
#
#     docker build -t avel .
#     docker build -t avel:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#     docker run --rm -v "$PWD:/data" avel extract AVE_Dataset ave.zarr
#
# --gpus all gives the second one its GPU. Outputs land in the folder that is mounted as /data.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY avel avel
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" '.[plots,s3]' \
    && useradd --create-home --uid 1000 avel \
    && mkdir /data \
    && chown avel /data

USER 1000
WORKDIR /data
ENTRYPOINT ["avel"]
CMD ["--help"]
