"""Work for a ThreadPoolExecutor: the threads share one client, and with it its connections."""

from concurrent.futures import ThreadPoolExecutor, as_completed

import hyperpool


def sizes(client, urls, threads=32):
    """The length of each URL's body, or the error that it ended with."""
    found = {}
    with ThreadPoolExecutor(max_workers=threads) as executor:
        under_way = {executor.submit(size, client, url): url for url in urls}
        for future in as_completed(under_way):
            try:
                found[under_way[future]] = future.result()
            except hyperpool.HyperpoolError as error:
                found[under_way[future]] = error
    return found


def size(client, url):
    """What a thread does with a response, apart from waiting for it, is what threads are for."""
    return len(client.get(url).raise_for_status().content)


def sizes_without_threads(client, urls):
    """The same where there is nothing to do but to wait: `submit` gives Futures, and needs no threads of yours."""
    found = {}
    under_way = {client.submit("GET", url): url for url in urls}
    for future in as_completed(under_way):
        error = future.exception()
        found[under_way[future]] = error if error is not None else len(future.result().content)
    return found
