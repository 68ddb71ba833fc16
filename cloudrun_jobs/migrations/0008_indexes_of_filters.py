from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0007_secret_options"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="jobrun",
            index=models.Index(fields=["reason", "-created_at"], name="cloudrun_jobs_run_reason"),
        ),
        migrations.AddIndex(
            model_name="jobrun",
            index=models.Index(fields=["trigger", "-created_at"], name="cloudrun_jobs_run_trigger"),
        ),
    ]
