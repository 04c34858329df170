"""The backend of Amazon DataZone, in the form of a moto service.

It imports only moto and itself, and could become ``moto/datazone``. Run outcomes,
failures and other settings of tests are outside of it.
"""

from .models import datazone_backends

__all__ = ["datazone_backends"]
