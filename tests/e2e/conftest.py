"""One running product for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.folders import folder_for_servers
from tests.product import Product, Workspace


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    with folder_for_servers("product") as folder:
        yield from _running(Product(folder))


def _running(found: Product) -> Iterator[Product]:
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture
def workspace(product: Product) -> Iterator[Workspace]:
    found = Workspace.make(product)
    yield found
    found.client.close()
