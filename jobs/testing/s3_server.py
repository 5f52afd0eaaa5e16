"""A real S3 server in this process, which can be stopped and started again with what it holds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "pictures"


class S3Server:
    """Serves on `port` of 127.0.0.1; `environment` is what its clients read."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        self._server = ThreadedMotoServer("127.0.0.1", port, verbose=False)

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each request
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def names(self) -> list[str]:
        """The names of all objects in the bucket."""
        found = self._client().list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def create_bucket(self) -> None:
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self) -> Any:
        env = self.environment
        return boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_REGION"],
        )


@contextmanager
def s3_server(port: int) -> Iterator[S3Server]:
    """Run a server with an empty bucket."""
    server = S3Server(port)
    server.start()
    server.create_bucket()
    try:
        yield server
    finally:
        server.stop()
