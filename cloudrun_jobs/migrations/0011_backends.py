from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cloudrun_jobs", "0010_shared_items"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrun",
            name="backend",
            field=models.CharField(blank=True, db_default="", default="", max_length=63),
        ),
        migrations.AddField(
            model_name="jobrun",
            name="queue",
            field=models.CharField(blank=True, db_default="", default="", max_length=63),
        ),
        migrations.AddField(
            model_name="jobrun",
            name="reduce_attempts",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="jobrun",
            name="timeout",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="taskrun",
            name="interruptions",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="taskrun",
            name="process",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
    ]
