from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0003_ticks"),
    ]

    operations = [
        migrations.AddField(model_name=name, name="admitted", field=models.BooleanField(null=True))
        for name in ("jobrun", "taskrun")
    ]
