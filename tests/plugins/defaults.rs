//! Comparison of fields and defaults with those of Kong 3.10. Later releases of Kong changed some defaults.

use std::fs;

use portico::plugins::REGISTRY;
use serde_json::{Map, Value, json};

use crate::plugins::fields;
use crate::root;

/// The fields of Kong's plugin with their defaults, `null` for a field without a default.
fn kong_defaults(plugin: &str) -> Value {
    match plugin {
        "acl" => json!({
            "allow": null, "deny": null, "hide_groups_header": false, "always_use_authenticated_groups": false,
        }),
        "basic-auth" => json!({"anonymous": null, "hide_credentials": false, "realm": "service"}),
        "bot-detection" => json!({"allow": [], "deny": []}),
        "correlation-id" => json!({
            "header_name": "Kong-Request-ID", "generator": "uuid#counter", "echo_downstream": false,
        }),
        "compression" => json!({
            "codings": ["zstd", "br", "gzip"],
            "types": [
                "text/*", "application/json", "application/*+json", "application/javascript", "application/xml",
                "application/*+xml", "application/wasm", "application/x-ndjson", "font/ttf", "font/otf",
                "image/svg+xml",
            ],
            "min_length": 1024, "levels": null, "levels.gzip": 5, "levels.br": 4, "levels.zstd": 3,
            "with_credentials": false, "request": null, "request.decompress": false, "request.max_bytes": 1_048_576,
            "request.max_ratio": 100,
        }),
        "error-pages" => json!({
            "pages": null, "pages[].statuses": null, "pages[].from": "gateway", "pages[].hosts": [],
            "pages[].bodies": null, "pages[].bodies[].content_type": null, "pages[].bodies[].template": null,
            "cache_control": "no-store",
        }),
        "grpc-gateway" => json!({
            "proto": null, "imports": {}, "descriptor_set": null, "max_message_bytes": 1_048_576,
            "reject_unknown_fields": false, "emit_defaults": true, "json_names": false,
        }),
        "grpc-web" => json!({
            "proto": null, "imports": {}, "descriptor_set": null, "pass_stripped_path": false,
            "allow_origin_header": "*",
        }),
        "cors" => json!({
            "origins": [], "headers": [], "exposed_headers": [],
            "methods": ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"],
            "max_age": null, "credentials": false, "private_network": false, "preflight_continue": false,
            "allow_origin_absent": true,
        }),
        "hmac-auth" => json!({
            "hide_credentials": false, "clock_skew": 300.0, "anonymous": null, "validate_request_body": false,
            "enforce_headers": [], "algorithms": ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"],
            "realm": null,
        }),
        "forward-proxy" => json!({
            "http_proxy_host": null, "http_proxy_port": null, "https_proxy_host": null, "https_proxy_port": null,
            "proxy_scheme": "http", "https_verify": true, "auth_username": null, "auth_password": null,
            "x_headers": "append",
        }),
        "forward-auth" => json!({
            "address": "", "request_headers": [], "response_headers": [], "client_response_headers": [], "cookies": [],
            "user_header": null, "groups_header": null, "preserve_method": false, "max_body_size": 0,
            "sign_in_url": null, "sign_in_parameter": "rd", "timeout": 5000, "keepalive": 60000, "ssl_verify": true,
        }),
        "header-cert-auth" => json!({
            "certificate_header_name": "", "certificate_header_format": null, "secure_source": true,
            "ca_certificates": [], "revocation_check_mode": "IGNORE_CA_ERROR", "skip_consumer_lookup": false,
            "consumer_by": ["username", "custom_id"], "default_consumer": null, "anonymous": null,
            "authenticated_group_by": "CN", "cert_cache_ttl": 60000, "cache_ttl": null, "http_timeout": null,
            "allow_partial_chain": null,
        }),
        "identity-keys" => json!({"max_age": 300}),
        "internal-identity" => json!({
            "issuer": "", "audience": [], "ttl": 300, "keys": [], "algorithm": null, "subject": "consumer",
            "claims": {}, "header": "authorization", "scheme": "Bearer", "remove_headers": ["authorization"],
            "remove_cookies": [], "remove_parameters": [], "user_header": null, "groups_header": null,
            "allow_unauthenticated": false,
        }),
        "injection-protection" => json!({
            "injection_types": ["sql"], "locations": ["path_and_query"], "custom_injections": null,
            "custom_injections[].name": null, "custom_injections[].regex": null, "enforcement_mode": "block",
            "error_status_code": 400, "error_message": "Bad Request",
        }),
        "json-threat-protection" => json!({
            "max_container_depth": -1, "max_array_element_count": -1, "max_object_entry_count": -1,
            "max_object_entry_name_length": -1, "max_string_value_length": -1, "max_body_size": 8192,
            "allow_duplicate_object_entry_name": true, "allow_non_json_requests": false, "enforcement_mode": "block",
            "error_status_code": 400, "error_message": "Bad Request",
        }),
        "aggregate" => json!({
            "calls": [], "calls[].name": "", "calls[].url": "", "calls[].method": "GET", "calls[].headers": {},
            "calls[].forward_headers": [], "calls[].forward_body": false, "calls[].on_failure": "fail",
            "calls[].timeout": 5000, "calls[].keepalive": 60000, "calls[].ssl_verify": true,
            "calls[].max_response_size": 1_048_576, "template": null, "merge": false, "timeout": 10000,
            "concurrency": 8, "max_body_size": 1_048_576,
        }),
        "aws-lambda" => json!({
            "function_name": "", "qualifier": null, "aws_region": null, "aws_key": null, "aws_secret": null,
            "aws_assume_role_arn": null, "aws_role_session_name": "kong", "aws_sts_endpoint_url": null,
            "aws_imds_protocol_version": "v1", "host": null, "port": 443, "disable_https": false, "ssl_verify": true,
            "proxy_url": null, "timeout": 60000, "keepalive": 60000, "invocation_type": "RequestResponse",
            "log_type": "None", "unhandled_status": null, "preserve_lambda_api_error_code": false,
            "forward_request_method": false, "forward_request_uri": false, "forward_request_headers": false,
            "forward_request_body": false, "awsgateway_compatible": false,
            "awsgateway_compatible_payload_version": "1.0", "is_proxy_integration": false, "skip_large_bodies": true,
            "base64_encode_body": true, "empty_arrays_mode": "legacy",
        }),
        "azure-functions" => json!({
            "appname": "", "functionname": "", "hostdomain": "azurewebsites.net", "routeprefix": "api", "apikey": null,
            "clientid": null, "https": true, "https_verify": false, "timeout": 600_000, "keepalive": 60000,
        }),
        "soap" => json!({
            "mode": "soap", "version": "1.1", "operation": null, "namespace": null, "template": null,
            "header_template": null, "action": null, "lists": [], "keep_namespaces": false, "fault_statuses": {},
            "max_body_size": 1_048_576, "max_depth": 50,
        }),
        "mocking" => json!({
            "api_specification": "", "api_specification_filename": null, "random_delay": false,
            "min_delay_time": 0.001, "max_delay_time": 1.0, "random_examples": false, "included_status_codes": [],
            "random_status_code": false, "include_base_path": false, "custom_base_path": null,
        }),
        "oas-validation" => json!({
            "api_spec": "", "api_spec_encoded": true, "validate_request_body": true,
            "validate_request_header_params": true, "validate_request_query_params": true,
            "validate_request_uri_params": true, "validate_response_body": false, "header_parameter_check": false,
            "query_parameter_check": false,
            "allowed_header_parameters": "Host,Content-Type,User-Agent,Accept,Content-Length",
            "notify_only_request_validation_failure": false, "notify_only_response_body_validation_failure": false,
            "verbose_response": false, "include_base_path": false, "custom_base_path": null,
            "collect_all_errors": false,
        }),
        "request-validator" => json!({
            "version": "kong", "body_schema": null, "parameter_schema": null, "parameter_schema[].name": null,
            "parameter_schema[].in": null, "parameter_schema[].required": null, "parameter_schema[].schema": null,
            "parameter_schema[].style": null, "parameter_schema[].explode": null,
            "allowed_content_types": ["application/json"], "content_type_parameter_validation": true,
            "verbose_response": false, "enforcement_mode": "block", "array_length_compat": null,
        }),
        "xml-threat-protection" => json!({
            "checked_content_types": ["application/xml"], "allowed_content_types": [], "allow_dtd": false,
            "namespace_aware": true, "max_depth": 50, "max_children": 100, "max_attributes": 100,
            "max_namespaces": 20, "document": 10_485_760, "buffer": 1_048_576, "comment": 1024, "localname": 1024,
            "prefix": 1024, "namespaceuri": 1024, "attribute": 1_048_576, "text": 1_048_576, "pitarget": 1024,
            "pidata": 1024, "entityname": 1024, "entity": 1024, "entityproperty": 1024,
            "bla_max_amplification": 100.0, "bla_threshold": 8_388_608,
        }),
        "jwt-signer" => jwt_signer_defaults(),
        "mtls-auth" => json!({
            "ca_certificates": [], "revocation_check_mode": "IGNORE_CA_ERROR", "skip_consumer_lookup": false,
            "consumer_by": ["username", "custom_id"], "default_consumer": null, "anonymous": null,
            "authenticated_group_by": "CN", "cert_cache_ttl": 60000, "cache_ttl": null, "http_timeout": null,
            "allow_partial_chain": null, "send_ca_dn": null,
        }),
        "oauth2" => json!({
            "scopes": [], "mandatory_scope": false, "provision_key": null, "token_expiration": 7200,
            "enable_authorization_code": false, "enable_implicit_grant": false, "enable_client_credentials": false,
            "enable_password_grant": false, "hide_credentials": false, "accept_http_if_already_terminated": false,
            "anonymous": null, "global_credentials": false, "auth_header_name": "authorization",
            "refresh_token_ttl": 1_209_600, "reuse_refresh_token": false, "pkce": "lax", "realm": null,
        }),
        "oauth2-introspection" => json!({
            "introspection_url": "", "authorization_value": "", "token_type_hint": null, "ttl": 30, "timeout": 10000,
            "keepalive": 60000, "hide_credentials": true, "introspect_request": false,
            "custom_introspection_headers": {}, "custom_claims_forward": [], "consumer_by": "username",
            "anonymous": null, "run_on_preflight": true,
        }),
        "opa" => json!({
            "opa_host": "localhost", "opa_port": 8181, "opa_protocol": "http", "opa_path": "",
            "include_service_in_opa_input": false, "include_route_in_opa_input": false,
            "include_consumer_in_opa_input": false, "include_body_in_opa_input": false,
            "include_parsed_json_body_in_opa_input": false, "include_uri_captures_in_opa_input": false,
            "ssl_verify": true,
        }),
        "api-version" => json!({
            "path": false, "path_prefix": "", "header": null, "query": null, "media_type_parameter": null,
            "versions": [], "versions[].name": null, "versions[].deprecated": null, "versions[].sunset": null,
            "versions[].after_sunset": "serve", "versions[].deprecation_link": null,
            "versions[].sunset_link": null, "versions[].successor_link": null,
            "default_version": null, "upstream_header": null,
        }),
        "canary" => json!({
            "percentage": null, "start": null, "duration": 3600.0, "steps": 1000, "hash": "consumer",
            "hash_header": null, "groups": [], "upstream_host": null, "upstream_port": null, "upstream_uri": null,
            "upstream_fallback": false, "canary_by_header_name": null,
        }),
        "route-by-header" => json!({
            "rules": [], "rules[].condition": null, "rules[].upstream_name": null,
        }),
        "mask" => json!({
            "fields": [], "kinds": [], "patterns": [], "replacement": "***", "response_body": true,
            "max_body_size": 1_048_576, "log": null, "log.fields": [], "log.headers": [], "log.query_parameters": [],
            "log.cookies": [], "log.access_log_fields": [],
        }),
        "websocket-size-limit" => json!({"client_max_payload": null, "upstream_max_payload": null}),
        "upstream-timeout" => json!({"connect_timeout": null, "send_timeout": null, "read_timeout": null}),
        "upstream-oauth" => json!({
            "oauth": null, "oauth.token_endpoint": "", "oauth.grant_type": "client_credentials",
            "oauth.client_id": null, "oauth.client_secret": null, "oauth.username": null, "oauth.password": null,
            "oauth.scopes": ["openid"], "oauth.audience": [], "oauth.token_headers": {}, "oauth.token_post_args": {},
            "client": null, "client.auth_method": "client_secret_post", "client.timeout": 10000,
            "client.keep_alive": true, "client.ssl_verify": true,
            "cache": null, "cache.strategy": "memory", "cache.default_ttl": 3600, "cache.eagerly_expire": 5,
            "behavior": null, "behavior.upstream_access_token_header_name": "Authorization",
            "behavior.idp_error_response_status_code": 502,
            "behavior.idp_error_response_message": "Failed to authenticate request to upstream",
            "behavior.idp_error_response_body_template": null,
            "behavior.idp_error_response_content_type": "application/json; charset=utf-8",
            "behavior.purge_token_on_upstream_status_codes": [401],
        }),
        "datadog" => json!({
            "host": "localhost", "port": 8125, "prefix": "kong", "service_name_tag": "name", "status_tag": "status",
            "consumer_tag": "consumer", "metrics": null, "metrics[].name": null, "metrics[].stat_type": null,
            "metrics[].tags": [], "metrics[].sample_rate": null, "metrics[].consumer_identifier": null,
            "queue": null, "queue.max_batch_size": 1, "queue.max_coalescing_delay": 1.0, "queue.max_entries": 10000,
            "queue.max_bytes": null, "queue.max_retry_time": 60.0, "queue.initial_retry_delay": 0.01,
            "queue.max_retry_delay": 60.0, "queue.concurrency_limit": 1,
            "retry_count": null, "queue_size": null, "flush_timeout": null,
        }),
        "file-log" => json!({"path": null, "reopen": false, "custom_fields_by_lua": {}}),
        "loggly" => json!({
            "host": "logs-01.loggly.com", "port": 514, "key": null, "tags": ["kong"], "log_level": "info",
            "successful_severity": "info", "client_errors_severity": "info", "server_errors_severity": "info",
            "timeout": 10000, "custom_fields_by_lua": {},
        }),
        "statsd" => json!({
            "host": "localhost", "port": 8125, "prefix": "kong", "metrics": null, "allow_status_codes": null,
            "udp_packet_size": 0, "use_tcp": false, "hostname_in_prefix": false,
            "consumer_identifier_default": "custom_id", "service_identifier_default": "service_name_or_host",
            "workspace_identifier_default": "workspace_id", "tag_style": null, "metrics[].name": null,
            "metrics[].stat_type": null, "metrics[].sample_rate": null, "metrics[].consumer_identifier": null,
            "metrics[].service_identifier": null, "metrics[].workspace_identifier": null,
            "queue": null, "queue.max_batch_size": 1, "queue.max_coalescing_delay": 1.0, "queue.max_entries": 10000,
            "queue.max_bytes": null, "queue.max_retry_time": 60.0, "queue.initial_retry_delay": 0.01,
            "queue.max_retry_delay": 60.0, "queue.concurrency_limit": 1,
            "retry_count": null, "queue_size": null, "flush_timeout": null,
        }),
        "syslog" => json!({
            "host": null, "port": null, "protocol": "udp", "ssl_verify": true, "log_level": "info",
            "successful_severity": "info", "client_errors_severity": "info", "server_errors_severity": "info",
            "facility": "user", "custom_fields_by_lua": {},
        }),
        "kafka-log" => json!({
            "bootstrap_servers": null, "bootstrap_servers[].host": null,
            "bootstrap_servers[].port": null, "topic": "", "custom_fields_by_lua": {}, "authentication": null, "authentication.strategy": null, "authentication.mechanism": null,
            "authentication.user": null, "authentication.password": null, "authentication.tokenauth": null,
            "security": null, "security.ssl": null, "security.ssl_verify": true, "security.certificate_id": null,
            "cluster_name": null, "key_query_arg": null, "schema_registry": null, "timeout": 10000,
            "keepalive": 60000, "keepalive_enabled": false, "producer_request_acks": 1,
            "producer_request_timeout": 2000, "producer_request_limits_messages_per_request": 200,
            "producer_request_limits_bytes_per_request": 1_048_576, "producer_request_retries_max_attempts": 10,
            "producer_request_retries_backoff_timeout": 100, "producer_async": true,
            "producer_async_flush_timeout": 1000, "producer_async_buffering_limits_messages_in_memory": 50000,
        }),
        "kafka-upstream" => json!({
            "bootstrap_servers": null, "bootstrap_servers[].host": null,
            "bootstrap_servers[].port": null, "topic": "", "topics_query_arg": null, "allowed_topics": [],
            "forward_method": false, "forward_uri": false, "forward_headers": false, "forward_body": true,
            "message_by_lua_functions": [], "authentication": null, "authentication.strategy": null, "authentication.mechanism": null,
            "authentication.user": null, "authentication.password": null, "authentication.tokenauth": null,
            "security": null, "security.ssl": null, "security.ssl_verify": true, "security.certificate_id": null,
            "cluster_name": null, "key_query_arg": null, "schema_registry": null, "timeout": 10000,
            "keepalive": 60000, "keepalive_enabled": false, "producer_request_acks": 1,
            "producer_request_timeout": 2000, "producer_request_limits_messages_per_request": 200,
            "producer_request_limits_bytes_per_request": 1_048_576, "producer_request_retries_max_attempts": 10,
            "producer_request_retries_backoff_timeout": 100, "producer_async": true,
            "producer_async_flush_timeout": 1000, "producer_async_buffering_limits_messages_in_memory": 50000,
        }),
        "tcp-log" => json!({
            "host": null, "port": null, "timeout": 10000, "keepalive": 60000, "tls": false, "tls_sni": null,
            "ssl_verify": true, "custom_fields_by_lua": {},
        }),
        "udp-log" => json!({"host": null, "port": null, "timeout": 10000, "custom_fields_by_lua": {}}),
        "http-log" => json!({
            "http_endpoint": null, "method": "POST", "content_type": "application/json", "timeout": 10000,
            "keepalive": 60000, "headers": {}, "custom_fields_by_lua": {}, "retry_count": null, "queue_size": null,
            "flush_timeout": null, "queue": null, "queue.max_batch_size": 1, "queue.max_coalescing_delay": 1.0,
            "queue.max_entries": 10000, "queue.max_bytes": null, "queue.max_retry_time": 60.0,
            "queue.initial_retry_delay": 0.01, "queue.max_retry_delay": 60.0, "queue.concurrency_limit": 1,
        }),
        "opentelemetry" => with_queue(json!({
            "traces_endpoint": null, "logs_endpoint": null, "endpoint": null, "headers": {},
            "resource_attributes": {},
            "sampling_rate": 0.01, "connect_timeout": 1000,
            "send_timeout": 5000, "read_timeout": 5000, "http_response_header_for_traceid": null, "propagation": null,
            "propagation.extract": null, "propagation.clear": [], "propagation.inject": null,
            "propagation.default_format": null, "header_type": "preserve", "batch_span_count": null,
            "batch_flush_delay": null,
        })),
        "zipkin" => with_queue(json!({
            "http_endpoint": null, "local_service_name": "kong", "default_service_name": null, "sample_ratio": 0.001,
            "include_credential": true, "traceid_byte_count": 16, "tags_header": "Zipkin-Tags", "static_tags": [],
            "static_tags[].name": null, "static_tags[].value": null, "http_span_name": "method",
            "connect_timeout": 2000, "send_timeout": 5000, "read_timeout": 5000,
            "http_response_header_for_traceid": null, "phase_duration_flavor": "annotations", "propagation": null,
            "propagation.extract": null, "propagation.clear": [], "propagation.inject": null,
            "propagation.default_format": null, "header_type": "preserve", "default_header_type": "b3",
        })),
        "ip-restriction" => json!({"allow": [], "deny": [], "status": 403, "message": null}),
        "jwt" => json!({
            "uri_param_names": ["jwt"], "cookie_names": [], "header_names": ["authorization"], "key_claim_name": "iss",
            "secret_is_base64": false, "claims_to_verify": [], "maximum_expiration": 0, "run_on_preflight": true,
            "anonymous": null, "realm": null,
        }),
        "key-auth" => json!({
            "key_names": ["apikey"], "hide_credentials": false, "anonymous": null, "key_in_header": true,
            "key_in_query": true, "key_in_body": false, "run_on_preflight": true, "realm": null,
        }),
        "post-function" | "pre-function" => json!({
            "access": [], "header_filter": [], "rewrite": [], "certificate": [], "body_filter": [], "log": [],
            "ws_handshake": [], "ws_client_frame": [], "ws_upstream_frame": [], "ws_close": [],
        }),
        // The fields whose defaults Kong documents. This plugin belongs to Kong's enterprise edition.
        "openid-connect" => json!({
            "scopes": ["openid"], "leeway": 0, "scopes_claim": ["scope"], "audience_claim": ["aud"],
            "groups_claim": ["groups"], "roles_claim": ["roles"], "consumer_by": ["username", "custom_id"],
            "consumer_optional": false, "credential_claim": ["sub"], "session_storage": "cookie",
            "session_cookie_name": "session", "session_cookie_path": "/", "session_cookie_same_site": "Lax",
            "session_cookie_http_only": true, "session_idling_timeout": 900, "session_rolling_timeout": 3600,
            "session_absolute_timeout": 86400, "login_action": "upstream", "logout_methods": ["POST", "DELETE"],
            "authorization_cookie_name": "authorization", "authorization_rolling_timeout": 600,
            "upstream_access_token_header": "authorization:bearer", "hide_credentials": true, "cache_ttl": 3600,
            "cache_introspection": true, "cache_tokens": true, "timeout": 10000, "ssl_verify": true,
            "unauthorized_error_message": "Unauthorized", "forbidden_error_message": "Forbidden",
            "run_on_preflight": true, "anonymous": null,
        }),
        "ldap-auth" => json!({
            "ldap_host": null, "ldap_port": 389, "ldaps": false, "start_tls": false, "verify_ldap_host": false,
            "base_dn": null, "attribute": null, "cache_ttl": 60, "hide_credentials": false, "timeout": 10000,
            "keepalive": 60000, "anonymous": null, "header_type": "ldap", "realm": null,
        }),
        "ldap-auth-advanced" => json!({
            "ldap_host": null, "ldap_port": 389, "ldaps": false, "start_tls": false, "verify_ldap_host": false,
            "base_dn": null, "attribute": null, "bind_dn": null, "ldap_password": null, "cache_ttl": 60,
            "hide_credentials": false, "timeout": 10000, "keepalive": 60000, "anonymous": null, "header_type": "ldap",
            "realm": null, "consumer_by": ["username", "custom_id"], "consumer_optional": false,
            "group_base_dn": null, "group_name_attribute": null, "group_member_attribute": "memberOf",
            "groups_required": [], "log_search_results": false,
        }),
        "prometheus" => json!({
            "per_consumer": false, "status_code_metrics": false, "ai_metrics": false, "latency_metrics": false,
            "bandwidth_metrics": false, "upstream_health_metrics": false, "wasm_metrics": false,
        }),
        "proxy-cache" | "proxy-cache-advanced" => with_redis(json!({
            "strategy": null, "mode": "kong", "response_code": [200, 301, 404], "request_method": ["GET", "HEAD"],
            "content_type": ["text/plain", "application/json"], "cache_ttl": 300, "storage_ttl": null,
            "cache_control": false, "ignore_uri_case": false, "vary_query_params": [], "vary_headers": [],
            "memory": null, "memory.dictionary_name": "kong_db_cache", "response_headers": null,
            "response_headers.age": true, "response_headers.X-Cache-Status": true,
            "response_headers.X-Cache-Key": true, "max_body_size": 1_048_576, "cache_authorization": false,
            "cache_set_cookie": false, "collapse_timeout": null, "bypass_on_err": false,
        })),
        "rate-limiting" => with_redis_aliases(json!({
            "second": null, "minute": null, "hour": null, "day": null, "month": null, "year": null,
            "limit_by": "consumer", "header_name": null, "path": null, "policy": "local", "fault_tolerant": true,
            "hide_client_headers": false, "error_code": 429, "error_message": "API rate limit exceeded",
            "sync_rate": -1.0,
        })),
        "degraphql" => json!({"graphql_server_path": "/graphql"}),
        // The strategy is `cluster` in Kong, which needs a database.
        "graphql-rate-limiting-advanced" => with_redis(json!({
            "limit": [], "window_size": [], "window_type": "sliding", "identifier": "consumer", "namespace": null,
            "strategy": "local", "sync_rate": null, "dictionary_name": "kong_rate_limiting_counters",
            "hide_client_headers": false, "cost_strategy": "default", "max_cost": 0.0, "score_factor": 1.0,
            "pass_all_downstream_headers": false,
        })),
        "graphql-proxy-cache-advanced" => with_redis(json!({
            "strategy": "memory", "cache_ttl": 300, "vary_headers": [], "bypass_on_err": false, "memory": null,
            "memory.dictionary_name": "kong_db_cache",
        })),
        "rate-limiting-advanced" => with_redis(json!({
            "limit": [], "window_size": [], "window_type": "sliding", "identifier": "consumer",
            "compound_identifier": [], "header_name": null, "path": null, "namespace": null, "strategy": "local",
            "sync_rate": null, "dictionary_name": "kong_rate_limiting_counters", "hide_client_headers": false,
            "error_code": 429, "error_message": "API rate limit exceeded", "disable_penalty": false,
            "retry_after_jitter_max": 0, "throttling": null, "throttling.enabled": false, "throttling.interval": 5,
            "throttling.queue_limit": 5, "throttling.retry_times": 3, "enforce_consumer_groups": false,
            "consumer_groups": [],
        })),
        "response-ratelimiting" => with_redis_aliases(json!({
            "limits": null, "header_name": "x-kong-limit", "limit_by": "consumer", "policy": "local",
            "fault_tolerant": true, "block_on_first_violation": false, "hide_client_headers": false,
        })),
        "usage-plan" => with_redis(json!({
            "plans": null, "plans[].name": "", "plans[].groups": [], "plans[].rate": null,
            "plans[].rate.requests": 0, "plans[].rate.per": "second", "plans[].rate.burst": null,
            "plans[].quotas": null, "plans[].quotas.day": null, "plans[].quotas.month": null, "limit_by": "consumer",
            "header_name": null, "policy": "memory", "fault_tolerant": false, "warn_at": 80,
            "hide_client_headers": false, "error_message": "Usage plan exceeded",
        })),
        "redirect" => json!({"status_code": 301, "location": null, "keep_incoming_path": false}),
        "request-transformer" => json!({
            "http_method": null,
            "remove": null, "remove.body": [], "remove.headers": [], "remove.querystring": [],
            "rename": null, "rename.body": [], "rename.headers": [], "rename.querystring": [],
            "replace": null, "replace.body": [], "replace.headers": [], "replace.querystring": [], "replace.uri": null,
            "add": null, "add.body": [], "add.headers": [], "add.querystring": [],
            "append": null, "append.body": [], "append.headers": [], "append.querystring": [],
        }),
        "request-transformer-advanced" => json!({
            "http_method": null, "dots_in_keys": true, "allow": null, "allow.body": null,
            "remove": null, "remove.body": [], "remove.headers": [], "remove.querystring": [],
            "rename": null, "rename.body": [], "rename.headers": [], "rename.querystring": [],
            "replace": null, "replace.body": [], "replace.json_types": [], "replace.headers": [],
            "replace.querystring": [], "replace.uri": null,
            "add": null, "add.body": [], "add.json_types": [], "add.headers": [], "add.querystring": [],
            "append": null, "append.body": [], "append.json_types": [], "append.headers": [], "append.querystring": [],
        }),
        "request-size-limiting" => json!({
            "allowed_payload_size": 128, "size_unit": "megabytes", "content_types": {}, "require_content_length": false,
        }),
        "request-termination" => json!({
            "status_code": 503, "message": null, "body": null, "content_type": null, "echo": false, "trigger": null,
        }),
        "response-transformer" => json!({
            "remove": null, "remove.json": [], "remove.headers": [],
            "rename": null, "rename.json": [], "rename.headers": [],
            "replace": null, "replace.json": [], "replace.json_types": [], "replace.headers": [],
            "add": null, "add.json": [], "add.json_types": [], "add.headers": [],
            "append": null, "append.json": [], "append.json_types": [], "append.headers": [],
        }),
        "response-transformer-advanced" => json!({
            "dots_in_keys": true, "allow": null, "allow.json": null,
            "remove": null, "remove.json": [], "remove.headers": [], "remove.if_status": [],
            "rename": null, "rename.headers": [], "rename.if_status": [],
            "replace": null, "replace.body": null, "replace.json": [], "replace.json_types": [], "replace.headers": [],
            "replace.if_status": [],
            "add": null, "add.json": [], "add.json_types": [], "add.headers": [], "add.if_status": [],
            "append": null, "append.json": [], "append.json_types": [], "append.headers": [], "append.if_status": [],
            "transform": null, "transform.functions": [], "transform.json": [], "transform.if_status": [],
        }),
        "jq" => json!({
            "request_jq_program": null, "request_if_media_type": ["application/json"],
            "request_jq_program_options": null, "request_jq_program_options.compact_output": true,
            "request_jq_program_options.raw_output": false, "request_jq_program_options.join_output": false,
            "request_jq_program_options.ascii_output": false, "request_jq_program_options.sort_keys": false,
            "response_jq_program": null, "response_if_media_type": ["application/json"],
            "response_if_status_code": [200],
            "response_jq_program_options": null, "response_jq_program_options.compact_output": true,
            "response_jq_program_options.raw_output": false, "response_jq_program_options.join_output": false,
            "response_jq_program_options.ascii_output": false, "response_jq_program_options.sort_keys": false,
        }),
        "session" => json!({
            "secret": null, "storage": "cookie", "audience": "default", "idling_timeout": 900, "rolling_timeout": 3600,
            "absolute_timeout": 86400, "stale_ttl": 10, "cookie_name": "session", "cookie_path": "/",
            "cookie_domain": null, "cookie_same_site": "Strict", "cookie_http_only": true, "cookie_secure": true,
            "remember": false, "remember_cookie_name": "remember", "remember_rolling_timeout": 604800,
            "remember_absolute_timeout": 2592000, "response_headers": [], "request_headers": [],
            "read_body_for_logout": false, "logout_methods": ["POST", "DELETE"],
            "logout_query_arg": "session_logout", "logout_post_arg": "session_logout", "hash_subject": false,
            "store_metadata": false, "cookie_lifetime": null, "cookie_idletime": null, "cookie_discard": null,
            "cookie_samesite": null, "cookie_httponly": null, "cookie_persistent": null, "cookie_renew": null,
        }),
        "standard-webhooks" => json!({"secret_v1": null, "tolerance_second": 300}),
        other => panic!("{other}: add the fields of Kong's plugin to kong_defaults"),
    }
}

