//! Cross-origin requests.

use super::super::annotation::OnBadValue::Default;
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{Row, SIGNED_SECONDS, path};

pub(super) const CORS: &[Row] = &[
    path("enable-cors", ValueKind::Flag, "false", Default)
        .says("Handles cross-origin requests, preflight requests included."),
    path("cors-allow-origin", ValueKind::OriginList, "*", Default).says("Lists the permitted origins."),
    path("cors-allow-methods", ValueKind::SpacedText(CharacterSet::Words), METHODS, Default)
        .says("Lists the permitted methods."),
    path("cors-allow-headers", ValueKind::SpacedText(CharacterSet::HeaderNames), HEADERS, Default)
        .says("Lists the permitted request headers."),
    path("cors-allow-credentials", ValueKind::Flag, "true", Default).says("Permits requests with credentials."),
    path("cors-expose-headers", ValueKind::SpacedText(CharacterSet::HeaderNamesOrAll), "", Default)
        .says("Lists the response headers that scripts may read."),
    path("cors-max-age", SIGNED_SECONDS, "1728000", Default)
        .says("Sets how many seconds browsers keep the result of a preflight request."),
];

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,\
    Authorization";
