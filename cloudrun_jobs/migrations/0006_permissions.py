from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0005_released_locks"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="jobrun",
            options={
                "get_latest_by": "created_at",
                "permissions": [("run_job", "Can run jobs"), ("cancel_job", "Can cancel runs")],
            },
        ),
    ]
