from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0006_permissions"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrun",
            name="secret_argv",
            field=models.JSONField(null=True),
        ),
    ]