/// The fields of jwt-signer: the same for access tokens and channel tokens, except headers.
fn jwt_signer_defaults() -> Value {
    let mut fields = Map::new();
    fields.insert("realm".to_owned(), Value::Null);
    fields.insert("enable_hs_signatures".to_owned(), json!(false));
    for (kind, request_header, upstream_header) in
        [("access", json!("Authorization"), json!("Authorization:Bearer")), ("channel", Value::Null, Value::Null)]
    {
        for (name, default) in [
            ("KIND_token_request_header", request_header),
            ("KIND_token_optional", json!(false)),
            ("KIND_token_jwks_uri", Value::Null),
            ("KIND_token_introspection_endpoint", Value::Null),
            ("KIND_token_introspection_authorization", Value::Null),
            ("KIND_token_introspection_hint", Value::Null),
            ("KIND_token_introspection_timeout", json!(10_000)),
            ("cache_KIND_token_introspection_ttl", json!(30)),
            ("verify_KIND_token_signature", json!(true)),
            ("verify_KIND_token_expiry", json!(true)),
            ("verify_KIND_token_notbefore", json!(false)),
            ("KIND_token_leeway", json!(0)),
            ("KIND_token_issuers_allowed", json!([])),
            ("KIND_token_audiences_allowed", json!([])),
            ("KIND_token_subjects_allowed", json!([])),
            ("KIND_token_scopes_claim", json!(["scope"])),
            ("KIND_token_scopes_required", json!([])),
            ("KIND_token_consumer_claim", json!([])),
            ("KIND_token_consumer_by", json!(["username", "custom_id"])),
            ("KIND_token_signing", json!(true)),
            ("KIND_token_signing_keys", json!([])),
            ("KIND_token_signing_algorithm", Value::Null),
            ("KIND_token_issuer", json!("kong")),
            ("KIND_token_upstream_header", upstream_header),
            ("KIND_token_upstream_leeway", json!(0)),
            ("set_KIND_token_claims", json!({})),
            ("add_KIND_token_claims", json!({})),
            ("remove_KIND_token_claims", json!([])),
        ] {
            fields.insert(name.replace("KIND", kind), default);
        }
    }
    Value::Object(fields)
}

