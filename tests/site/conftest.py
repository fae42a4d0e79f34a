"""What the tests of the site share: one site, one server, one browser."""

from served import address, browser, site

__all__ = ["address", "browser", "site"]
