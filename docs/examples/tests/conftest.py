import os

# Airflow reads its configuration when it is imported.
os.environ["AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY"] = "0"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