/// The fields of a plugin and of its server. Those of Sentinel and clusters are fields of Kong's enterprise plugins.
fn with_redis(mut fields: Value) -> Value {
    let redis = json!({
        "redis": null, "redis.host": null, "redis.port": 6379, "redis.timeout": 2000, "redis.username": null,
        "redis.password": null, "redis.database": 0, "redis.ssl": false, "redis.ssl_verify": false,
        "redis.server_name": null, "redis.connect_timeout": null, "redis.send_timeout": null,
        "redis.read_timeout": null, "redis.sentinel_master": null, "redis.sentinel_role": null,
        "redis.sentinel_nodes": null, "redis.sentinel_nodes[].host": "127.0.0.1", "redis.sentinel_nodes[].port": 6379,
        "redis.sentinel_username": null, "redis.sentinel_password": null, "redis.cluster_nodes": null,
        "redis.cluster_nodes[].ip": "127.0.0.1", "redis.cluster_nodes[].port": 6379,
        "redis.cluster_addresses": [], "redis.sentinel_addresses": [],
        "redis.cluster_max_redirections": 5, "redis.connection_is_proxied": false, "redis.keepalive_pool_size": 256,
        "redis.keepalive_backlog": null,
    });
    fields.as_object_mut().unwrap().extend(redis.as_object().unwrap().clone());
    fields
}

