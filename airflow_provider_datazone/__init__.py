"""Apache Airflow provider for Amazon DataZone metadata generation runs."""

__version__ = "0.2.0"
