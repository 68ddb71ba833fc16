from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0011_backends"),
    ]

    operations = [
        migrations.RemoveField(
            model_name="jobrun",
            name="secret_argv",
        ),
        migrations.RemoveField(
            model_name="taskrun",
            name="secret_argv",
        ),
    ]
