"""Models whose rows `shard()` splits in tests."""

from __future__ import annotations

from uuid import uuid4

from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=50)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Biography(models.Model):
    """A model whose primary key is a relation to one with an order of its own."""

    author = models.OneToOneField(Author, on_delete=models.CASCADE, primary_key=True)

    def __str__(self) -> str:
        return f"Life of {self.author}"


class Book(models.Model):
    title = models.CharField(max_length=50)
    pages = models.IntegerField(default=0)
    isbn = models.CharField(max_length=20, unique=True)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, null=True, related_name="books")
    translators = models.ManyToManyField(Author, related_name="translations")

    def __str__(self) -> str:
        return self.title


class Novel(Book):
    """A book in two tables, whose primary key is a relation."""

    genre = models.CharField(max_length=20)


class Token(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid4)

    def __str__(self) -> str:
        return str(self.id)


class Country(models.Model):
    code = models.CharField(max_length=20, primary_key=True)

    def __str__(self) -> str:
        return self.code


class Measurement(models.Model):
    at = models.DateTimeField(primary_key=True)

    def __str__(self) -> str:
        return str(self.at)


class Flight(models.Model):
    pk = models.CompositePrimaryKey("airline", "number")
    airline = models.CharField(max_length=2)
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.airline}{self.number}"
