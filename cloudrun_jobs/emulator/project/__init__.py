"""What a project consists of beside jobs: its APIs, accounts, images and regions."""

from __future__ import annotations
