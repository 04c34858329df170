aws datazone create-user-profile --domain-identifier dzd_1234abcd5678ef \
    --user-identifier arn:aws:iam::123456789012:role/airflow --user-type IAM_ROLE
aws datazone update-user-profile --domain-identifier dzd_1234abcd5678ef \
    --user-identifier arn:aws:iam::123456789012:role/airflow --type IAM --status ACTIVATED
aws datazone create-project-membership --domain-identifier dzd_1234abcd5678ef \
    --project-identifier 3xmpl5g1abcdef --designation PROJECT_CONTRIBUTOR \
    --member userIdentifier=arn:aws:iam::123456789012:role/airflow
aws datazone list-project-memberships --domain-identifier dzd_1234abcd5678ef \
    --project-identifier 3xmpl5g1abcdef
