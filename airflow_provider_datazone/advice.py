"""Advice for errors: the missing permission, the missing resource, the setting of the connection to check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectionError as BotoConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProxyConnectionError,
    SSLError,
)

from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.service_errors import (
    error_code,
    error_message,
    is_access_denied,
    is_denied_by_iam,
    is_denied_by_membership,
    is_denied_role,
    is_domain_missing,
    is_not_found,
    is_rejected_credentials,
    is_unreadable_certificate,
    is_untrusted_certificate,
    not_found_message,
)

# How IAM names a policy other than the principal's own: one that lacks the action, or denies it.
_OTHER_POLICY = re.compile(
    r"because no (?!identity-based)(?P<lacking>[\w -]+?) allows"
    r"|with an explicit deny in an? (?P<denying>[\w -]+)"
)


def permission_advice(error: BaseException) -> Iterator[str]:
    """Yield one sentence that names the permission that a denied request lacks: in IAM, or in DataZone."""
    if not is_access_denied(error):
        return
    if is_denied_role(error):
        yield (
            "Check that the role exists, that the principal's policy allows sts:AssumeRole on the role, and "
            "that the role's trust policy allows the principal."
        )
        return
    operation = str(getattr(error, "operation_name", "the action"))
    resource = (
        'the ARN of the domain or on "*"; it may also be that there is no such domain'
        if operation == "GetDomain"
        else '"Resource": "*", since it grants nothing on the ARN of a domain'
    )
    policy = f"the IAM policy of the connection's principal must allow datazone:{operation} on {resource}"
    membership = (
        "the connection's principal needs an activated user profile in the domain, and membership in the "
        "project that owns the asset"
    )
    if is_denied_by_iam(error):
        reason = _OTHER_POLICY.search(error_message(error))
        if reason is None:
            yield f"IAM denies this: {policy}."
        elif reason["lacking"]:
            yield f"IAM denies this: the {reason['lacking']} has to allow datazone:{operation}, too."
        else:
            yield (
                f"IAM denies this: the {reason['denying']} denies datazone:{operation} explicitly, whatever "
                "other policies allow."
            )
    elif is_denied_by_membership(error):
        yield f"DataZone denies this, whatever IAM allows: {membership}."
    else:
        yield f"Check two permissions: {policy}; and {membership}."


def not_found_advice(error: BaseException, subject: str, request: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence that says what to check, unless DataZone's message names the missing resource."""
    if not is_not_found(error):
        return
    if is_domain_missing(error):
        yield "There is no such domain in this Region: check the domain identifier and the AWS Region."
        return
    message = error_message(error)
    identifiers = [value for name, value in request.items() if name.lower().endswith("identifier")]
    identifiers.append(request.get("target", {}).get("identifier"))
    if any(re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", message) for each in identifiers if each):
        return
    missing, project = not_found_message(error), request.get("owningProjectIdentifier")
    where = "the domain and the AWS Region"
    revision = request.get("revision") or request.get("target", {}).get("revision")
    if subject.startswith("run "):
        yield f"There is no such run in this domain: check the run identifier, {where}."
    elif "project" in missing and project:
        name = sanitize(repr(project), length=200)
        yield f"There is no project {name} in this domain: check the project identifier, {where}."
    elif subject.startswith("asset ") and "prediction" in missing:
        yield "The asset has no predictions that are neither accepted nor rejected."
    elif subject.startswith(("asset ", "listing metadata generation runs of ")):
        if revision:
            yield f"There is no such asset or revision in this domain: check both, {where}."
        else:
            yield f"There is no such asset in this domain: check the asset identifier, {where}."
    else:
        yield f"Check {where}."


def connection_advice(error: BaseException) -> Iterator[str]:
    """Yield fixes for a connection that does not work, with the field labels of its form."""
    if isinstance(error, NoRegionError):
        yield "Set the AWS Region, 'region_name' in the extra."
    elif isinstance(error, NoCredentialsError):
        yield (
            "Set the AWS Access Key ID and the AWS Secret Access Key, or provide credentials where the task "
            "runs; if the connection has a role, they assume it."
        )
    elif is_rejected_credentials(error):
        yield "Check the AWS Access Key ID and the AWS Secret Access Key."
        if isinstance(error, ClientError) and error_code(error).startswith("Expired"):
            yield "Renew the session token, if there is one: it has expired."
    elif isinstance(error, ProxyConnectionError):
        yield "Check the proxy."
    elif isinstance(error, SSLError) and is_unreadable_certificate(error):
        yield "Check verify and the CA bundle."
    elif isinstance(error, SSLError) and is_untrusted_certificate(error):
        yield "Check verify, the CA bundle and the endpoint URL."
    elif isinstance(error, BotoConnectionError):
        yield "Check the AWS Region and the endpoint URL."
