"""Every example that the documentation shows is run or read by a test."""

from __future__ import annotations

from scripts.update_docs import BLOCK
from tests.conftest import REPOSITORY
from tests.integration.docs import test_example_dags, test_examples, test_permissions
from tests.integration.docs.pages import CONNECTIONS, EXAMPLES, MARKDOWN, POLICIES

# Which test runs, or reads, what the pages show.
RUN_BY = {
    EXAMPLES / "dags/describe_asset.py": test_examples.test_quick_start_runs_as_it_is_written,
    EXAMPLES / "try_it.py": test_examples.test_quick_start_runs_as_it_is_written,
    EXAMPLES / "dags/every_operator.py": test_examples.test_each_operator_does_what_the_page_says,
    EXAMPLES / "dags/ways_to_wait.py": test_examples.test_ways_to_wait_come_to_the_same,
    EXAMPLES / "dags/own_tasks.py": test_examples.test_hook_examples_run,
    EXAMPLES / "dags/migrating_before.py": test_examples.test_migrated_dag_does_what_the_function_did,
    EXAMPLES / "dags/migrating_after.py": test_examples.test_migrated_dag_does_what_the_function_did,
    **dict.fromkeys((EXAMPLES / "tests").glob("*.py"), test_examples.test_tests_that_are_shown_pass),
    **dict.fromkeys(CONNECTIONS, test_permissions.test_connection_is_json_that_airflow_reads),
    **dict.fromkeys(POLICIES, test_permissions.test_policy_names_operations_of_the_service),
    EXAMPLES
    / "permissions/join_project.sh": test_permissions.test_commands_that_join_a_project_are_ones_that_the_command_line_takes,
    **dict.fromkeys(test_example_dags.EXAMPLES, test_example_dags.test_example_imports_without_a_warning),
}


def test_what_pages_show_is_run_by_tests_and_all_of_it_is_shown() -> None:
    shown = {REPOSITORY / match["file"] for text in MARKDOWN.values() for match in BLOCK.finditer(text)}
    assert shown == set(RUN_BY)
    assert {path for path in EXAMPLES.rglob("*.*") if path.suffix != ".pyc"} <= shown
