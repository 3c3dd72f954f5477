"""A check that the page's server could start, without importing what oracles compute with."""

from dassl.utils.errors import ConfigError


def check_packages() -> None:
    """Raise ConfigError unless the server's packages are installed."""
    try:
        import starlette.applications  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ACTIVE.ORACLE page needs the packages starlette and uvicorn ({error}): "
                          "pip install starlette uvicorn") from error
