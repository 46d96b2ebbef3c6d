"""asyncio over the client that the threads of the same process use, and over its connections."""

import asyncio


async def sizes(client, urls, at_once=100):
    """The length of each URL's body, at most so many of them under way."""
    slots = asyncio.Semaphore(at_once)

    async def size(url):
        async with slots:
            # Submitting never blocks on the network; cancelling the task cancels the request, down to the wire.
            response = await asyncio.wrap_future(client.submit("GET", url))
            return len(response.content)

    return await asyncio.gather(*(size(url) for url in urls))
