from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0004_admission"),
    ]

    operations = [
        migrations.AddField(
            model_name="lockslot",
            name="released",
            field=models.CharField(db_default="", max_length=1000),
        ),
    ]
