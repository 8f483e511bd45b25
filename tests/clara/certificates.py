"""Certificates for tests of TLS: an authority, and what it issues, as PEM files."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificate:
    """A certificate and its key, both also as files.

    Args:
        path: of the certificate; the key's ends with `.key`.
        subject: its common name, and its address when it is one.
        issuer: who signs it; None signs itself and may sign others.
    """

    def __init__(self, path: Path, subject: str, issuer: "Certificate | None" = None) -> None:
        self.file, self.key_file = path, path.with_suffix(".key")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if subject[0].isdigit():
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(subject))])
            builder = builder.add_extension(names, critical=False)
        made = builder.sign((issuer or self).key, hashes.SHA256())
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


class Authority(Certificate):
    """Signs others.

    Args:
        directory: for its files and theirs.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        super().__init__(directory / "authority.pem", "authority of a test")

    def issue(self, subject: str) -> Certificate:
        """A certificate for a name or an address."""
        return Certificate(self._directory / f"{subject}.pem", subject, self)
