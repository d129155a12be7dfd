"""A backend for it."""

import brokenframe as brokenframe