/// The fields of a plugin, of its server, and the former names of the latter.
fn with_redis_aliases(fields: Value) -> Value {
    let mut fields = with_redis(fields);
    let aliases = ["host", "port", "password", "username", "ssl", "ssl_verify", "server_name", "timeout", "database"];
    let aliases = aliases.map(|name| (format!("redis_{name}"), Value::Null));
    fields.as_object_mut().unwrap().extend(aliases);
    fields
}

/// The fields of a plugin and of its queue.
fn with_queue(mut fields: Value) -> Value {
    let queue = json!({
        "queue": null, "queue.max_batch_size": 1, "queue.max_coalescing_delay": 1.0, "queue.max_entries": 10000,
        "queue.max_bytes": null, "queue.max_retry_time": 60.0, "queue.initial_retry_delay": 0.01,
        "queue.max_retry_delay": 60.0, "queue.concurrency_limit": 1,
    });
    fields.as_object_mut().unwrap().extend(queue.as_object().unwrap().clone());
    fields
}

/// Top-level fields that Kong 3.10 does not have, each after the name of its plugin.
const NOT_IN_KONG_3_10: [&str; 36] = [
    "basic-auth brute_force_protection",
    "basic-auth identity_realms",
    "degraphql routes",
    "graphql-proxy-cache-advanced max_body_size",
    "graphql-rate-limiting-advanced costs",
    "graphql-rate-limiting-advanced introspection_headers",
    "graphql-rate-limiting-advanced introspection_ssl_verify",
    "graphql-rate-limiting-advanced introspection_timeout",
    "graphql-rate-limiting-advanced introspection_url",
    "header-cert-auth crls",
    "http-log ssl_verify",
    "jwt jwks",
    "jwt-signer verify_access_token_binding",
    "jwt-signer verify_channel_token_binding",
    "key-auth identity_realms",
    "ldap-auth bind_dn",
    "ldap-auth consumer_by",
    "ldap-auth consumer_optional",
    "ldap-auth group_base_dn",
    "ldap-auth group_member_attribute",
    "ldap-auth group_name_attribute",
    "ldap-auth groups_required",
    "ldap-auth ldap_password",
    "mtls-auth crls",
    "oauth2 redis",
    "oauth2-introspection ssl_verify",
    "oauth2-introspection verify_token_binding",
    "opa keepalive",
    "opa timeout",
    "opentelemetry protocol",
    "opentelemetry sampling_strategy",
    "opentelemetry ssl_verify",
    "session former_secret",
    "session redis",
    "zipkin sampling_strategy",
    "zipkin ssl_verify",
];

