"""The tables of the locks."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="LockSlot",
            fields=[
                ("id", models.CharField(max_length=190, primary_key=True, serialize=False)),
                ("lock_key", models.CharField(db_index=True, max_length=180)),
                ("slot", models.PositiveIntegerField()),
                ("label", models.CharField(max_length=200)),
                ("holder", models.CharField(max_length=255)),
                ("task_index", models.PositiveIntegerField()),
                ("attempt", models.PositiveIntegerField()),
                ("nonce", models.CharField(max_length=255)),
                ("token", models.BigIntegerField()),
                ("acquired_us", models.BigIntegerField()),
                ("expires_us", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="LockToken",
            fields=[
                ("id", models.CharField(max_length=190, primary_key=True, serialize=False)),
                ("token", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="LockTask",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("slot_id", models.CharField(max_length=190)),
                ("token", models.BigIntegerField()),
                ("task_index", models.PositiveIntegerField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("slot_id", "token", "task_index"), name="cloudrun_jobs_one_end_per_task"
                    )
                ],
            },
        ),
    ]
