"""The page with the latest rates and the form that starts the job."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandError
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.html import format_html
from django.views.decorators.http import require_POST, require_safe

from cloudrun_jobs import CloudRunJobsError, Operation

from .forms import CollectForm
from .management.commands.collect_rates import Command
from .models import Rate


@require_safe
def latest(request: HttpRequest) -> HttpResponse:
    """Show the rates of the newest day."""
    return _page(request, CollectForm())


@require_POST
def collect(request: HttpRequest) -> HttpResponse:
    """Start the job and show the outcome on the page."""
    if not _may_collect(request.user):
        raise PermissionDenied
    form = CollectForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=400)
    try:
        operation = Command().delay(**form.options())
    except (CloudRunJobsError, CommandError) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _outcome(operation))
    return redirect("latest")


def _page(request: HttpRequest, form: CollectForm, status: int = 200) -> HttpResponse:
    newest = Rate.objects.aggregate(day=Max("date"))["day"]
    context = {
        "day": newest,
        "rates": Rate.objects.filter(date=newest).order_by("currency"),
        "form": form,
        "may_collect": _may_collect(request.user),
    }
    return render(request, "rates/latest.html", context, status=status)


def _may_collect(user: User | AnonymousUser) -> bool:
    """Return True for staff, and for every user in DEBUG."""
    return settings.DEBUG or (user.is_active and user.is_staff)


def _outcome(operation: Operation) -> str:
    if operation.console_url:
        message = 'Started on Cloud Run as <a href="{}">{}</a>.'
        return format_html(message, operation.console_url, operation.execution_name)
    return "Collected: {processed} rates read, {created} new, {updated} different.".format_map(operation.result())
