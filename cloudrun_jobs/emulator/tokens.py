"""Identify callers by their tokens, and sign the tokens of deliveries with a published key."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

ALGORITHM = "RS256"
ID_TOKEN_LIFETIME = 3600  # seconds


class Tokens:
    def __init__(self) -> None:
        self._issued: dict[str, str] = {}
        self._accounts: dict[str, str] = {}
        self._key: rsa.RSAPrivateKey | None = None
        # Each emulator has a key of its own, and an id for it, as verifiers cache keys by id.
        self.key_id = f"emulator-{secrets.token_hex(4)}"
        self._lock = threading.Lock()

    def access_token(self, email: str) -> str:
        """Return the OAuth access token of an account; it is opaque, like Google's."""
        with self._lock:
            if email not in self._issued:
                self._issued[email] = f"ya29.emulator-{secrets.token_urlsafe(24)}"
                self._accounts[self._issued[email]] = email
            return self._issued[email]

    def id_token(self, email: str, audience: str, issuer: str) -> str:
        """Return an OIDC token with the claims that Google signs for a service account."""
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": audience,
            "sub": str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big")),
            "azp": email,
            "email": email,
            "email_verified": True,
            "iat": now,
            "exp": now + ID_TOKEN_LIFETIME,
        }
        return jwt.encode(claims, self._private_key(), ALGORITHM, {"kid": self.key_id})

    def principal(self, authorization: str) -> str | None:
        """Return the account of an ``Authorization`` header, or None if the token is unknown."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self._accounts.get(token) or _jwt_issuer(token)

    def public_keys(self) -> dict[str, str]:
        """Return the public key in PEM by its id, the format that google-auth expects."""
        pem = self._public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {self.key_id: pem.decode()}

    def keys(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        key = RSAAlgorithm.to_jwk(self._public_key(), as_dict=True)
        return {"keys": [{**key, "use": "sig", "alg": ALGORITHM, "kid": self.key_id}]}

    def _public_key(self) -> rsa.RSAPublicKey:
        return self._private_key().public_key()

    def _private_key(self) -> rsa.RSAPrivateKey:
        with self._lock:
            # Generated on first use: it takes a tenth of a second, and most tests do not need it.
            if self._key is None:
                self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return self._key


def _jwt_issuer(token: str) -> str | None:
    """Return the issuer of a self-signed JWT. The signature is not verified: the emulator trusts every caller."""
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.InvalidTokenError:
        return None
    return str(issuer) if issuer else None
