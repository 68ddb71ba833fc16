from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0012_no_secret_values"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrun",
            name="job_name",
            field=models.CharField(blank=True, db_default="", default="", max_length=63),
        ),
        migrations.AddField(
            model_name="jobrun",
            name="script",
            field=models.CharField(blank=True, db_default="", default="", max_length=63),
        ),
    ]
