"""What the provider registers with Airflow: modules, connection form, links, decorator and settings. Data only."""

from __future__ import annotations

from typing import Any

from airflow_provider_gemini_batch import __version__

_PACKAGE = "airflow_provider_gemini_batch"
_INTEGRATION = "Gemini Batch"

_TEXT = {"type": ["string", "null"]}

# The form of the connection. Airflow draws it from here (since 3.2) without importing the hook.
_CONNECTION_FIELDS: dict[str, Any] = {
    "backend": {
        "label": "Service",
        "description": "gemini: the Gemini Developer API, with an API key. vertex: Vertex AI, with Google credentials.",
        "schema": {"type": "string", "enum": ["gemini", "vertex"], "default": "gemini"},
    },
    "project_id": {
        "label": "Project",
        "description": "Google Cloud project (Vertex), such as my-project. Empty: the project of the credentials.",
        "schema": _TEXT,
    },
    "location": {
        "label": "Location",
        "description": "Vertex region, such as us-central1, or global. Empty: [gemini_batch] location, else global.",
        "schema": _TEXT,
    },
    "keyfile_dict": {
        "label": "Key file (JSON)",
        "description": "The whole text of a service-account key, or of another credential with secrets (Vertex). "
        "Empty: Application Default Credentials.",
        "schema": {"type": ["string", "null"], "format": "password", "multiline": True},
    },
    "key_path": {
        "label": "Key file path",
        "description": "Path of a service-account key on workers and triggerers (Vertex).",
        "schema": _TEXT,
    },
    "credential_config_file": {
        "label": "Credential configuration",
        "description": "Path of a credential configuration for workload identity federation (Vertex). Its JSON only if "
        "that has no secrets: this field is not hidden.",
        "schema": _TEXT,
    },
    "impersonation_chain": {
        "label": "Impersonation chain",
        "description": "Service account to act as, or several separated by commas, the last one acting (Vertex).",
        "schema": _TEXT,
    },
    "iam_endpoint": {
        "label": "IAM endpoint",
        "description": "Base URL of the service that impersonates, where it is not Google's own (Vertex).",
        "schema": _TEXT,
    },
    "storage_endpoint": {
        "label": "Storage endpoint",
        "description": "Base URL of Cloud Storage, where it is not Google's own (Vertex).",
        "schema": _TEXT,
    },
    "quota_project_id": {
        "label": "Quota project",
        "description": "Project that calls are counted against, where it is not the project above (Vertex).",
        "schema": _TEXT,
    },
    "staging_path": {
        "label": "Staging path",
        "description": "Folder for what a task needs after its wait, and for rows on their way to Vertex AI: a local "
        "path or a URI such as gs://bucket/folder.",
        "schema": _TEXT,
    },
    "labels": {
        "label": "Labels",
        "description": "JSON object of labels for every job (Vertex).",
        "schema": {"type": ["object", "null"]},
    },
    "max_active_jobs": {
        "label": "Jobs at a time",
        "description": "How many jobs of this connection may run at once, over all tasks. Empty: no limit.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "timeout": {
        "label": "HTTP time-out",
        "description": "Seconds that one call to the service may take.",
        "schema": {"type": ["number", "null"], "minimum": 1},
    },
}

PROVIDER_INFO: dict[str, Any] = {
    "package-name": "airflow-provider-gemini-batch",
    "name": _INTEGRATION,
    "description": "Gemini batch jobs, on the Gemini Developer API and on Vertex AI.",
    "versions": [__version__],
    "integrations": [
        {
            "integration-name": _INTEGRATION,
            "external-doc-url": "https://ai.google.dev/gemini-api/docs/batch-api",
            "tags": ["ai", "google"],
        }
    ],
    "hooks": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.hooks"]}],
    "operators": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.operators"]}],
    "sensors": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.sensors"]}],
    "triggers": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.triggers"]}],
    "connection-types": [
        {
            "connection-type": "gemini_batch",
            "hook-class-name": f"{_PACKAGE}.hooks.GeminiBatchHook",
            "hook-name": _INTEGRATION,
            "conn-fields": _CONNECTION_FIELDS,
            "ui-field-behaviour": {
                # The port is shown because the Test button of Airflow 3.3 is refused where none is stored.
                "hidden-fields": ["login", "schema"],
                "relabeling": {"password": "API key", "host": "Base URL"},
                "placeholders": {
                    # Airflow shows placeholders of standard fields only; the others have examples in their words.
                    "host": "empty for Google's own, or http://127.0.0.1:8787 for the emulator",
                    "password": "API key (Gemini Developer API only)",
                    "port": "empty, but the Test button of the list needs a number here: 443",
                },
            },
        }
    ],
    "extra-links": [
        f"{_PACKAGE}.links.GeminiBatchLink",
        f"{_PACKAGE}.links.GeminiBatchJobLink",
        f"{_PACKAGE}.links.GeminiBatchOutputLink",
    ],
    "task-decorators": [{"name": "gemini_batch", "class-name": f"{_PACKAGE}.decorators.gemini_batch_task"}],
    "cli": [f"{_PACKAGE}.cli.airflow_commands"],
    "config": {
        "gemini_batch": {
            "description": "Settings of the Gemini batch provider.",
            "options": {
                "deployment_id": {
                    "description": (
                        "Name of this Airflow in the tags of its jobs. Set it where several Airflows share an API key "
                        "or a project. Empty, it is made from Airflow's own URLs ([api] base_url and [core] "
                        "execution_api_server_url); where these are empty too, all such Airflows look alike."
                    ),
                    "version_added": "0.1.0",
                    "type": "string",
                    "example": "prod-eu",
                    "default": "",
                },
                "location": {
                    "description": "Vertex location for connections and tasks that name none.",
                    "version_added": "0.1.0",
                    "type": "string",
                    "example": "europe-west4",
                    "default": "",
                },
                "local_paths": {
                    "description": (
                        "What to do about a local path under an executor that may run tasks on other machines: warn "
                        "(the default), refuse, or allow, where all workers share the disk."
                    ),
                    "version_added": "0.2.0",
                    "type": "string",
                    "example": "refuse",
                    "default": "",
                },
                "staging_path": {
                    "description": (
                        "Folder for what a task needs after its wait, and for rows on their way to Vertex AI, for "
                        "connections and tasks that name none: a local path or a URI."
                    ),
                    "version_added": "0.1.0",
                    "type": "string",
                    "example": "gs://my-bucket/gemini-batch",
                    "default": "",
                },
            },
        }
    },
}
