"""A bucket of a local S3-compatible server, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from moto.server import ThreadedMotoServer

ACCESS_KEY, SECRET_KEY = "AKIATESTONLY", "a-secret-of-the-tests"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server."""

    endpoint: str
    name: str

    @property
    def uri(self) -> str:
        """RLPLATFORM_REMOTE for it."""
        return f"s3://{self.name}/rlplatform?endpoint_override={self.endpoint}&region=us-east-1"

    def objects(self) -> list[str]:
        """Return the names of all objects, without the empty ones that stand for folders."""
        found = self._client().list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(entry["Key"] for entry in found if not entry["Key"].endswith("/"))

    def put(self, key: str, data: bytes) -> None:
        """Make or replace an object."""
        self._client().put_object(Bucket=self.name, Key=key, Body=data)

    def create(self) -> None:
        """Make the bucket."""
        self._client().create_bucket(Bucket=self.name)

    def _client(self) -> boto3.client:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


@contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 server on a free port of this machine; yields its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
