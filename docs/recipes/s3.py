"""boto: all clients of a session, in all threads, send over one shared connection to each endpoint.

botocore offers each request to the handlers of its event ``before-send``, and takes their response for the server's.
Signing, retries, parsing and streaming stay its own.
"""

import functools

import botocore.session
from botocore import exceptions
from botocore.awsrequest import AWSResponse
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from hyperpool.contrib.urllib3 import PoolManager


def session_over(manager):
    """A session of botocore whose clients send with this manager; boto3 takes it as ``botocore_session=``."""
    session = botocore.session.Session()
    session.register("before-send", functools.partial(send, manager))
    return session


def send(manager, request, **_):
    try:
        raw = manager.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers=dict(request.headers),
            retries=False,  # botocore has its own
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        response = AWSResponse(request.url, raw.status, raw.headers, raw)
        if not request.stream_output:
            response.content  # noqa: B018 - reads it
        return response
    except NewConnectionError as error:
        raise exceptions.EndpointConnectionError(endpoint_url=request.url, error=error) from error
    except ConnectTimeoutError as error:
        raise exceptions.ConnectTimeoutError(endpoint_url=request.url, error=error) from error
    except ReadTimeoutError as error:
        raise exceptions.ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except ProtocolError as error:
        raise exceptions.ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from error
    except HTTPError as error:
        raise exceptions.HTTPClientError(error=error) from error


def client_for(endpoint_url, ca_certs=None):
    """One S3 client for the whole process. Without ``ca_certs``, certifi's list is trusted."""
    manager = PoolManager(ca_certs=ca_certs) if ca_certs else PoolManager()
    return session_over(manager).create_client("s3", endpoint_url=endpoint_url, region_name="eu-central-1")
