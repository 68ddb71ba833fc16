from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0008_indexes_of_filters"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrun",
            name="overrides",
            field=models.JSONField(null=True),
        ),
    ]
