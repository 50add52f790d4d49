"""A typed client of the HTTP API (docs/api.md): `Client`, its errors, and the records it answers with."""

from reelsense.client import records
from reelsense.client.client import Client
from reelsense.client.connection import Retries
from reelsense.client.errors import ApiError, Busy, ClientError, NotFound, Refused, Unreachable
from reelsense.client.uploads import Progress

__all__ = [
    "ApiError",
    "Busy",
    "Client",
    "ClientError",
    "NotFound",
    "Progress",
    "Refused",
    "Retries",
    "Unreachable",
    "records",
]
