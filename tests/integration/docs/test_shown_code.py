"""A test runs or reads every example in the documentation."""

from __future__ import annotations

from scripts.update_docs import BLOCK
from tests.conftest import REPOSITORY
from tests.integration.docs import test_example_dags, test_examples, test_permissions, test_watchers
from tests.integration.docs.pages import CONNECTIONS, EXAMPLES, MARKDOWN, POLICIES

# The test that runs or reads each example.
TESTS_BY_EXAMPLE = {
    EXAMPLES / "dags/describe_asset.py": test_examples.test_quick_start_runs_as_written,
    EXAMPLES / "try_it.py": test_examples.test_quick_start_runs_as_written,
    EXAMPLES / "dags/every_operator.py": test_examples.test_each_operator_works_as_documented,
    EXAMPLES / "dags/ways_to_wait.py": test_examples.test_all_ways_to_wait_have_the_same_result,
    EXAMPLES / "dags/own_tasks.py": test_examples.test_hook_examples_run,
    EXAMPLES / "reviews/partial_review.py": test_examples.test_person_chooses_which_predictions_are_accepted,
    EXAMPLES
    / "dags/migrating_before.py": test_examples.test_migrated_dag_has_the_same_result_as_the_function,
    EXAMPLES / "dags/migrating_after.py": test_examples.test_migrated_dag_has_the_same_result_as_the_function,
    **dict.fromkeys(
        test_watchers.WATCHERS, test_watchers.test_dag_of_an_example_is_scheduled_on_an_asset_with_a_watcher
    ),
    **dict.fromkeys((EXAMPLES / "tests").glob("*.py"), test_examples.test_example_tests_pass),
    **dict.fromkeys(CONNECTIONS, test_permissions.test_connection_is_valid_json_for_airflow),
    **dict.fromkeys(POLICIES, test_permissions.test_policy_contains_only_operations_of_the_service),
    EXAMPLES
    / "permissions/join_project.sh": test_permissions.test_join_project_commands_have_valid_aws_cli_options,
    **dict.fromkeys(test_example_dags.EXAMPLES, test_example_dags.test_example_imports_without_a_warning),
}


def test_every_example_is_tested_and_documented() -> None:
    shown = {REPOSITORY / match["file"] for text in MARKDOWN.values() for match in BLOCK.finditer(text)}
    assert shown == set(TESTS_BY_EXAMPLE)
    assert {path for path in EXAMPLES.rglob("*.*") if path.suffix != ".pyc"} <= shown
