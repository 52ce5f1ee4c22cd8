//! What Kong writes in the `redis` object although it was not set.

use crate::plugin_api::dumped_fields::DumpedValue::{self, AnyNumber, Flag, Nothing, Number, Record, Text};

/// `cloud_authentication` without a provider, so that the login is `username` and `password`.
pub const NO_CLOUD_LOGIN: DumpedValue = Record(&[
    ("auth_provider", Nothing),
    ("aws_access_key_id", Nothing),
    ("aws_assume_role_arn", Nothing),
    ("aws_cache_name", Nothing),
    ("aws_is_serverless", Flag(true)),
    ("aws_region", Nothing),
    ("aws_role_session_name", Nothing),
    ("aws_secret_access_key", Nothing),
    ("azure_client_id", Nothing),
    ("azure_client_secret", Nothing),
    ("azure_tenant_id", Nothing),
    ("gcp_service_account_json", Nothing),
]);

/// The object where no server is used.
pub const UNSET_SERVER: DumpedValue = Record(&[
    ("cloud_authentication", NO_CLOUD_LOGIN),
    ("cluster_addresses", Nothing),
    ("cluster_max_redirections", Number(5.0)),
    ("cluster_nodes", Nothing),
    ("connect_timeout", Number(2000.0)),
    ("connection_is_proxied", Flag(false)),
    ("database", Number(0.0)),
    ("host", Text("127.0.0.1")),
    ("keepalive_backlog", Nothing),
    ("keepalive_pool_size", AnyNumber),
    ("password", Nothing),
    ("port", Number(6379.0)),
    ("prefix", Nothing),
    ("read_timeout", Number(2000.0)),
    ("send_timeout", Number(2000.0)),
    ("sentinel_addresses", Nothing),
    ("sentinel_master", Nothing),
    ("sentinel_nodes", Nothing),
    ("sentinel_password", Nothing),
    ("sentinel_role", Nothing),
    ("sentinel_username", Nothing),
    ("server_name", Nothing),
    ("socket", Nothing),
    ("ssl", Flag(false)),
    ("ssl_verify", Flag(false)),
    ("timeout", Number(2000.0)),
    ("username", Nothing),
]);
