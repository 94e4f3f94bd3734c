"""Access to the page's server: users and roles, known by a token or from a proxy that logs people in."""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from projects.errors import MMXrayError

ROLES = ('inspector', 'reader')  # a reader looks and sends radiographs; an inspector also decides
LONGEST_NAME = 100


class AccessError(MMXrayError, ValueError):
    """The file of tokens or the options cannot be used; one line with the remedy."""


@dataclass
class User:
    """The user of a request.

    Attributes:
        name: Name in the record.
        role: One of `ROLES`.
        known_by: 'token' or 'proxy'; '' without a login.
    """

    name: str
    role: str
    known_by: str


@dataclass
class Access:
    """The access rule; without tokens and a header, everybody who reaches the server is an inspector.

    Attributes:
        tokens: SHA-256 of each token -> its user.
        user_header: Name of the header in which a proxy names the user; '' ignores such headers.
        role_header: Name of the header with the user's role; '' makes every user of the proxy an inspector.
        proxies: Addresses from which these headers are accepted.
    """

    tokens: dict[str, User] = field(default_factory=dict)
    user_header: str = ''
    role_header: str = ''
    proxies: tuple[str, ...] = ('127.0.0.1', '::1')

    @property
    def open(self) -> bool:
        """Whether requests need no login."""
        return not (self.tokens or self.user_header)

    def user_of(self, headers: Mapping[str, str], client: str) -> User | None:
        """Return the user of a request; None if unknown.

        Args:
            headers: Headers of the request.
            client: Address of the client.
        """
        if self.open:
            return User('', 'inspector', '')
        if self.user_header and client in self.proxies and headers.get(self.user_header):
            role = headers.get(self.role_header, '') if self.role_header else 'inspector'
            name = headers[self.user_header][:LONGEST_NAME]
            return User(name, role, 'proxy') if role in ROLES else None
        return self._by_token(headers.get('authorization', ''))

    def _by_token(self, header: str) -> User | None:
        kind, _, value = header.partition(' ')
        if kind.lower() == 'basic':  # a browser asks for a name and a password: the password is the token
            try:
                value = base64.b64decode(value, validate=True).decode().partition(':')[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif kind.lower() != 'bearer':
            return None
        digest = hashlib.sha256(value.strip().encode()).hexdigest()
        found = None
        for known, user in self.tokens.items():  # all, so that the time reveals no near match
            if hmac.compare_digest(known, digest):
                found = user
        return found


def read_tokens(path: Path) -> dict[str, User]:
    """Read a file of lines `name:role:SHA-256 of the token`.

    Raises:
        AccessError: The file is missing, others can read it, or a line is not of this form.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise AccessError(f'{path}: others can read it; chmod 600 {path}')
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'no text'
        raise AccessError(f'{path}: expected a file of tokens ({reason}); make one with --add-user') from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith('#'):
            continue
        name, role, digest = ['', '', *line.strip().rsplit(':', 2)][-3:]
        if not name or role not in ROLES or len(digest) != 64 or set(digest) - set('0123456789abcdef'):
            raise AccessError(f'{path}: line {number}: expected name:role:SHA-256; make it with --add-user')
        found[digest] = User(name, role, 'token')
    if not found:
        raise AccessError(f'{path}: holds no token; make one with --add-user')
    return found


def add_user(path: Path, entry: str) -> str:
    """Add a user to a file of tokens.

    Args:
        path: The file; a new file is readable for its owner alone.
        entry: 'name:role'.

    Returns:
        The token, which is kept nowhere.

    Raises:
        AccessError: The entry is not a name and a role.
        OSError: The file cannot be written.
    """
    name, _, role = entry.rpartition(':')
    if not name or role not in ROLES or not name.isprintable() or len(name) > LONGEST_NAME:
        raise AccessError(f'--add-user {entry}: expected NAME:ROLE with a role of {" or ".join(ROLES)}')
    token = secrets.token_urlsafe(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 'a') as file:
        file.write(f'{name}:{role}:{hashlib.sha256(token.encode()).hexdigest()}\n')
    return token
