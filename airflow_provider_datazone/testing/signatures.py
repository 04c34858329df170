"""The signatures of requests: Signature Version 4 in the header ``Authorization``."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .request_parsing import ReceivedRequest

ALGORITHM = "AWS4-HMAC-SHA256 "


class Signature(NamedTuple):
    """The parts of the header ``Authorization`` of a signed request."""

    access_key_id: str
    region: str
    service: str
    signed_headers: list[str]
    signature: str

    @classmethod
    def parse(cls, authorization: str) -> Signature | None:
        """Parse a header. Return None if it has no signature of this version."""
        if not authorization.startswith(ALGORITHM):
            return None
        parts = authorization.removeprefix(ALGORITHM).split(",")
        values = {name.strip(): value for name, _, value in (part.partition("=") for part in parts)}
        scope = values.get("Credential", "").rsplit("/", 4)
        if len(scope) != 5 or not {"SignedHeaders", "Signature"} <= set(values):
            return None
        access_key_id, _, region, service, _ = scope
        return cls(
            access_key_id,
            region,
            service.lower(),
            values["SignedHeaders"].split(";"),
            values["Signature"].strip(),
        )

    def is_valid(self, request: ReceivedRequest, secret_access_key: str) -> bool:
        """Return whether this signature was made for a request with the secret access key."""
        headers = request.headers
        digest = headers.get("X-Amz-Content-SHA256")
        if digest not in (None, "UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
            return False
        if "host" not in self.signed_headers or ("host" not in headers and request.url.startswith("/")):
            return False
        signed = AWSRequest(
            method=request.method,
            url=request.url,
            data=request.body,
            headers={
                name: headers.get(name, "")
                for name in self.signed_headers
                if name != "host" or headers.get(name)
            },
        )
        signed.context["timestamp"] = headers.get("X-Amz-Date", "")
        signer = SigV4Auth(Credentials(self.access_key_id, secret_access_key), self.service, self.region)
        string_to_sign = signer.string_to_sign(signed, signer.canonical_request(signed))
        return bool(signer.signature(string_to_sign, signed) == self.signature)
