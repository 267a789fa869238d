"""One running product for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from tests.product import Product, Workspace


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("product")
    for parent in (folder, *folder.parents):  # PostgreSQL runs as another user when we are root
        if parent.is_relative_to(tmp_path_factory.getbasetemp().parent):
            parent.chmod(parent.stat().st_mode | 0o011)
    found = Product(folder)
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
