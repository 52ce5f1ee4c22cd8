//! Timeouts, sizes, buffers and retries.

use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::value::ValueKind;
use super::row::{COUNT, ON_OFF, Row, SECONDS, path};

pub(super) const PROXYING: &[Row] = &[
    path("proxy-connect-timeout", SECONDS, "5", Default)
        .says("Sets how many seconds a connection to an endpoint may take."),
    path("proxy-read-timeout", SECONDS, "60", Default)
        .says("Sets how many seconds may pass between two reads from the backend."),
    path("proxy-send-timeout", SECONDS, "60", Default)
        .says("Sets how many seconds may pass between two writes to the backend."),
    path("proxy-body-size", ValueKind::Size, "1m", Default)
        .says("Limits the size of request bodies; 0 removes the limit."),
    path("client-body-buffer-size", ValueKind::BufferSize, "8k", Reject)
        .wrong_form(Default)
        .says("Sets how much of a request body nginx keeps in memory."),
    path("proxy-buffering", ON_OFF, "off", Default).says("Buffers responses of the backend."),
    path("proxy-request-buffering", ON_OFF, "on", Default)
        .says("Reads the whole request body before it connects to the backend."),
    path("proxy-buffer-size", ValueKind::Size, "4k", Default)
        .says("Limits the size of the header of responses of the backend."),
    path("proxy-buffers-number", COUNT, "4", Default).says("Sets the number of buffers for a response."),
    path("proxy-busy-buffers-size", ValueKind::Size, "", Default)
        .says("Limits the buffers that are being sent to the client."),
    path("proxy-max-temp-file-size", ValueKind::Size, "1024m", Default)
        .says("Limits the file into which nginx writes a long response."),
    path("proxy-http-version", HTTP_VERSIONS, "1.1", Default).says("Sets the version of HTTP/1 to the backend."),
    path("proxy-next-upstream", RETRY_CONDITIONS, "error timeout", Default)
        .says("Lists the failures after which another endpoint is tried."),
    path("proxy-next-upstream-tries", COUNT, "3", Default)
        .says("Limits the attempts for a request; 0 removes the limit."),
    path("proxy-next-upstream-timeout", SECONDS, "0", Default)
        .says("Limits the seconds in which a further attempt may start; 0 removes the limit."),
];

const HTTP_VERSIONS: ValueKind = ValueKind::OneOf(&["1.0", "1.1"]);
const RETRY_CONDITIONS: ValueKind = ValueKind::Words(&[
    "error",
    "timeout",
    "invalid_header",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "non_idempotent",
    "off",
]);