// docs/kong-compatibility.md, 4.0
// docs/kong-compatibility.md, 4.1
// docs/kong-compatibility.md, 4.5
// docs/kong-compatibility.md, 4.6
// docs/kong-compatibility.md, 4.7
// docs/kong-compatibility.md, 4.8
// docs/kong-compatibility.md, 4.13
// docs/kong-compatibility.md, 4.14
// docs/kong-compatibility.md, 4.15
// docs/kong-compatibility.md, 4.16
// docs/kong-compatibility.md, 4.17
// docs/kong-compatibility.md, 4.18
// docs/kong-compatibility.md, 4.20
// docs/kong-compatibility.md, 4.23
// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 4.26
// docs/kong-compatibility.md, 4.27
// docs/kong-compatibility.md, 4.28
// docs/kong-compatibility.md, 4.29
// docs/kong-compatibility.md, 4.30
// docs/kong-compatibility.md, 4.31
// docs/kong-compatibility.md, 4.32
// docs/kong-compatibility.md, 4.33
// docs/kong-compatibility.md, 5.2
// docs/kong-compatibility.md, 5.6
// docs/kong-compatibility.md, 5.7
// docs/kong-compatibility.md, 5.8
// docs/kong-compatibility.md, 5.9
// docs/kong-compatibility.md, 5.17
// docs/kong-compatibility.md, 5.21
// docs/kong-compatibility.md, 7.27
#[test]
fn fields_and_defaults_match_kong() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let is_not_in_kong = |path: &str| {
            let top_level = path.split(['.', '[']).next().unwrap_or_default();
            NOT_IN_KONG_3_10.contains(&format!("{name} {top_level}").as_str())
        };
        let fields = fields::list(kind).into_iter().filter(|field| !is_not_in_kong(&field.path));
        let mut found: Map<String, Value> =
            fields.map(|field| (field.path, field.default.unwrap_or_default())).collect();
        if name == "openid-connect" {
            found.retain(|path, _| kong_defaults(name).get(path).is_some());
        }
        assert_eq!(Value::Object(found), kong_defaults(name), "{name}: left: Portico, right: Kong");
    }
}

/// After a migration, endpoints did not get the token that they had read, and no page said so.
#[test]
fn defaults_that_differ_from_those_of_kong_are_documented() {
    let page = fs::read_to_string(root().join("docs/kong-compatibility.md")).unwrap();
    // All of these are false in Kong.
    for (plugin, field) in [
        ("forward-proxy", "https_verify"),
        ("oauth2-introspection", "hide_credentials"),
        ("openid-connect", "hide_credentials"),
    ] {
        let mut fields = fields::list(REGISTRY.find(plugin).unwrap()).into_iter();
        let default = fields.find(|found| found.path == field).and_then(|found| found.default);
        assert_eq!(default, Some(json!(true)), "{plugin}: {field}");
        let is_about_plugin = |row: &&str| row.split('|').nth(2).is_some_and(|cell| cell.trim() == plugin);
        let row = page.lines().find(is_about_plugin).unwrap();
        assert!(row.contains(&format!("`{field}` is true by default")), "{row}");
    }
}
