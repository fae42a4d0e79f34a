"""What the tests of the site share: one site, one server, one browser."""

from served import address, addressed, browser, pages, site, staged

__all__ = ["address", "addressed", "browser", "pages", "site", "staged"]
