"""Where Airflow's versions differ, each with the version from which it can go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# Airflow 3.0 and early 3.1 resume the retry of a deferred task where the try before had left off, with
# its event, in place of executing it (apache/airflow#56704); can go with 3.1.
RESUMES_RETRIES = (3, 0) <= get_base_airflow_version_tuple() < (3, 2)

try:
    from airflow.sdk.log import mask_secret as mask_secret
except ImportError:
    # Airflow 2.11 has it elsewhere; can go with 2.11.
    from airflow.utils.log.secrets_masker import mask_secret as mask_secret

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:
    # Airflow 2.11 to 3.1 have them elsewhere; can go with 3.1.
    from airflow.exceptions import TaskDeferralError

    try:
        from airflow.exceptions import TaskDeferralTimeout
    except ImportError:
        # Airflow 2.11 has one class for both, told apart by its text; can go with 2.11.
        TaskDeferralTimeout = None


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its time in the triggerer was up."""
    if TaskDeferralTimeout is not None:
        return isinstance(error, TaskDeferralTimeout)
    return isinstance(error, TaskDeferralError) and "timeout" in str(error)


def is_trigger_failure(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its trigger failed without an event."""
    return isinstance(error, TaskDeferralError) and not is_deferral_timeout(error)


def task_state_store(context: Context) -> Any:
    """Return what keeps a task's state over its tries, ``None`` before Airflow 3.3; can go with 3.2."""
    return context.get("task_state_store")
