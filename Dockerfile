# syntax=docker/dockerfile:1
# Two images, for a CPU (the default) and for GPUs of NVIDIA. Linted with hadolint; never built so far.
#
#   docker build -t active-prompts .
#   docker run --rm -v "$PWD/output:/app/output" active-prompts --config-file configs/quickstart.yaml
#   docker build -t active-prompts:gpu --target gpu .
#   docker run --rm --gpus all -v "$PWD/data:/app/data" -v "$PWD/output:/app/output" active-prompts:gpu \
#       --config-file configs/trainers/CoOp/vit_b16.yaml
#
# Folders that are mounted must belong to user 1000, or give `docker run` a `--user` of yours.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS base
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HOME=/app/home
COPY requirements.txt ./
RUN useradd --uid 1000 --no-create-home user && mkdir home data output && chown user home data output

# The wheels of PyPI bring CUDA along: the host needs the driver and NVIDIA's container toolkit.
FROM base AS gpu
RUN pip install -r requirements.txt
COPY . .
USER 1000
ENTRYPOINT ["python", "train.py"]

FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
COPY . .
USER 1000
ENTRYPOINT ["python", "train.py"]
