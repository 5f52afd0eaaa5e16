# The worker with the bundled student. Build from the repository's root.
# TORCH_BACKEND=cpu takes PyTorch's CPU build; empty takes the package index's own, which on Linux is the CUDA build.
FROM python:3.11-slim-bookworm AS build
ARG TORCH_BACKEND=cpu
WORKDIR /src
RUN python -m venv /opt/fourstep
# The dependencies are a layer of their own, which a change of the code leaves as it is.
COPY pyproject.toml README.md LICENSE fourstep.py ./
RUN if [ -n "$TORCH_BACKEND" ]; \
    then /opt/fourstep/bin/pip install --no-cache-dir 'uv>=0.9' && /opt/fourstep/bin/uv pip install --no-cache --compile-bytecode --python /opt/fourstep --torch-backend "$TORCH_BACKEND" '.[worker,tracing,image-store,quantize]'; \
    else /opt/fourstep/bin/pip install --no-cache-dir '.[worker,tracing,image-store,quantize]'; fi
COPY distill distill
COPY jobs jobs
COPY service service
COPY worker worker
# What only serves to install or to test goes.
RUN /opt/fourstep/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
    && /opt/fourstep/bin/pip uninstall --yes uv pip setuptools \
    && find /opt/fourstep/lib -type d -name tests -prune -exec rm -r {} + \
    && find /opt/fourstep/lib/python3*/site-packages/torch -maxdepth 2 \
        \( -path '*/torch/test' -o -ipath '*/torch/bin/*test*' \) -prune -exec rm -r {} +

FROM python:3.11-slim-bookworm
# torch.compile builds its kernels with a C++ compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fourstep \
    && install -d -o 10001 -g 10001 /cache
COPY --from=build /opt/fourstep /opt/fourstep
COPY models/emoji-student /models/emoji-student
ENV PATH=/opt/fourstep/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HOME=/cache/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton \
    FOURSTEP_METRICS_HOST=0.0.0.0 \
    FOURSTEP_MODEL=/models/emoji-student
USER 10001:10001
VOLUME /cache
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s CMD ["python", "-P", "-m", "worker.ready"]
CMD ["fourstep", "worker"]
