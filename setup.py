"""How hyperpool is built, what it needs, and the commands it installs."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Read, not imported: building needs none of the dependencies."""
    line = (HERE / "hyperpool/_version.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', line, re.MULTILINE)
    assert found, "hyperpool/_version.py must hold one line that sets __version__"
    return found[1]


def readme() -> str:
    path = HERE / "README.md"
    return path.read_text("utf-8") if path.exists() else ""


# Upper bounds only where hyperpool leans on more than the documented API: h2's streams and hpack's tables and literals
# (protocol/h2_quick.py, hpack_memo.py; their tests hold them against h2 and hpack themselves), h11's states, urllib3's
# values. The lower bounds passed the tests; pyOpenSSL 26.2 is the first with Connection.set_options.
REQUIRES = [
    "h2>=4.4.1,<4.5",
    "hpack>=4.2,<4.3",
    "h11>=0.16,<1",
    "urllib3>=2.7,<3",
    "certifi>=2024.7.4",
    "pyOpenSSL>=26.2",
    "service_identity>=24.1",
]

BROTLI = ["brotli>=1.2"]
ZSTD = ["zstandard>=0.23"]
SOCKS = ["socksio>=1.0,<2"]
CLI = ["rich>=13.7"]
CHARSET = ["charset_normalizer>=3,<4"]
PUBLICSUFFIX = ["publicsuffixlist>=1.0.2.20241102"]
REQUESTS = ["requests>=2.32.2"]
HTTPX = ["httpx>=0.28,<1"]

TEST = [
    "pytest>=8.3",
    "pytest-cov>=6.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "cryptography>=45",
    "hypothesis>=6.100",
    "gunicorn>=22",
    "hypercorn>=0.17",
    "httpie>=3.2.4",
    "minio>=7.2",
    "interleave-test>=0.1; python_version >= '3.12'",
    "httpx[http2]>=0.28,<1",
    "flask>=3.0.3",
    "django>=4.2.16",
    "botocore>=1.37",
]

# Not niquests: its urllib3-future overwrites urllib3 (docs/performance.md says how to install it beside).
BENCH = [
    "httpx[http2]>=0.28,<1",
    "httpcore[http2]>=1.0.9,<2",
    "aiohttp>=3.14,<4",
    "pycurl>=7.49",
    "primp>=2.0,<3",
    "pyreqwest>=0.15,<0.16; python_version >= '3.11'",
    "matplotlib>=3.11; python_version >= '3.11'",
    "cryptography>=45",
    *REQUESTS,
    *CLI,
]

setup(
    name="hyperpool",
    version=version(),
    description="One thread-safe HTTP/2 and HTTP/1.1 client, shared by all threads of a program.",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["hyperpool", "hyperpool.*"]),
    package_data={"hyperpool": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require={
        "brotli": BROTLI,
        "zstd": ZSTD,
        "socks": SOCKS,
        "cli": CLI,
        "charset": CHARSET,
        "publicsuffix": PUBLICSUFFIX,
        "requests": REQUESTS,
        "httpx": HTTPX,
        "test": [*TEST, *BROTLI, *ZSTD, *SOCKS, *CLI, *CHARSET, *PUBLICSUFFIX, *REQUESTS],
        "lint": ["ruff>=0.12", "mypy>=1.16"],
        "docs": ["sphinx>=8.1", "myst-parser>=4,<6"],
        "bench": BENCH,
    },
    entry_points={
        "console_scripts": ["hyperpool = hyperpool.cli:main"],
        "httpie.plugins.transport.v1": ["hyperpool = hyperpool.contrib.httpie:HyperpoolTransport"],
        "pytest11": ["hyperpool = hyperpool.testing.pytest_plugin"],
    },
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
