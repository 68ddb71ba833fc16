"""The page of a run: what it shows, and what it links to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from cloudrun_jobs.dashboard.reasons import REASONS
from cloudrun_jobs.models import ItemChunk, ItemList, Status, TaskRun
from tests.dashboard.conftest import SignIn
from tests.dashboard.job_pages import page, text_of, url
from tests.dashboard.run_pages import ALL, record_run, record_task
from tests.docs.test_reference import REFERENCE
