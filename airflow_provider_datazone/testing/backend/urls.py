"""The hosts of Amazon DataZone.

The first is the service's own. A moto server infers the second from a signature.
"""

from __future__ import annotations

from .responses import DataZoneResponse

url_bases = [
    r"https?://datazone(-fips)?\.(.+)\.api\.(aws|amazonwebservices\.com\.cn)",
    r"https?://datazone(-fips)?\.(.+)\.amazonaws\.com",
]

url_paths = {
    "{0}/.*$": DataZoneResponse.dispatch,
}
