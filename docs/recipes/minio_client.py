"""An SDK that takes a pool of urllib3: it gets ours, and its threads share one connection."""

from urllib.parse import urlsplit

from minio import Minio

from hyperpool.contrib.urllib3 import PoolManager


def client_for(endpoint_url, access_key, secret_key, ca_certs=None):
    """One client of MinIO for the whole process. Without ``ca_certs``, certifi's list is trusted."""
    manager = PoolManager(ca_certs=ca_certs) if ca_certs else PoolManager()
    where = urlsplit(endpoint_url)
    return Minio(
        where.netloc,
        access_key=access_key,
        secret_key=secret_key,
        secure=where.scheme == "https",
        region="eu-central-1",
        http_client=manager,
    )
