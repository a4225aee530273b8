"""Bearer tokens: the form that they have, and the file of those with a quota.

The file is TOML, a table for each token:

    [cameras]               # a name, for people
    token = "..."
    requests_per_s = 20     # on average, in bursts of a second's worth; no limit if absent
    in_flight = 4           # requests at a time; no limit if absent
    urgency = 3             # the most urgent that it may ask for; 0 if absent
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What RFC 6750 allows behind `Bearer`."""


def clean_token(token: SecretStr) -> SecretStr:
    """A token without what surrounds it, such as the end of a file's last line.

    Raises:
        ValueError: no client can send it.
    """
    stripped = token.get_secret_value().strip()
    if not _TOKEN.fullmatch(stripped):
        found = "nothing but blanks" if not stripped else f"{len(stripped)} characters"
        raise ValueError(
            f"found {found}, expected letters, digits and -._~+/ without blanks between them: "
            "no client can send another token (`openssl rand -hex 32` makes one)"
        )
    return SecretStr(stripped)


class TokenWithQuota(BaseModel):
    """One table of the file.

    Attributes:
        token: the secret.
        requests_per_s: on average, in bursts of a second's worth; None for no limit.
        in_flight: requests at a time; None for no limit.
        urgency: the most urgent that is granted, 0 to 7.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token: Annotated[SecretStr, AfterValidator(clean_token)]
    requests_per_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    in_flight: int | None = Field(None, ge=1)
    urgency: int = Field(0, ge=0, le=7)


_FILE: Final = TypeAdapter(dict[str, TokenWithQuota])


def read_tokens(path: Path) -> dict[str, TokenWithQuota]:
    """The tokens of a file, by name.

    Raises:
        ValueError: there is no such file, or it says something else.
    """
    try:
        found = _FILE.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    secrets = {entry.token.get_secret_value() for entry in found.values()}
    if len(secrets) < len(found):
        raise ValueError(f"{path}: two names have the same token, expected one for each")
    return found
