"""All of the package's data is in setup.cfg; this file lets tools that still ask for it find it."""

from setuptools import setup

setup()
