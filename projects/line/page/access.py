"""Who may ask the page's server for what: by a token, or by what a proxy that logs people in says."""

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

ROLES = ('inspector', 'reader')  # a reader looks and lets radiographs be inspected, an inspector decides too
LONGEST_NAME = 100


class AccessError(MMXrayError, ValueError):
    """The file of tokens or the options cannot be used; one line with the remedy."""


@dataclass
class User:
    """Somebody who asks.

    Attributes:
        name: As it goes into the record.
        role: One of `ROLES`.
        known_by: 'token' or 'proxy'; '' where nobody logs in.
    """

    name: str
    role: str
    known_by: str


@dataclass
class Access:
    """The rule; without tokens and without a header, everybody who reaches the server is an inspector.

    Attributes:
        tokens: SHA-256 of each token -> its user.
        user_header: Name of the header in which a proxy names the user; '' takes none.
        role_header: Of the user's role; '' makes everybody that the proxy lets through an inspector.
        proxies: Addresses from which these headers are believed.
    """

    tokens: dict[str, User] = field(default_factory=dict)
    user_header: str = ''
    role_header: str = ''
    proxies: tuple[str, ...] = ('127.0.0.1', '::1')

    @property
    def open(self) -> bool:
        """Whether nobody has to say who asks."""
        return not (self.tokens or self.user_header)

    def user_of(self, headers: Mapping[str, str], client: str) -> User | None:
        """Return who asks, or None where that is not known.

        Args:
            headers: Of the request.
            client: Address that it came from.
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
        for known, user in self.tokens.items():  # all of them: the time tells nothing of how near one was
            if hmac.compare_digest(known, digest):
                found = user
        return found


def read_tokens(path: Path) -> dict[str, User]:
    """Read a file of lines `name:role:SHA-256 of the token`.

    Raises:
        AccessError: There is none, others may read it, or a line is none of these.
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
        path: The file; it is made where there is none, for its owner alone.
        entry: 'name:role'.

    Returns:
        The token, which is kept nowhere.

    Raises:
        AccessError: It is not a name and a role.
        OSError: It cannot be written.
    """
    name, _, role = entry.rpartition(':')
    if not name or role not in ROLES or not name.isprintable() or len(name) > LONGEST_NAME:
        raise AccessError(f'--add-user {entry}: expected NAME:ROLE with a role of {" or ".join(ROLES)}')
    token = secrets.token_urlsafe(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 'a') as file:
        file.write(f'{name}:{role}:{hashlib.sha256(token.encode()).hexdigest()}\n')
    return token
