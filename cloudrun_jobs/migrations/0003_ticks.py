from __future__ import annotations

from django.db import migrations, models

NAME = "cloudrun_jobs_one_run_per_tick"


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0002_runs"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="jobrun", name=NAME),
        migrations.AddConstraint(
            model_name="jobrun",
            constraint=models.UniqueConstraint(
                fields=["schedule", "scheduled_for", "command", "environment"], name=NAME
            ),
        ),
    ]
