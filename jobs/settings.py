"""Settings of each process, read from FOURSTEP_* environment variables."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs import setting_values
from jobs.image_store import BUCKETS, IN_REDIS, check_image_store
from jobs.queue.connection import check_address, with_password

PREFIX = "FOURSTEP_"
# Where containers have their secrets: each variable may be a file there, under its name.
SECRETS = Path("/run/secrets")
BUNDLED_MODEL = Path(__file__).resolve().parent.parent / "models" / "emoji-student"


class Settings(BaseSettings):
    """Settings of every process. Raises pydantic.ValidationError, also for unknown FOURSTEP_* variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, protected_namespaces=(), hide_input_in_errors=True
    )

    redis_url: str | None = Field(
        default=None,
        description="Redis, alone or behind Sentinel or as a Cluster (docs/redis.md); `fourstep up` brings its own",
    )
    redis_password: SecretStr | None = Field(
        default=None, description="password of Redis where its address has none; may be a file in /run/secrets"
    )
    result_ttl_s: float = Field(default=3600.0, gt=0, description="seconds for which results are kept")
    image_store: str = Field(
        default=IN_REDIS,
        description="where finished images are kept: redis, a folder, or s3://, gs://, az:// with bucket and prefix",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    traces_url: str | None = Field(
        default=None, description="address of an OpenTelemetry collector (OTLP over HTTP); unset for no traces"
    )

    def __init__(self, **values: Any) -> None:
        if SECRETS.is_dir():
            values.setdefault("_secrets_dir", SECRETS)
        super().__init__(**values)

    @field_validator("traces_url")
    @classmethod
    def _traces_can_be_sent(cls, url: str | None) -> str | None:
        if url is not None and find_spec("opentelemetry.sdk") is None:
            raise ValueError("traces need the extra: pip install '.[tracing]' in a checkout")
        return url

    @field_validator("image_store")
    @classmethod
    def _a_known_image_store(cls, value: str) -> str:
        check_image_store(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: Any) -> Any:
        known = {PREFIX + name.upper() for kind in (ApiSettings, WorkerSettings) for name in kind.model_fields}
        setting_values.check_names(os.environ, PREFIX, known)
        return {name: one for name, one in values.items() if not setting_values.is_service_link(PREFIX + name, one)}

    @field_validator("redis_url")
    @classmethod
    def _a_known_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value

    @model_validator(mode="after")
    def _password_in_the_address(self) -> Self:
        if self.redis_url is not None and self.redis_password is not None:
            self.redis_url = with_password(self.redis_url, self.redis_password.get_secret_value())
        return self


class ApiSettings(Settings):
    """Settings of the API process."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=1, le=65535, description="port to listen on")
    api_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port that serves only the API's /metrics, without a key, for scrapers; keep it inside the network",
    )
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="address by which clients reach the API, used in answers; unset: the host of each call",
    )
    forwarded_allow_ips: str = Field(
        default="127.0.0.1",
        description="comma-separated proxies (addresses or networks) whose X-Forwarded headers count, or *",
    )
    default_model: str | None = Field(
        default=None, description="model for calls that name none; unset: the first by name that has a worker"
    )
    max_queued_images: int = Field(default=512, ge=1, description="most images that wait for a worker, over all calls")
    timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=600,
        description="timeout of calls without `timeout`, in seconds; asynchronous jobs have a week",
    )
    max_images: int = Field(default=64, ge=1, le=64, description="most images in one call")
    max_prompt_chars: int = Field(default=2000, ge=1, le=2000, description="most characters in a prompt")
    model_aliases: Annotated[tuple[tuple[str, str], ...], NoDecode] = Field(
        default=(), description="comma-separated NAME=MODEL: other names of a model; a NAME may have wildcards (gpt-*)"
    )
    size_fallback: Literal["error", "nearest"] = Field(
        default="error", description="sizes that a model does not have: an error, or the nearest that it has"
    )
    image_redirect: bool = Field(
        default=False, description="answer /images by a redirection to a signed address in the bucket"
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="comma-separated keys; each call then needs one as Authorization: Bearer"
    )
    rate_limit: int | None = Field(
        default=None,
        ge=1,
        description="images a minute for each API key over all models, also in one burst; unset for no limit",
    )
    evaluation_rate_limit: int | None = Field(
        default=None, ge=1, description="network evaluations a minute for each API key over all models; unset: no limit"
    )
    max_input_bytes: int = Field(default=8 * 2**20, ge=1024, description="most bytes of a picture that a call brings")
    max_input_pixels: int = Field(default=2**24, ge=1, description="most pixels of a picture that a call brings")
    max_answer_bytes: int = Field(
        default=64 * 2**20,
        ge=2**20,
        description="memory in bytes for the answers to one API key (without keys: to all callers), and as much for "
        "the pictures that its calls bring; further calls wait",
    )
    max_event_streams: int = Field(
        default=256, ge=1, description="event streams that one API key (without keys: one address) may hold open"
    )
    max_connections: int = Field(
        default=512, ge=1, description="connections that one address may hold open; a proxy in front is one address"
    )
    body_timeout_s: float = Field(default=30.0, gt=0, description="seconds in which the body of a call must arrive")
    answer_timeout_s: float = Field(default=60.0, gt=0, description="seconds in which 64 KiB of an answer must be read")
    max_webhooks: int = Field(
        default=32, ge=1, le=128, description="webhooks of one API key, without keys of all, sent at once by a process"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma-separated origins whose pages may call, or *"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="signs webhooks: whsec_ and 24 to 64 bytes as base64; unset: none are sent"
    )
    webhooks: Annotated[tuple[tuple[SecretStr, str], ...], NoDecode] = Field(
        default=(), description="comma-separated KEY=URL: where the webhooks of a key's asynchronous jobs are sent"
    )
    webhook_private: bool = Field(
        default=False, description="also send webhooks without TLS, and to addresses that are not public"
    )
    redis_replicas: int = Field(
        default=0, ge=0, description="replicas of Redis that must have a call before it is acknowledged (docs/redis.md)"
    )

    @field_validator("public_url")
    @classmethod
    def _without_a_slash(cls, value: str | None) -> str | None:
        return value and value.rstrip("/")

    _read_parts = field_validator("api_keys", "cors_origins", mode="before")(setting_values.parts)
    _read_aliases = field_validator("model_aliases", mode="before")(setting_values.names_of_models)
    _read_webhooks = field_validator("webhooks", mode="before")(setting_values.addresses_of_keys)

    @model_validator(mode="after")
    def _store_and_redis_can_do_it(self) -> Self:
        if self.image_redirect and not self.image_store.startswith(BUCKETS):
            raise ValueError(f"image_redirect needs an image_store that begins with one of {', '.join(BUCKETS)}")
        if self.redis_replicas and "+cluster://" in (self.redis_url or ""):
            raise ValueError("redis_replicas is for one primary, alone or behind Sentinel: in a Cluster leave it 0")
        return self

    @field_validator("webhook_secret")
    @classmethod
    def _a_standard_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not setting_values.is_webhook_secret(secret.get_secret_value()):
            raise ValueError("must be whsec_ and 24 to 64 bytes as base64: echo whsec_$(openssl rand -base64 32)")
        return secret

    @model_validator(mode="after")
    def _webhooks_are_signed_and_of_known_keys(self) -> Self:
        if self.webhooks and self.webhook_secret is None:
            raise ValueError("FOURSTEP_WEBHOOKS are signed: set FOURSTEP_WEBHOOK_SECRET too")
        if not {key for key, _ in self.webhooks} <= set(self.api_keys):
            raise ValueError("FOURSTEP_WEBHOOKS names a key that is not among FOURSTEP_API_KEYS")
        return self

    @model_validator(mode="after")
    def _one_call_fits_the_rate_and_the_queue(self) -> Self:
        for name in ("rate_limit", "evaluation_rate_limit"):
            if getattr(self, name) is not None and not self.api_keys:
                raise ValueError(f"{PREFIX}{name.upper()} counts by API key: set FOURSTEP_API_KEYS too")
        if self.rate_limit is not None and self.rate_limit < self.max_images:
            raise ValueError("rate_limit must not be below max_images: such a call could never be admitted")
        if self.max_images > self.max_queued_images:
            raise ValueError("max_images must not exceed max_queued_images: such a call could never be admitted")
        return self


class WorkerSettings(Settings):
    """Settings of the worker process."""

    model: str = Field(default=str(BUNDLED_MODEL), description="model folder or Hugging Face hub id")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="number format of weights; auto: bfloat16 where the device has it, else float32"
    )
    text_encoders: Literal["device", "cpu", "int8"] = Field(
        default="device", description="where the text encoders run: device, cpu, or on the device with int8 weights"
    )
    quantize: Literal["int8", "fp8"] | None = Field(
        default=None, description="format of the weights of the denoiser's blocks; unset: that of FOURSTEP_DTYPE"
    )
    max_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="most images in one step; auto: the batch with the most images a second, up to 64"
    )
    cpu_runtime: Literal["openvino", "torch"] = Field(
        default="openvino", description="runtime of the networks on a CPU, some seconds after the start"
    )
    compile: Literal["auto"] | bool = Field(
        default="auto", description="torch.compile the networks while serving; auto: on a CUDA device"
    )
    compile_cache: Path | None = Field(
        default=None, description="folder for compiled code, which makes a restart quick; unset: PyTorch's own, in /tmp"
    )
    cuda_graphs: bool | None = Field(
        default=None, description="replay each step from a CUDA graph; unset: on a CUDA device; true needs one"
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="workers of `fourstep up`; auto: one for each GPU, and at least one for each model"
    )
    gpu_locks: Path | None = Field(
        default=None, description="folder in which workers mark the GPU that each takes, so that none is shared"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address of the worker's /metrics")
    metrics_port: int = Field(default=8001, ge=0, le=65535, description="port of the worker's /metrics; 0 for none")
    lease_s: float = Field(
        default=15.0, gt=0, description="seconds after which other workers reclaim a silent worker's tasks"
    )
    steps: int = Field(default=4, ge=1, description="denoising steps of models without sampling.json")
    guidance_scale: float = Field(
        default=1.0, ge=1, description="guidance scale of models without sampling.json, told or by two evaluations"
    )
    sizes: Annotated[tuple[tuple[int, int], ...], NoDecode] = Field(
        default=(),
        description="comma-separated WIDTHxHEIGHT to serve, the first for calls without; unset: the model's own",
    )
    safety_model: str | None = Field(
        default=None, description="folder of a transformers image classifier that sees each picture; unset: none does"
    )
    safety_labels: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma-separated labels of the safety model for which a picture is refused"
    )
    safety_threshold: float = Field(
        default=0.5, gt=0, le=1, description="least probability of these labels together for which a picture is refused"
    )
    embed_recipe: bool = Field(default=True, description="write model, prompt and seed into the image's metadata")
    mark_generated: bool = Field(
        default=True, description="mark images as made by a model, in XMP (IPTC's trainedAlgorithmicMedia)"
    )

    _read_parts = field_validator("safety_labels", mode="before")(setting_values.parts)
    _read_sizes = field_validator("sizes", mode="before")(setting_values.sizes)

    @model_validator(mode="after")
    def _weights_can_be_quantized(self) -> Self:
        if (self.quantize or self.text_encoders == "int8") and find_spec("torchao") is None:
            raise ValueError("weights of eight bits need the extra: pip install '.[quantize]' in a checkout")
        return self

    @model_validator(mode="after")
    def _the_safety_model_has_labels(self) -> Self:
        if (self.safety_model is None) != (not self.safety_labels):
            raise ValueError("set both FOURSTEP_SAFETY_MODEL and FOURSTEP_SAFETY_LABELS, or neither")
        return self


def explain(error: ValidationError) -> str:
    """Format the error as one line that names environment variables."""
    return "; ".join(
        f"{PREFIX}{str(part['loc'][0]).upper()}: {part['msg']}" if part["loc"] else part["msg"].split(", ", 1)[-1]
        for part in error.errors()
    )
