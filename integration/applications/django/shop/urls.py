import django
from django.db import connection
from django.shortcuts import render
from django.urls import path


def index(request):
    with connection.cursor() as cursor:
        answer = cursor.execute("SELECT 6 * 7").fetchone()[0]
    return render(request, "index.html", {"django": django.get_version(), "answer": answer, "scheme": request.scheme})


urlpatterns = [path("", index)]
