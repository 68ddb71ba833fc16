"""The table of rates."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Rate",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("date", models.DateField()),
                ("currency", models.CharField(max_length=3)),
                ("value", models.DecimalField(decimal_places=6, max_digits=15)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=["date", "currency"], name="one_rate_a_day")],
            },
        ),
    ]
