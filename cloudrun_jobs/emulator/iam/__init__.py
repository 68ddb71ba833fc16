"""Identity and Access Management: policies of resources, roles, and the permission of each method."""

from __future__ import annotations
