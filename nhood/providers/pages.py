"""All pages of `docs/integrations`."""

from nhood.providers.matrix import matrix
from nhood.providers.page import page
from schemas.provider import Catalogue
from schemas.tiers import standing


def pages(catalogue: Catalogue) -> dict[str, str]:
    """Give each page's text by its file's name.

    Raises:
        InvalidInput: A sandbox.yaml or a webhook section cannot be used.
    """
    found = [(spec, standing(spec)) for spec in catalogue]
    return {"README.md": matrix(found)} | {f"{spec.slug}.md": page(spec, at) for spec, at in found}
