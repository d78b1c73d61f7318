"""Settings of a project that is served behind a proxy, as Django's documentation advises."""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "only for tests")
DEBUG = False
# Only the names that the platform gives; a probe that asks under another is answered 400.
ALLOWED_HOSTS = [".apps.localhost"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["/app/templates"]}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
