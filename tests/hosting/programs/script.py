"""A plain script that does not even close its client."""

from visits import visit, visits

print(visit("script")[0], visits.info()["hub"])
