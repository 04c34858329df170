aws datazone create-user-profile --domain-identifier dzd_1234abcd5678ef \
    --user-identifier arn:aws:iam::123456789012:role/airflow-datazone --user-type IAM_ROLE
aws datazone update-user-profile --domain-identifier dzd_1234abcd5678ef \
    --user-identifier arn:aws:iam::123456789012:role/airflow-datazone --type IAM --status ACTIVATED
aws datazone create-project-membership --domain-identifier dzd_1234abcd5678ef \
    --project-identifier 5a6b7c8d9e --designation PROJECT_CONTRIBUTOR \
    --member userIdentifier=arn:aws:iam::123456789012:role/airflow-datazone
aws datazone list-project-memberships --domain-identifier dzd_1234abcd5678ef \
    --project-identifier 5a6b7c8d9e
