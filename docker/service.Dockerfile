# The API: no torch, no model. Build from the repository's root.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/fourstep
# The dependencies are a layer of their own, which a change of the code leaves as it is.
COPY pyproject.toml README.md LICENSE fourstep.py ./
RUN /opt/fourstep/bin/pip install --no-cache-dir '.[tracing,image-store]'
COPY distill distill
COPY jobs jobs
COPY service service
COPY worker worker
# What only serves to install or to test goes.
RUN /opt/fourstep/bin/pip install --no-cache-dir --no-deps --force-reinstall . \
    && /opt/fourstep/bin/pip uninstall --yes pip setuptools \
    && find /opt/fourstep/lib -type d -name tests -prune -exec rm -r {} +

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fourstep
COPY --from=build /opt/fourstep /opt/fourstep
ENV PATH=/opt/fourstep/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FOURSTEP_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["fourstep", "api"]
