//! Tests over all combinations of what the registry, the configuration and the pages have, where each of them works
//! alone. A file fails for what has no row in its table.

mod broken_guards;
mod limits;
mod nginx_access_log;
mod nginx_balancing;
mod nginx_body_edits;
mod nginx_ciphers;
mod nginx_classes;
mod nginx_client_certificates;
mod nginx_config_snippets;
mod nginx_connections;
mod nginx_digest;
mod nginx_error_backends;
mod nginx_fastcgi;
mod nginx_guards;
mod nginx_metrics;
mod nginx_mirrors;
mod nginx_passthrough;
mod nginx_permissions;
mod nginx_redirect_ports;
mod nginx_response_rates;
mod nginx_retries;
mod nginx_session_cookies;
mod nginx_streams;
mod nginx_traces;
mod unread_files;
